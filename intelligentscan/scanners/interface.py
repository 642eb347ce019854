"""What an engine is, and the types that cross the scanning room."""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from intelligentscan.domain.scan import EngineCoverage, Finding, ScanStatus
from intelligentscan.scanners.config import ScanConfig

Progress = Callable[[float, str], Awaitable[None]]
"""Receives the share done (0 to 1) and a short text of ours (never text from the target)."""

FilesDone = Callable[[int], Awaitable[None]]
"""Receives how many more files an engine is through with."""

Sarif = dict[str, Any]
"""A parsed SARIF 2.1.0 log."""


def shown_path(path: str) -> str:
    """Return a path of the target as results write it: always valid UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class TargetFile:
    """One file to scan.

    Attributes:
        path: relative to the root, with forward slashes, as the system gives it (bytes that are no UTF-8: surrogates).
        size: in bytes.
        readable: whether we could read it.
        reason: why we could not; empty if we could.
        copy: the private copy that engines read; None if there is none.
        lines: number of lines of the copy.
        suppressions: whether it has a word that may silence a rule, such as nosec or noqa.
    """

    path: str
    size: int
    readable: bool = True
    reason: str = ""
    copy: Path | None = None
    lines: int = 0
    suppressions: bool = False

    @property
    def shown(self) -> str:
        """The path as results write it."""
        return shown_path(self.path)


@dataclass(frozen=True, slots=True)
class Vcs:
    """What git plumbing says about the target; all None when it is no git work tree.

    Attributes:
        submodules: whether the commit names commits of other repositories; they are not looked into.
    """

    repository: str | None = None
    url: str | None = None
    branch: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    subpath: str | None = None
    submodules: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A folder, and the one explicit list of files that every engine gets.

    Attributes:
        root: real absolute path of the folder.
        files: every regular file that may be read, in the order of their paths.
        skipped: links, special files and credentials, which are never read.
        workspace: a private folder for the copies of the files and for what engines write.
        unreadable_folders: folders whose files nobody could list.
        warnings: what was left out on purpose.
    """

    root: Path
    files: tuple[TargetFile, ...]
    skipped: int
    workspace: Path
    unreadable_folders: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What one engine found in one target, and what it saw of it."""

    coverage: EngineCoverage
    findings: tuple[Finding, ...]
    sarif: Sarif | None
    stderr: str
    rules_run: tuple[str, ...]
    failed_files: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class Engine(Protocol):
    """One scanner program, run as a child process."""

    name: str

    def suffixes(self) -> frozenset[str]:
        """Return the file suffixes the engine analyses, such as '.py'."""
        ...

    async def version(self) -> str:
        """Return the version of the installed program."""
        ...

    async def scan(
        self, target: Target, files: Sequence[TargetFile], config: ScanConfig, on_files_done: FilesDone
    ) -> EngineResult:
        """Analyse exactly these files of the target.

        Raises:
            InvalidArgument: the configuration selects no rule that this engine has.
            ScanFailed: the engine could not be started, or a limit ended it before it analysed any file.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan produced, whichever way it came: our engines, an imported SARIF file, plain findings.

    Attributes:
        files: the files that engines take, readable or not.
        failed_files: per engine, the files it did not analyse; folders that nobody could list end in a slash.
        left_out: files and folders (ending in a slash) that are there but were not looked into on purpose; what an
            earlier scan found in them is not fixed.
    """

    kind: str
    scanner: str
    scanner_version: str
    target: str
    status: ScanStatus
    findings: tuple[Finding, ...]
    coverage: tuple[EngineCoverage, ...] = ()
    sarif: Sarif = field(default_factory=dict)
    engine_sarif: dict[str, Sarif] = field(default_factory=dict)
    engine_stderr: dict[str, str] = field(default_factory=dict)
    rules_run: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    failed_files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    config: ScanConfig | None = None
    vcs: Vcs = field(default_factory=Vcs)
    duration_s: float = 0.0
    files_discovered: int = 0
    files_analyzed: int = 0
    files_failed: int = 0
    files_skipped: int = 0
    bytes: int = 0
    lines: int = 0
    warnings: tuple[str, ...] = ()
