"""What an engine is, and the types that cross the scanning room."""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from intelligentscan._credential_forms import without_credentials
from intelligentscan.domain.scan import EngineCoverage, Finding, ScanStatus
from intelligentscan.scanners.config import EngineConfig, ScanConfig
from intelligentscan.scanners.file_sketch import FileSketch
from intelligentscan.scanners.rule_files import RuleSet
from intelligentscan.scanners.secret_digest import SecretDigests

Progress = Callable[[float, str], Awaitable[None]]
"""Receives the share done (0 to 1) and a short text of ours (never text from the target)."""

FilesDone = Callable[[int], Awaitable[None]]
"""Receives how many more files an engine is through with."""

Sarif = dict[str, Any]
"""A parsed SARIF 2.1.0 log."""


def shown_path(path: str) -> str:
    """Return a path of the target as results write it: always valid UTF-8, and without credentials."""
    return without_credentials(os.fsencode(path).decode("utf-8", "replace"))


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
        digest: sha256 of the copy's bytes; empty if there is none.
    """

    path: str
    size: int
    readable: bool = True
    reason: str = ""
    copy: Path | None = None
    lines: int = 0
    suppressions: bool = False
    digest: str = ""

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
        digests: makes the digests of reported secrets; None makes none.
    """

    root: Path
    files: tuple[TargetFile, ...]
    skipped: int
    workspace: Path
    unreadable_folders: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    digests: SecretDigests | None = None


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What one engine found in one target, and what it saw of it.

    Attributes:
        certain_files: paths of files about which a rescan would say the same: no limit was reached on them.
        cached_files: files, as results write them, whose results came from the cache.
    """

    coverage: EngineCoverage
    findings: tuple[Finding, ...]
    sarif: Sarif | None
    stderr: str
    rules_run: tuple[str, ...]
    failed_files: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    certain_files: frozenset[str] = frozenset()
    cached_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an installed engine says about itself; no rules if it does not tell."""

    version: str
    rules: tuple[str, ...] = ()
    python_version: str | None = None


class Engine(Protocol):
    """One scanner program, run as a child process."""

    name: str

    optional: ClassVar[bool]
    package: ClassVar[str | None]
    install: ClassVar[str]
    per_file: ClassVar[bool]

    def kinds(self) -> tuple[str, ...]:
        """Return the files the engine analyses as people say it: suffixes, or names such as 'Dockerfile'."""
        ...

    def takes(self, path: str) -> bool:
        """Tell whether the engine analyses a file of this path, relative to the scanned root."""
        ...

    def check(self, options: EngineConfig, root: Path) -> None:
        """Check before anything is read that the engine can do what is asked of it; blocks.

        Raises:
            InvalidArgument: it is not installed, or an option is wrong.
        """
        ...

    def program(self, options: EngineConfig | None = None, avoid: Path | None = None) -> list[str]:
        """Return the absolute program that these options choose, and its leading arguments."""
        ...

    async def facts(self, options: EngineConfig | None = None, avoid: Path | None = None) -> EngineFacts:
        """Return version and rules of the program that these options choose; never one from the folder `avoid`."""
        ...

    def rule_set(self, options: EngineConfig) -> RuleSet | None:
        """Return the rule files that these options mean, with their digest; None for engines without such; blocks."""
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
        sketches: of the files with findings and of failed ones, by path.
        files_cached: files for which an engine's results came from the cache.
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
    sketches: dict[str, FileSketch] = field(default_factory=dict)
    config: ScanConfig | None = None
    vcs: Vcs = field(default_factory=Vcs)
    duration_s: float = 0.0
    files_discovered: int = 0
    files_analyzed: int = 0
    files_failed: int = 0
    files_skipped: int = 0
    files_cached: int = 0
    bytes: int = 0
    lines: int = 0
    warnings: tuple[str, ...] = ()
