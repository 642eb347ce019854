"""Zizmor for workflows and actions of GitHub, offline and without any `zizmor.yml`.

It ends with code 3 when there is nothing for it to audit, which is no failure. Asked to be strict it stops at the first
file that it cannot read, otherwise it drops such files with a warning that does not name them; strict calls are
halved until the bad files stand alone. What it audited it lists on standard error.
"""

import re
from typing import ClassVar

from intelligentscan._process import MIB, ProcessResult
from intelligentscan.scanners.batches import NoReport
from intelligentscan.scanners.engine_call import Call, Parsed, Setting, read_own_sarif, sarif_of
from intelligentscan.scanners.file_kinds import github_name, is_workflow
from intelligentscan.scanners.interface import TargetFile
from intelligentscan.scanners.optional_engine import OptionalEngine, extra
from intelligentscan.scanners.text_copy import text_copy

_NOTHING_TO_AUDIT = 3
_NOT_READ = 1
_COMPLETED = re.compile(r"completed (\S+)$", re.MULTILINE)
_ABOUT_ITSELF = re.compile(r"^ *INFO .*\n?", re.MULTILINE)


class Zizmor(OptionalEngine):
    """The zizmor engine; see the module."""

    name: str = "zizmor"
    command: ClassVar[str] = "zizmor"
    package: ClassVar[str | None] = "zizmor"
    install: ClassVar[str] = extra("ci")
    per_file: ClassVar[bool] = True
    exit_codes: ClassVar[frozenset[int]] = frozenset({0, _NOT_READ, _NOTHING_TO_AUDIT})
    max_files: ClassVar[int] = 50
    max_bytes: ClassVar[int] = 2 * MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the files the engine analyses."""
        return (".github/workflows/*.yml", "action.yml", ".github/dependabot.yml")

    def takes(self, path: str) -> bool:
        """Tell whether a file is a workflow, an action or Dependabot's settings by its path."""
        return is_workflow(path) or github_name(path) is not None

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile:
        """Return the file as plain UTF-8, under its own name where that says what it is."""
        return text_copy(file, setting.workspace / "text", name=github_name(file.path))

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        return [
            *("--offline", "--no-config", "--strict-collection", "--no-progress", "--color", "never"),
            *("--format", "sarif"),
            *(["--no-ignores"] if call.ignore_suppressions else []),
            *call.copies,
        ]

    def parse(self, call: Call, result: ProcessResult) -> Parsed:
        """Return the report, and the files that were not audited.

        Raises:
            NoReport: there is no usable report.
        """
        if result.exit_code == _NOT_READ:
            raise NoReport("not YAML in UTF-8, or no workflow or action that zizmor understands")
        stderr = result.stderr.decode("utf-8", "replace")
        if result.exit_code == _NOTHING_TO_AUDIT:
            return Parsed(sarif_of(self.name, call.setting.facts.version, [], []), stderr="")
        completed = set(_COMPLETED.findall(stderr))
        lost = {copy: "not audited by zizmor" for copy in call.copies if copy not in completed}
        return Parsed(read_own_sarif(result.stdout), lost, stderr=_ABOUT_ITSELF.sub("", stderr))
