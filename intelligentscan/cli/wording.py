"""Messages for people: the services name agent tools and their arguments; a shell has commands and options."""

import re
import shlex
from typing import NamedTuple

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
    "create_experiment": "scan PATH --experiment NAME",
    "log_run": "run -- CMD",
    "search_runs": "ui",
    "list_findings": "ui",
    "get_run": "ui",
}


class _Command(NamedTuple):
    """How a command takes what a tool's call gives: by place, with the word that stands for what is not given."""

    words: str
    places: dict[str, str]
    options: dict[str, str] = {}


_NAME, _VERSION = "NAME", "VERSION"
_CALLS = {
    "register_model": _Command(
        "register",
        {"run_id": "RUN"},
        {
            "name": "--name",
            "model_path": "--model-path",
            "description": "--description",
            "tags": "--tag",
            "product": "--product",
            "use_case": "--use-case",
        },
    ),
    "promote": _Command("promote", {"name": _NAME, "version": _VERSION}, {"to": "--to", "reason": "--reason"}),
    "request_review": _Command("review request", {"name": _NAME, "version": _VERSION}, {"evidence": "--evidence"}),
    "get_history": _Command("history", {"name": ""}, {"version": "--version", "at": "--at", "actor": "--actor"}),
    "get_model": _Command("model show", {"name": _NAME, "version": ""}),
    "verify_integrity": _Command("verify", {"name": "", "version": ""}),
}
_PHRASES = {
    "scan_vulnerabilities on a clean checkout": "'intelligentscan scan .' in a clean checkout",
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
_VALUE = r"(?:'[^']*'|\{[^{}]*\}|…|\w+)"
_ARGUMENT = re.compile(rf"(\w+)=({_VALUE})")
_ENTRY = re.compile(r"'([^']*)': (?:'([^']*)'|(…|[\w.]+))")
_MATCH = re.compile(
    # What an agent does stays a tool call: a plan is confirmed by calling its tool again, and no command does that.
    r"(?P<agent>\bagent calls [^.;]*)"
    r"|\bcall (?P<again>(?:(?:the tool|\w+) )?again with(?:out)? confirm\b)"
    r"|\b(?P<planned>(?:register_model|promote) without confirm)\b"
    r"|log_run run_id='(?P<run>\w+)' status='FINISHED'(?: \(or 'KILLED'\))?"
    rf"|(?P<call>\bcall )?\b(?P<tool>{'|'.join(_CALLS)})(?P<given>(?: \w+={_VALUE})+)"
    rf"|\b(?P<browsing>search_runs|list_findings|get_run)(?: (?:with )?\w+=(?:'[^']*'|\S+))+"
    rf"|(?<!\w)(?P<word>{'|'.join(map(re.escape, sorted(_WORDS, key=len, reverse=True)))})(?![a-z_=])"
    r"|(?<!\w)'[^']*'"  # what is quoted is somebody's name
)


def for_people(text: str) -> str:
    """Return a message with the names of agent tools and their arguments replaced by our commands and options."""
    return _MATCH.sub(_replaced, text)


def _replaced(match: re.Match[str]) -> str:
    if match["again"]:
        return f"the agent calls {match['again']}"
    if match["planned"]:
        return f"the agent's call of {match['planned']}"
    if match["run"]:
        return f"mlflow.MlflowClient().set_terminated('{match['run']}')"
    if match["tool"]:
        return (match["call"] or "") + _command(_CALLS[match["tool"]], match["given"])
    if match["browsing"]:
        return "'intelligentscan ui'"
    return _WORDS[match["word"]] if match["word"] else match[0]


def _command(called: _Command, given: str) -> str:
    arguments = dict(_ARGUMENT.findall(given))
    words = [called.words]
    words += [_shell(arguments.get(name, placeholder)) for name, placeholder in called.places.items()]
    for name, value in arguments.items():
        option = called.options.get(name)
        if option is not None and value.startswith("{"):
            words += [f"{option} {_shell(f'{key}={said or word}')}" for key, said, word in _ENTRY.findall(value)]
        elif option is not None:
            words.append(f"{option} {_shell(value)}")
    return f"'intelligentscan {' '.join(word for word in words if word)}'"


def _shell(value: str) -> str:
    """Return a value as one word of a command line that itself stands in single quotes; `…` is for the reader."""
    bare = value[1:-1] if value.startswith("'") else value
    if not bare or shlex.quote(bare.replace("…", "")) in (bare.replace("…", ""), "''"):
        return bare
    return '"' + re.sub(r'(["$`\\])', r"\\\1", bare) + '"'
