"""Runs a command on the services, and turns what goes wrong into words and an exit code."""

import functools
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import anyio
import typer

from intelligentscan._credential_forms import without_credentials
from intelligentscan._log import log_to_stderr
from intelligentscan.app import Services, build
from intelligentscan.cli.terminal import aside, print_error
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.settings import Settings
from intelligentscan.store_environment import tame_mlflow

P = ParamSpec("P")
T = TypeVar("T")
DEBUG_SETTING = "INTELLIGENTSCAN_DEBUG"
EXIT_ERROR = 2
_EXIT_INTERRUPTED = 130


class CommandCrashed(IntelligentScanError):
    """A command failed in a way that nobody foresaw."""

    code = "INTERNAL_ERROR"


def on_services(
    call: Callable[[Services], Awaitable[T]],
    *,
    doing: str | None = None,
    settings: Settings | None = None,
    opening: bool = True,
) -> T:
    """Run an asynchronous call on the services, and return its result.

    Args:
        call: receives the services.
        doing: what a terminal shows meanwhile; nothing if None.
        settings: what is set; loaded if None.
        opening: open the store at once, in the background; otherwise only a call that needs it opens it.

    Raises:
        IntelligentScanError: the call was refused, or a setting is wrong.
    """
    services = build(settings or Settings.load(), anywhere=True)
    _quiet(os.environ)
    if opening:
        services.start()
    if doing is None:
        return anyio.run(call, services)
    with aside().status(f"{doing} …"):
        return anyio.run(call, services)


def reported(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command end with words and exit code 2 instead of a traceback; `--json` makes the words JSON."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        as_json = kwargs.get("json") is True or kwargs.get("format") == "json"
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            aside().print("interrupted")
            raise typer.Exit(_EXIT_INTERRUPTED) from None
        except Exception as exc:
            if _debugging():
                sys.stderr.write(f"{without_credentials(traceback.format_exc())}\n")
            print_error(_told(exc), as_json=as_json)
            raise typer.Exit(EXIT_ERROR) from exc

    return run


def _told(exc: Exception) -> IntelligentScanError:
    """Return the domain error that an exception is or, as the only one of a group, holds; otherwise a bug's."""
    found: BaseException = exc
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    if isinstance(found, IntelligentScanError):
        return found
    return CommandCrashed(
        f"The command failed unexpectedly ({type(found).__name__}); this is a bug.",
        next=f"run it again with {DEBUG_SETTING}=1 for the trace, and report that.",
    )


def _quiet(environ: "os._Environ[str]") -> None:
    """Keep libraries from writing between our lines."""
    if _debugging():
        log_to_stderr(logging.INFO)
        environ.setdefault("MLFLOW_LOGGING_LEVEL", "INFO")
    else:
        log_to_stderr(logging.ERROR)
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
    tame_mlflow(environ)


def _debugging() -> bool:
    return os.environ.get(DEBUG_SETTING, "") not in ("", "0")
