"""Semgrep with local rule files; nothing of a registry, no account, no metrics, no version check.

Measured on 1.182: without network it waits over 60 seconds unless version check and metrics are off; files over a
megabyte are left out without a word unless the cap is lifted; a byte order mark hides the first line; rules that run
out of time on a file leave it among the scanned ones. Its fingerprints are the constant text 'requires login', and
rule ids get the path of the rule file as prefix. It marks suppressed findings itself.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from intelligentscan._process import MIB, ProcessResult
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.batches import EngineBroken
from intelligentscan.scanners.child_engine import MAX_REPORT_BYTES
from intelligentscan.scanners.config import EngineConfig
from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.engine_call import Call, Parsed, Report, Setting, read_file, read_json, read_own_sarif
from intelligentscan.scanners.interface import EngineFacts, Sarif, TargetFile
from intelligentscan.scanners.languages import is_in, suffixes
from intelligentscan.scanners.optional_engine import OptionalEngine, own_environment
from intelligentscan.scanners.rule_files import RuleSet, checked_rules, rules_of
from intelligentscan.scanners.text_copy import text_copy

_RULE_TIMEOUT_S = 30
_BAD_RULES = frozenset({4, 5, 7})
_PLACEHOLDER = "requires login"


class Semgrep(OptionalEngine):
    """The semgrep engine; see the module."""

    name: str = "semgrep"
    command: ClassVar[str] = "semgrep"
    install: ClassVar[str] = own_environment("semgrep")
    exit_codes: ClassVar[frozenset[int]] = frozenset({0, 1, *_BAD_RULES})
    environment: ClassVar[Mapping[str, str]] = {"SEMGREP_ENABLE_VERSION_CHECK": "0", "SEMGREP_SEND_METRICS": "off"}
    max_files: ClassVar[int] = 1_000
    max_bytes: ClassVar[int] = 32 * MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the file suffixes the engine analyses, if there are rules for them."""
        return suffixes()

    def rule_set(self, options: EngineConfig) -> RuleSet:
        """Return the rules that the configuration names.

        Raises:
            InvalidArgument: it names none, or they are wrong.
        """
        if not options.rules:
            raise InvalidArgument(
                "The engine semgrep has no rules: only local rule files are used, nothing is fetched from a registry.",
                next="give a configuration with engines: {semgrep: {rules: [/absolute/path/of/rules]}}.",
            )
        rule_set = rules_of(options, self.name)
        checked_rules(rule_set, self.name)
        return rule_set

    def known_rules(self, facts: EngineFacts, rule_set: RuleSet | None) -> tuple[str, ...]:
        """Return the ids of all rules."""
        return tuple(sorted({rule["id"] for rule in _rules(rule_set)}))

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile | None:
        """Return the file as plain UTF-8, None if no rule is for its language."""
        languages = {str(name).lower() for rule in _rules(setting.rule_set) for name in rule.get("languages") or []}
        return text_copy(file, setting.workspace / "text") if is_in(file.path, languages) else None

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        rules = call.workspace / "rules"
        if not rules.exists() and call.setting.rule_set is not None:
            rules.mkdir(mode=0o700)
            call.setting.rule_set.write(rules)
        return [
            *("scan", "--config", str(rules), "--metrics=off", "--disable-version-check", "--no-git-ignore"),
            *("--max-target-bytes", "0", "--no-rewrite-rule-ids", "--jobs", "1", "--quiet"),
            *("--timeout", str(_RULE_TIMEOUT_S), "--max-memory", str(call.setting.memory // MIB)),
            *("--sarif", f"--json-output={call.output / 'told.json'}"),
            *call.copies,
        ]

    def parse(self, call: Call, result: ProcessResult) -> Parsed:
        """Return the report, and the files that were left out or analysed in part.

        Raises:
            EngineBroken: semgrep refuses the rules.
            NoReport: there is no usable report.
        """
        if result.exit_code in _BAD_RULES:
            raise EngineBroken("semgrep refuses the rules; 'semgrep scan --validate --config …' tells why")
        document = read_own_sarif(result.stdout)
        told = read_json(read_file(call.output / "told.json", MAX_REPORT_BYTES))
        scanned = set(told.get("paths", {}).get("scanned") or [])
        lost = {copy: "left out by semgrep" for copy in call.copies if copy not in scanned}
        for error in told.get("errors") or []:
            for path in _paths(error):
                lost[path] = f"analysed in part by semgrep ({_kind(error)})"
        known = {rule["id"] for rule in _rules(call.setting.rule_set)}
        for item in engine_sarif.results(document):
            _clean(item, known)
        for run in engine_sarif.runs(document):
            for rule in run.get("tool", {}).get("driver", {}).get("rules") or []:
                rule["id"] = _plain_id(str(rule.get("id")), known)
        return Parsed(document, lost)

    def silenced(self, report: Report, names: CopyNames) -> list[TargetFile]:
        """Return no files: semgrep marks suppressed findings itself."""
        return []


def _rules(rule_set: RuleSet | None) -> list[dict[str, Any]]:
    return checked_rules(rule_set, Semgrep.name) if rule_set is not None else []


def _clean(item: Sarif, known: set[str]) -> None:
    item["ruleId"] = _plain_id(item["ruleId"], known)
    if fingerprints := item.get("fingerprints"):
        item["fingerprints"] = {key: value for key, value in fingerprints.items() if value != _PLACEHOLDER}


def _plain_id(rule: str, known: set[str]) -> str:
    """Return a rule's own id, without the path of its file that some releases put before it."""
    while rule not in known and "." in rule:
        rule = rule.partition(".")[2]
    return rule


def _paths(error: Mapping[str, Any]) -> list[str]:
    spans = [span.get("file") for span in error.get("spans") or [] if isinstance(span, dict)]
    return [path for path in (error.get("path"), *spans) if isinstance(path, str)]


def _kind(error: Mapping[str, Any]) -> str:
    kind = error.get("type")
    return str(kind[0] if isinstance(kind, list) and kind else kind)[:40]
