"""Looks at one installation: what is set, whether the store opens, what an agent may read, which engines are there.

Nothing is created or changed, and every check answers on its own, so that a wrong setting or a server that is down
does not hide the rest.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from intelligentscan._paths import ROOTS_SETTING, AllowedRoots
from intelligentscan.domain.administration import DatabaseCheck
from intelligentscan.domain.diagnosis import Check, Details, Diagnosis
from intelligentscan.domain.errors import IntelligentScanError, StoreBroken, StoreUnavailable
from intelligentscan.domain.text import untrusted
from intelligentscan.services.installation import (
    can_be_made,
    check_engines,
    check_git,
    check_home,
    check_more_engines,
    check_program,
    setting_source,
)
from intelligentscan.settings import Settings, shown_uri, sqlite_path
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import Stores
from intelligentscan.stores.nearby import NearbyStore
from intelligentscan.stores.sqlite_facts import read_facts

_MOST_EXPERIMENTS = 1000
_MOST_RUNS = 100
_MOST_TEXT = 250
_STORE_SETTING = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True, slots=True)
class _Content:
    """How much a store holds; `more` if the runs were not counted to the end."""

    experiments: int
    runs: int
    more: bool = False
    journal_mode: str | None = None

    def __str__(self) -> str:
        return f"{_plural(self.experiments, 'experiment')}, {_plural(self.runs, 'run', self.more)}"


class DiagnosisService:
    """Checks the installation that the settings describe.

    Args:
        settings: what is in force.
        store: access to the store.
        agent_roots: the folders that an MCP server started here would allow.
        nearby: finds other stores that hold runs.
    """

    def __init__(
        self,
        settings: Settings,
        store: StoreAccess,
        agent_roots: AllowedRoots,
        nearby: Callable[[], list[NearbyStore]],
        governance: Callable[[], Awaitable[DatabaseCheck]],
    ) -> None:
        self._governance = governance
        self._settings = settings
        self._store = store
        self._agent_roots = agent_roots
        self._nearby = nearby

    async def run(self) -> Diagnosis:
        """Return every check, in the order in which a person would look."""
        return await _diagnosis(
            {
                "program": check_program,
                "home": lambda: check_home(self._settings.home),
                "store": self._check_store,
                "governance": self._check_governance,
                "elsewhere": self._check_elsewhere,
                "roots": self._check_roots,
                "engines": check_engines,
                "more engines": check_more_engines,
                "git": check_git,
            }
        )

    async def _check_store(self) -> Check:
        settings = self._settings
        uri, path, shown = settings.store_uri, sqlite_path(settings.store_uri), shown_uri(settings.store_uri)
        name = "embedded store" if settings.embedded else _kind(uri)
        selected = setting_source(_STORE_SETTING) if settings.tracking_uri is not None else "default"
        details: Details = {"uri": shown, "embedded": settings.embedded, "selected_by": selected}
        try:
            if path is not None and not await anyio.to_thread.run_sync(_is_there, path):
                if can_be_made(path):
                    return Check.ok("store", f"{name} {shown}: not there yet, the first use makes it", details)
                return Check.problem(
                    "store", f"{name} {shown} is not there and cannot be made", _correct(selected), details
                )
            content = await self._content(path)
        except IntelligentScanError as error:
            fact = f"{name} {shown}: {untrusted(error.message, _MOST_TEXT)}"
            return Check.problem("store", fact, _next(error, selected), {**details, "code": error.code})
        mode = content.journal_mode
        details |= {"journal_mode": mode, "experiments": content.experiments, "runs": content.runs}
        fact = f"{name} {shown}: {content}"
        if mode is not None and mode != "wal":
            fact += f"; journal mode {mode}, so readers and writers wait for each other"
            return Check.note("store", fact, f"sqlite3 '{path}' 'PRAGMA journal_mode = WAL' while it rests.", details)
        return Check.ok("store", f"{fact}, journal mode WAL" if mode else fact, details)

    async def _check_governance(self) -> Check | None:
        """Look at guards and key; the trail itself is for `audit verify`."""
        path = sqlite_path(self._settings.store_uri)
        if path is not None and not await anyio.to_thread.run_sync(_is_there, path):
            return None
        try:
            found = await self._governance()
        except IntelligentScanError:
            return None  # the check of the store says why
        details: Details = {"governed": found.governed, "enforcement": found.enforcement, "locks": found.locks}
        if not found.governed and found.next:
            fact = "this store is not governed: nothing is locked, sealed or recorded"
            return Check.note("governance", fact, found.next, details)
        if not found.ok:
            fact = "guards or schema are not as they belong: governed acts are refused"
            return Check.problem("governance", fact, found.next or "run 'intelligentscan db check'.", details)
        counted = f"{_plural(found.locks, 'locked experiment')}, {_plural(found.models, 'governed model')}"
        return Check.ok("governance", f"{counted}, guards complete ({found.enforcement})", details)

    async def _content(self, path: Path | None) -> _Content:
        """Open the store as every command does, and count what it holds."""
        if path is None:
            return await self._store.read(_count)
        # The file first: it says what is wrong with itself more plainly than MLflow would.
        content = await anyio.to_thread.run_sync(_count_in_file, path)
        await self._store.read(lambda s: s.tracking.search_experiments(None, {}, 1, None))
        return content

    async def _check_elsewhere(self) -> Check | None:
        found = await anyio.to_thread.run_sync(self._nearby)
        if not found:
            return None
        listed = ", ".join(untrusted(f"{store.path} ({store.runs})", 300) for store in found)
        return Check.note(
            "elsewhere",
            f"runs in stores that are not in force: {listed}",
            f"to use one: {_STORE_SETTING}={untrusted(found[0].uri, 300)}",
            {"stores": [untrusted(store.uri, 400) for store in found]},
        )

    async def _check_roots(self) -> Check:
        roots, chosen = self._agent_roots.roots, self._settings.allowed_roots is not None
        shown = [untrusted(str(root), 300) for root in roots]
        selected = setting_source(ROOTS_SETTING) if chosen else "working directory"
        details: Details = {"roots": shown, "selected_by": selected}
        if missing := [untrusted(str(root), 300) for root in roots if not root.is_dir()]:
            fact = f"{selected} names what is no folder: {', '.join(missing)}"
            return Check.problem("roots", fact, f"correct it; '{os.pathsep}' stands between folders.", details)
        if not roots:
            return Check.note(
                "roots",
                "an assistant started here may read no folder: the working directory is no project",
                f"'intelligentscan install CLIENT --root FOLDER', or set {ROOTS_SETTING}.",
                details,
            )
        why = f"set by {selected}" if chosen else "the working directory is a project"
        return Check.ok("roots", f"an assistant started here may read {', '.join(shown)} ({why})", details)


async def diagnose_without_settings(error: IntelligentScanError, home: Path) -> Diagnosis:
    """Return what can be said when the settings themselves are wrong.

    Args:
        error: why they could not be loaded.
        home: INTELLIGENTSCAN_HOME, as far as it is known.
    """

    async def check_settings() -> Check:
        return Check.problem("settings", error.message, error.next, {"code": error.code})

    return await _diagnosis(
        {
            "program": check_program,
            "settings": check_settings,
            "home": lambda: check_home(home),
            "engines": check_engines,
            "more engines": check_more_engines,
            "git": check_git,
        }
    )


async def _diagnosis(looks: Mapping[str, Callable[[], Awaitable[Check | None]]]) -> Diagnosis:
    """Make the checks together; one that crashes says so and leaves the others alone."""
    found: dict[str, Check | None] = {}

    async def look(name: str) -> None:
        try:
            found[name] = await looks[name]()
        except Exception as exc:  # whatever is wrong here is what doctor is asked about
            fact = f"could not be checked: {type(exc).__name__}: {untrusted(str(exc), 200)}"
            found[name] = Check.problem(name, fact, "report this with the output of doctor.", {})

    async with anyio.create_task_group() as group:
        for name in looks:
            group.start_soon(look, name)
    return Diagnosis.of([check for name in looks if (check := found[name]) is not None])


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise StoreBroken(f"{exc.strerror}.", next="make it readable and writable for this user.") from exc
    return True


def _count_in_file(path: Path) -> _Content:
    facts = read_facts(path)
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StoreBroken("This user may not write it.", next="give this user the file and its folder.")
    return _Content(facts.experiments, facts.runs, journal_mode=facts.journal_mode)


def _count(stores: Stores) -> _Content:
    """Count without reading more from a server than a person would wait for."""
    experiments = stores.tracking.search_experiments(None, {}, _MOST_EXPERIMENTS, None).rows
    runs = stores.tracking.runs_by_prefix("", None, _MOST_RUNS)
    return _Content(len(experiments), len(runs), more=len(runs) == _MOST_RUNS)


def _plural(count: int, what: str, more: bool = False) -> str:
    return f"{count:,}{' or more' if more else ''} {what}{'' if count == 1 else 's'}"


def _kind(uri: str) -> str:
    if uri.startswith("sqlite:"):
        return "SQLite store"
    return "tracking server" if uri.startswith(("http://", "https://")) else "tracking store"


def _next(error: IntelligentScanError, selected: str) -> str:
    """Return the next step for a store that does not open; 'ask doctor' is none here."""
    if isinstance(error, StoreUnavailable):
        return f"start it, or {_correct(selected)}"
    return error.next if isinstance(error, StoreBroken) else _correct(selected)


def _correct(selected: str) -> str:
    if selected == "default":
        return "set INTELLIGENTSCAN_HOME to a folder of yours."
    return f"correct or unset {selected}, which selects it."
