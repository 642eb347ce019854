"""Checks of what is installed here: the program, its home folder, the engines, git. Nothing is created or changed."""

import importlib.metadata
import os
import platform
import stat
from pathlib import Path

import anyio
import anyio.to_thread

from intelligentscan import __version__
from intelligentscan._process import find_executable, run, scrubbed_env
from intelligentscan.domain.diagnosis import Check, Details
from intelligentscan.domain.errors import EngineMissing, IntelligentScanError
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.engines import ENGINES

_PACKAGES = ("mlflow", "mcp")
_GIT_TIMEOUT_S = 10.0
_OTHER_HOME = "set INTELLIGENTSCAN_HOME to a folder of yours."


async def check_program() -> Check:
    """Check our own version and the packages that everything needs."""
    versions = {name: _installed(name) for name in _PACKAGES}
    parts = [__version__, f"Python {platform.python_version()}"]
    fact = " · ".join(parts + [f"{name} {version}" for name, version in versions.items() if version])
    details: Details = {"version": __version__, "python": platform.python_version(), **versions}
    if missing := [name for name, version in versions.items() if not version]:
        return Check.problem(
            "program", f"{fact}; not installed: {', '.join(missing)}", "install IntelligentScan again.", details
        )
    return Check.ok("program", fact, details)


async def check_home(home: Path) -> Check:
    """Check that INTELLIGENTSCAN_HOME can be used, and by whom."""
    return await anyio.to_thread.run_sync(_check_home, home)


async def check_engines() -> Check:
    """Check that every engine answers, and which version it has."""
    versions: Details = {}
    errors: list[IntelligentScanError] = []
    for name, engine in ENGINES.items():
        if engine.optional:
            continue
        try:
            versions[name] = await engine.version()
        except IntelligentScanError as error:
            versions[name] = None
            errors.append(error)
    working = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if not errors:
        return Check.ok("engines", working, versions)
    told = " ".join(error.message for error in errors)
    return Check.problem("engines", f"{told} Working: {working or 'none'}.", errors[0].next, versions)


async def check_more_engines() -> Check:
    """Check which of the engines are there that are used when they are installed, and say how to get the others."""
    versions: Details = {name: None for name, engine in ENGINES.items() if engine.optional}
    missing: list[str] = []
    broken: list[IntelligentScanError] = []

    async def look(name: str) -> None:
        try:
            versions[name] = await ENGINES[name].version()
        except EngineMissing:
            missing.append(name)
        except IntelligentScanError as error:
            broken.append(error)

    async with anyio.create_task_group() as group:
        for name in versions:
            group.start_soon(look, name)
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "none"
    fact = f"{found}; not installed: {', '.join(sorted(missing))}" if missing else found
    if broken:
        told = " ".join(error.message for error in broken)
        return Check.note("more engines", f"{told} Working: {fact}.", broken[0].next, versions)
    how = "; ".join(f"{name}: {ENGINES[name].install}" for name in sorted(missing)) or None
    return Check(name="more engines", status="ok", fact=fact, next=how, details=versions)


async def check_git() -> Check:
    """Check that git answers; scans read commit and branch with it."""
    git, nowhere = find_executable("git"), Path("/")
    if git is not None:
        result = await run([str(git), "--version"], cwd=nowhere, env=scrubbed_env(nowhere), timeout_s=_GIT_TIMEOUT_S)
        if result.exit_code == 0:
            version = untrusted(result.stdout.decode("utf-8", "replace").strip().removeprefix("git version "), 60)
            return Check.ok("git", version, {"version": version})
    return Check.note(
        "git",
        "git does not run here: scans work, but commit and branch stay unknown",
        "install git, or put it on PATH.",
        {"version": None},
    )


def can_be_made(path: Path) -> bool:
    """Tell whether this user can create the path: the nearest folder above it that exists takes new entries."""
    for parent in path.parents:
        try:
            parent.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    return False


def setting_source(variable: str, otherwise: str = "config.toml in INTELLIGENTSCAN_HOME") -> str:
    """Return where a setting comes from: its environment variable, else the other place."""
    return variable if os.environ.get(variable) else otherwise


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_home(home: Path) -> Check:
    shown = untrusted(str(home), 300)
    details: Details = {"path": shown, "selected_by": setting_source("INTELLIGENTSCAN_HOME", "default"), "mode": None}
    try:
        status = home.stat()
    except FileNotFoundError:
        if can_be_made(home):
            return Check.ok("home", f"{shown}: not there yet, the first use makes it", details)
        return Check.problem("home", f"{shown} is not there and cannot be made", _OTHER_HOME, details)
    except OSError as exc:
        return Check.problem("home", f"{shown} cannot be reached: {exc.strerror}", _OTHER_HOME, details)
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    details["mode"] = mode
    if not stat.S_ISDIR(status.st_mode):
        return Check.problem("home", f"{shown} is no folder", _OTHER_HOME, details)
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Check.problem(
            "home", f"{shown} (mode {mode}) cannot be read and written by this user", _OTHER_HOME, details
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        fact = f"{shown} is open to other users of this machine (mode {mode})"
        return Check.note("home", fact, f"if it is yours alone: chmod 700 '{shown}'.", details)
    return Check.ok("home", f"{shown} (mode {mode}, yours alone)", details)
