"""ast-grep with local rule files, our own pack unless a configuration names others.

It would read `sgconfig.yml`, which can load a shared library as a parser, from the folder it scans: it gets one of
ours. It skips what is no UTF-8 and says so only when asked to inspect, which is also how it tells the files it
analysed. Comments with `ast-grep-ignore` cannot be switched off, so a second run gets copies without that word.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from intelligentscan._process import MIB, ProcessResult
from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.batches import EngineBroken
from intelligentscan.scanners.config import EngineConfig
from intelligentscan.scanners.engine_call import Call, Parsed, Setting, read_own_sarif
from intelligentscan.scanners.interface import EngineFacts, TargetFile
from intelligentscan.scanners.languages import is_in, suffixes
from intelligentscan.scanners.optional_engine import OptionalEngine, extra
from intelligentscan.scanners.rule_files import RuleSet, checked_rules, own_pack, rules_of
from intelligentscan.scanners.text_copy import text_copy

_WORD, _OTHER_WORD = b"ast-grep-ignore", b"ast-grep-ignorx"
_BAD_RULES = 8
_SEEN = re.compile(r"^sg: entity\|file\|(.+): (language=\w+|skipped=\w+)", re.MULTILINE)
_ABOUT_ITSELF = re.compile(r"^sg: .*\n?", re.MULTILINE)
_LEVELS = {"error": "error", "warning": "warning"}


class AstGrep(OptionalEngine):
    """The ast-grep engine; see the module."""

    name: str = "ast-grep"
    command: ClassVar[str] = "ast-grep"
    package: ClassVar[str | None] = "ast-grep-cli"
    install: ClassVar[str] = extra("patterns")
    per_file: ClassVar[bool] = True
    exit_codes: ClassVar[frozenset[int]] = frozenset({0, 1, _BAD_RULES})
    max_files: ClassVar[int] = 1_000
    max_bytes: ClassVar[int] = 16 * MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the file suffixes the engine analyses, if there are rules for them."""
        return suffixes()

    def rule_set(self, options: EngineConfig) -> RuleSet:
        """Return the rules of the configuration, or our own pack.

        Raises:
            InvalidArgument: they are missing or wrong.
        """
        rule_set = rules_of(options, self.name) if options.rules else own_pack(self.name)
        checked_rules(rule_set, self.name)
        return rule_set

    def known_rules(self, facts: EngineFacts, rule_set: RuleSet | None) -> tuple[str, ...]:
        """Return the ids of all rules."""
        return tuple(sorted({rule["id"] for rule in _rules(rule_set)}))

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile | None:
        """Return the file as plain UTF-8, None if no rule is for its language."""
        if not is_in(file.path, _languages(setting.rule_set)):
            return None
        copy = text_copy(file, setting.workspace / "text")
        if copy.copy is not None and copy.suppressions:
            folder = setting.workspace / "open"
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / copy.copy.name).write_bytes(copy.copy.read_bytes().replace(_WORD, _OTHER_WORD))
        return copy

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        shown = ("hidden", "dot", "exclude", "global", "parent", "vcs")
        return [
            *("scan", "--config", str(_project(call)), "--format", "sarif", "--inspect", "entity", "--threads", "1"),
            *(option for kind in shown for option in ("--no-ignore", kind)),
            *_copies(call),
        ]

    def parse(self, call: Call, result: ProcessResult) -> Parsed:
        """Return the report with what the rules say about themselves, and the files that were not analysed.

        Raises:
            EngineBroken: ast-grep refuses the rules.
            NoReport: there is no usable report.
        """
        stderr = result.stderr.decode("utf-8", "replace")
        if result.exit_code == _BAD_RULES:
            raise EngineBroken(f"ast-grep refuses the rules ({stderr.strip().partition(chr(10))[0][:200]})")
        document = read_own_sarif(result.stdout)
        names = {name: rule["id"] for rule in _rules(call.setting.rule_set) for name, _ in _variants(rule)}
        for item in engine_sarif.results(document):
            item["ruleId"] = names.get(item["ruleId"], item["ruleId"])
        engine_sarif.runs(document)[0]["tool"]["driver"]["rules"] = [
            _descriptor(rule) for rule in _rules(call.setting.rule_set)
        ]
        seen = dict(_SEEN.findall(stderr))
        lost = {
            copy: seen.get(copy, "not analysed by ast-grep")
            for copy in _copies(call)
            if not seen.get(copy, "").startswith("language=")
        }
        return Parsed(document, lost, stderr=_ABOUT_ITSELF.sub("", stderr))


def _rules(rule_set: RuleSet | None) -> list[dict[str, Any]]:
    return checked_rules(rule_set, AstGrep.name) if rule_set is not None else []


def _languages(rule_set: RuleSet | None) -> frozenset[str]:
    return frozenset(language.lower() for rule in _rules(rule_set) for _, language in _variants(rule))


def _variants(rule: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the ids and languages of a rule: its own, and those that `metadata.also` lists (ids must be unique)."""
    also = _metadata(rule).get("also") or []
    own = str(rule["id"])
    return [
        (own, str(rule.get("language"))),
        *((f"{own}..{str(language).lower()}", str(language)) for language in also),
    ]


def _metadata(rule: dict[str, Any]) -> dict[str, Any]:
    metadata = rule.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _copies(call: Call) -> list[str]:
    if not call.ignore_suppressions:
        return call.copies
    return [str(call.workspace / "open" / Path(copy).name) for copy in call.copies]


def _project(call: Call) -> Path:
    """Return the project file of the scan; written once, for all calls have the same rules."""
    project = call.workspace / "project"
    settings = project / "sgconfig.yml"
    if not settings.exists():
        folder = project / "rules"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        documents = [
            {**rule, "id": name, "language": language}
            for rule in _rules(call.setting.rule_set)
            for name, language in _variants(rule)
        ]
        (folder / "rules.yml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        settings.write_text("ruleDirs: [rules]\n", encoding="utf-8")
    return settings


def _descriptor(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule as SARIF describes it; ast-grep itself writes only ids."""
    metadata = _metadata(rule)
    tags = ["security", *(f"external/cwe/{str(cwe).lower()}" for cwe in [metadata.get("cwe")] if cwe)]
    properties: dict[str, Any] = {"tags": tags}
    if (score := metadata.get("security-severity")) is not None:
        properties["security-severity"] = str(score)
    message = str(rule.get("message") or rule["id"])
    return {
        "id": rule["id"],
        "shortDescription": {"text": message},
        "help": {"text": str(rule.get("note") or message)},
        "defaultConfiguration": {"level": _LEVELS.get(str(rule.get("severity")), "note")},
        "properties": properties,
    }
