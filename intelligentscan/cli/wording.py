"""Messages for people: the services name agent tools and their arguments; a shell has commands and options."""

import re
import shlex

_COMMANDS = {
    "scan_vulnerabilities": "scan",
    "log_scan_run": "import-sarif",
    "compare_runs": "compare",
    "register_model": "register",
    "get_history": "history",
    "request_review": "review request",
    "verify_integrity": "verify",
    "get_model": "model show",
    "search_experiments": "experiments",
    "create_experiment": "scan --experiment",
    "log_run": "run -- CMD",
    "search_runs": "ui",
    "list_findings": "ui",
    "get_run": "ui",
}
_NAMED = {"register_model": "register RUN --name {}", "get_history": "history {}", "get_model": "model show {}"}
_NAMED["verify_integrity"] = "verify {}"
_PHRASES = {
    "call create_experiment with the name of the locked experiment; it names the next one": (
        "'intelligentscan experiments' shows where work goes on"
    ),
    "(create_experiment)": "(mlflow.set_experiment)",
    "call promote": "call 'intelligentscan promote'",
    "get_run lists the": "the run's page in 'intelligentscan ui' lists the",
    "get_run returns the full id for a prefix or for 'latest'": "'intelligentscan ui' shows it on the run's page",
    "read with get_run": "shown by 'intelligentscan ui'",
}
_OPTIONS = {
    "repo_path": "PATH",
    "sarif_path": "FILE",
    "run_ids": "RUN...",
    "run_id": "RUN",
    "run_id=": "RUN ",
    "model_uri": "RUN",
    "model_path": "--model-path",
    "use_case": "--use-case",
    "use_case=…": "--use-case …",
    "description=…": "--description …",
    "abandon_running=true": "--abandon-running",
    "dry_run": "--dry-run",
    "top_k": "--top-k",
    "order_by": "--order-by",
    "with a reason": "with --reason",
    "with reason": "with --reason",
    "with to=": "with --to ",
    "with limit=": "with --limit ",
    "with experiment=": "with --experiment ",
    "with experiment": "with --experiment",
    "or baseline=": "or --baseline ",
    "in metrics": "with --metrics",
    "response_format='detailed'": "--json",
}
_WORDS = _PHRASES | _OPTIONS | {tool: f"'intelligentscan {command}'" for tool, command in _COMMANDS.items()}
_MATCH = re.compile(
    r"request_review name='(?P<reviewed>[^']*)' version=(?P<number>\w+)"
    r"|log_run run_id='(?P<run>\w+)' status='FINISHED'(?: \(or 'KILLED'\))?"
    rf"|\b(?P<tool>{'|'.join(_NAMED)}) name='(?P<name>[^']*)'"
    rf"|\b(?P<browsing>search_runs|list_findings|get_run)(?: (?:with )?\w+=(?:'[^']*'|\S+))+"
    rf"|(?<!\w)(?P<word>{'|'.join(map(re.escape, sorted(_WORDS, key=len, reverse=True)))})(?![a-z_=])"
    r"|(?<!\w)'[^']*'"  # what is quoted is somebody's name
)


def for_people(text: str) -> str:
    """Return a message with the names of agent tools and their arguments replaced by our commands and options."""
    return _MATCH.sub(_replaced, text)


def _replaced(match: re.Match[str]) -> str:
    if match["run"]:
        return f"mlflow.MlflowClient().set_terminated('{match['run']}')"
    if match["reviewed"]:
        return f"'intelligentscan review request {shlex.quote(match['reviewed'])} {match['number']}'"
    if match["tool"]:
        name = match["name"]
        shown = name if shlex.quote(name) == name else f'"{name}"'
        return f"'intelligentscan {_NAMED[match['tool']].format(shown)}'"
    if match["browsing"]:
        return "'intelligentscan ui'"
    return _WORDS[match["word"]] if match["word"] else match[0]
