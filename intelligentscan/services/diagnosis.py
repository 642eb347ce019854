"""Looks at one installation: what is set, whether the store opens, what an agent may read, which engines are there.

Nothing is created or changed, and every check answers on its own, so that a broken setting or a server that is down
does not hide the rest.
"""

import importlib.metadata
import os
import platform
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from intelligentscan import __version__
from intelligentscan._paths import ROOTS_SETTING, AllowedRoots
from intelligentscan._process import find_executable, run, scrubbed_env
from intelligentscan.domain.diagnosis import Check, Diagnosis
from intelligentscan.domain.errors import IntelligentScanError, StoreBroken
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.settings import Settings, shown_uri, sqlite_path
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import Stores
from intelligentscan.stores.nearby import NearbyStore
from intelligentscan.stores.sqlite_facts import SqliteFacts, read_facts

_PACKAGES = ("mlflow", "mcp")
_GIT_TIMEOUT_S = 10.0
_MOST_EXPERIMENTS = 1000
_MOST_RUNS = 100
_STORE_SETTING = "MLFLOW_TRACKING_URI"


class DiagnosisService:
    """Checks the installation that the settings describe.

    Args:
        settings: what is in force.
        store: access to the store, with a deadline short enough to wait for.
        agent_roots: the folders an MCP server started here would allow.
        nearby: finds other stores that hold runs.
    """

    def __init__(
        self,
        settings: Settings,
        store: StoreAccess,
        agent_roots: AllowedRoots,
        nearby: Callable[[], list[NearbyStore]],
    ) -> None:
        self._settings = settings
        self._store = store
        self._agent_roots = agent_roots
        self._nearby = nearby

    async def run(self) -> Diagnosis:
        """Return every check, in the order in which a person would look."""
        return await _diagnosis(
            {
                "program": _program,
                "home": lambda: _home(self._settings.home),
                "store": self._check_store,
                "elsewhere": self._elsewhere,
                "roots": self._roots,
                "engines": _engines,
                "git": _git,
            }
        )

    async def _check_store(self) -> Check:
        uri, path = self._settings.store_uri, sqlite_path(self._settings.store_uri)
        name = "the embedded store" if self._settings.embedded else _kind(uri)
        details: dict[str, str | int | bool | list[str] | None] = {
            "uri": shown_uri(uri),
            "embedded": self._settings.embedded,
            "selected_by": _selected_by(self._settings),
            "journal_mode": None,
            "experiments": None,
            "runs": None,
        }
        try:
            if path is not None and not await anyio.to_thread.run_sync(_is_there, path):
                return _unborn(name, path, details)
            counted = await self._opened(path)
        except IntelligentScanError as error:
            fact = f"{name} {shown_uri(uri)} does not open: {error.message}"
            return Check(
                name="store",
                status="problem",
                fact=fact,
                next=f"{error.next} It is selected by {details['selected_by']}.",
                details={**details, "code": error.code},
            )
        details |= {"experiments": counted.experiments, "runs": counted.runs, "journal_mode": counted.journal_mode}
        fact = (
            f"{name} holds {_number(counted.experiments, 'experiment')}, {_number(counted.runs, 'run', counted.more)}"
        )
        if counted.journal_mode not in (None, "wal"):
            return Check(
                name="store",
                status="note",
                fact=f"{fact}; journal mode {counted.journal_mode}, so readers and writers wait for each other",
                next=f"while nothing uses it: sqlite3 {path} 'PRAGMA journal_mode = WAL'.",
                details=details,
            )
        mode = ", journal mode WAL" if counted.journal_mode else ""
        return Check(name="store", status="ok", fact=f"{fact}{mode}: {shown_uri(uri)}", details=details)

    async def _opened(self, path: Path | None) -> "_Counted":
        """Open the store as every command does, and count what it holds."""
        facts = await anyio.to_thread.run_sync(_look, path) if path is not None else None
        found = await self._store.read(_count if facts is None else _open)
        return _Counted(facts.experiments, facts.runs, facts.journal_mode) if facts is not None else found

    async def _elsewhere(self) -> Check | None:
        found = await anyio.to_thread.run_sync(self._nearby)
        if not found:
            return None
        return Check(
            name="elsewhere",
            status="note",
            fact=f"runs that are not in this store: {'; '.join(untrusted(f'{s.path} ({s.runs})', 300) for s in found)}",
            next=f"to use that store set {_STORE_SETTING}={untrusted(found[0].uri, 300)}.",
            details={"stores": [untrusted(s.uri, 400) for s in found], "runs": sum(s.runs for s in found)},
        )

    async def _roots(self) -> Check:
        roots, chosen = self._agent_roots.roots, self._settings.allowed_roots is not None
        shown = [untrusted(str(root), 300) for root in roots]
        details: dict[str, str | int | bool | list[str] | None] = {
            "roots": shown,
            "selected_by": _source(ROOTS_SETTING) if chosen else "working directory",
        }
        missing = [untrusted(str(root), 300) for root in roots if not root.is_dir()]
        if missing:
            return Check(
                name="roots",
                status="problem",
                fact=f"{ROOTS_SETTING} names what is no folder: {', '.join(missing)}",
                next=f"correct {ROOTS_SETTING}; several folders are separated by '{os.pathsep}'.",
                details=details,
            )
        if not roots:
            return Check(
                name="roots",
                status="note",
                fact="an agent started here may read no folder: the working directory is no project",
                next=f"connect with 'intelligentscan install CLIENT --root FOLDER', or set {ROOTS_SETTING}.",
                details=details,
            )
        why = f"set by {details['selected_by']}" if chosen else "the working directory, which is a project"
        return Check(name="roots", status="ok", fact=f"an agent may read {', '.join(shown)} ({why})", details=details)


async def diagnose_without_settings(error: IntelligentScanError, home: Path) -> Diagnosis:
    """Return what can be said when the settings themselves are wrong.

    Args:
        error: why they could not be loaded.
        home: INTELLIGENTSCAN_HOME, as far as it is known.
    """

    async def settings() -> Check:
        return Check(
            name="settings", status="problem", fact=error.message, next=error.next, details={"code": error.code}
        )

    return await _diagnosis(
        {"program": _program, "settings": settings, "home": lambda: _home(home), "engines": _engines, "git": _git}
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    experiments: int
    runs: int
    journal_mode: str | None = None
    more: bool = False


async def _diagnosis(looks: Mapping[str, Callable[[], Awaitable[Check | None]]]) -> Diagnosis:
    """Make the checks together; one that crashes says so and leaves the others alone."""
    found: dict[str, Check | None] = {}

    async def look(name: str) -> None:
        try:
            found[name] = await looks[name]()
        except Exception as exc:  # whatever is wrong here is what doctor is asked about
            fact = f"could not be checked: {type(exc).__name__}: {untrusted(str(exc), 200)}"
            found[name] = Check(name=name, status="problem", fact=fact, next="report this with the output of doctor.")

    async with anyio.create_task_group() as group:
        for name in looks:
            group.start_soon(look, name)
    return Diagnosis.of([check for name in looks if (check := found[name]) is not None])


async def _program() -> Check:
    versions = {name: _installed(name) for name in _PACKAGES}
    parts = [__version__, f"Python {platform.python_version()}"]
    parts += [f"{name} {version}" for name, version in versions.items() if version]
    missing = [name for name, version in versions.items() if not version]
    return Check(
        name="program",
        status="problem" if missing else "ok",
        fact=" · ".join(parts) + (f"; not installed: {', '.join(missing)}" if missing else ""),
        next="install IntelligentScan again." if missing else None,
        details={"version": __version__, "python": platform.python_version(), **versions},
    )


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _home(home: Path) -> Check:
    shown = untrusted(str(home), 300)
    details: dict[str, str | int | bool | list[str] | None] = {
        "path": shown,
        "selected_by": _source("INTELLIGENTSCAN_HOME", "default"),
        "mode": None,
    }

    def problem(fact: str, next: str) -> Check:
        return Check(name="home", status="problem", fact=fact, next=next, details=details)

    try:
        status = home.stat()
    except FileNotFoundError:
        parent = _nearest(home)
        if parent is None or not os.access(parent, os.W_OK | os.X_OK):
            return problem(f"{shown} is not there and cannot be made", "set INTELLIGENTSCAN_HOME to a folder of yours.")
        return Check(
            name="home", status="ok", fact=f"{shown} is not there yet; the first use makes it", details=details
        )
    except OSError as exc:
        return problem(f"{shown} cannot be reached: {exc.strerror}", "set INTELLIGENTSCAN_HOME to a folder of yours.")
    details["mode"] = f"{stat.S_IMODE(status.st_mode):04o}"
    if not stat.S_ISDIR(status.st_mode):
        return problem(f"{shown} is no folder", "move it away, or set INTELLIGENTSCAN_HOME to a folder.")
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return problem(
            f"{shown} (mode {details['mode']}) cannot be read and written by this user",
            f"chown it to you, chmod 700 {shown}, or set INTELLIGENTSCAN_HOME to a folder of yours.",
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Check(
            name="home",
            status="note",
            fact=f"{shown} is open to other users of this machine (mode {details['mode']})",
            next=f"if it is yours alone: chmod 700 {shown}.",
            details=details,
        )
    return Check(name="home", status="ok", fact=f"{shown} (mode {details['mode']}, yours alone)", details=details)


async def _engines() -> Check:
    versions: dict[str, str | int | bool | list[str] | None] = {}
    errors: list[IntelligentScanError] = []
    for name, engine in ENGINES.items():
        try:
            versions[name] = await engine.version()
        except IntelligentScanError as error:
            versions[name] = None
            errors.append(error)
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if errors:
        told = " ".join(error.message for error in errors)
        return Check(
            name="engines",
            status="problem",
            fact=f"{told} Working: {shown or 'none'}.",
            next=errors[0].next or "install IntelligentScan again.",
            details=versions,
        )
    return Check(name="engines", status="ok", fact=shown, details=versions)


async def _git() -> Check:
    git = find_executable("git")
    if git is not None:
        home = Path("/")
        result = await run([str(git), "--version"], cwd=home, env=scrubbed_env(home), timeout_s=_GIT_TIMEOUT_S)
        if result.exit_code == 0:
            version = untrusted(result.stdout.decode("utf-8", "replace").strip().removeprefix("git version "), 60)
            return Check(name="git", status="ok", fact=version, details={"version": version})
    return Check(
        name="git",
        status="note",
        fact="git does not run here; scans work, but commit and branch stay unknown",
        next="install git, or put it on PATH.",
        details={"version": None},
    )


def _look(path: Path) -> SqliteFacts:
    facts = read_facts(path)
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StoreBroken(
            "this user may read but not write it.", next=f"give this user the file {path} and its folder."
        )
    return facts


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise StoreBroken(f"{exc.strerror}.", next=f"make {path} readable and writable for this user.") from exc
    return True


def _unborn(name: str, path: Path, details: dict[str, str | int | bool | list[str] | None]) -> Check:
    parent = _nearest(path)
    if parent is not None and parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        fact = f"{name} is not there yet; the first use makes it: {path}"
        return Check(name="store", status="ok", fact=fact, details=details)
    return Check(
        name="store",
        status="problem",
        fact=f"{name} is not there and cannot be made: {path}",
        next=f"correct what selects it: {details['selected_by']}.",
        details=details,
    )


def _nearest(path: Path) -> Path | None:
    """Return the nearest folder above the path that exists."""
    for parent in path.parents:
        try:
            parent.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return parent
    return None


def _count(stores: Stores) -> _Counted:
    """Count without reading more of a server than a person would wait for."""
    experiments = stores.tracking.search_experiments(None, {}, _MOST_EXPERIMENTS, None).rows
    runs = stores.tracking.runs_by_prefix("", None, _MOST_RUNS)
    return _Counted(len(experiments), len(runs), more=len(runs) == _MOST_RUNS)


def _open(stores: Stores) -> _Counted:
    stores.tracking.search_experiments(None, {}, 1, None)
    return _Counted(0, 0)


def _number(count: int, what: str, more: bool = False) -> str:
    return f"{count:,}{' or more' if more else ''} {what}{'' if count == 1 else 's'}"


def _kind(uri: str) -> str:
    if uri.startswith("sqlite:"):
        return "the SQLite store"
    return "the tracking server" if uri.startswith(("http://", "https://")) else "the tracking store"


def _selected_by(settings: Settings) -> str:
    return _source(_STORE_SETTING) if settings.tracking_uri is not None else "default"


def _source(variable: str, otherwise: str = "config.toml in INTELLIGENTSCAN_HOME") -> str:
    """Return where a setting comes from: its environment variable, else the other place."""
    return variable if os.environ.get(variable) else otherwise
