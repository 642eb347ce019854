"""The MCP server on stdio: one process, one client, the protocol alone on stdout.

A client waits for the handshake with a short deadline, so it is answered first; MLflow, which takes longer to
import than everything else together, is imported on a thread right after it.
"""

import argparse
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from intelligentscan._log import log_to_stderr
from intelligentscan.app import Services, build
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.settings import Settings
from intelligentscan.store_environment import tame_mlflow
from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.mcp_server import IntelligentScanServer
from intelligentscan.toolsets.selection import Selection, select, stricter

_QUIET_START_S = 1.0
"""After this time without a first request the store is opened anyway."""

_WRITTEN_S = 0.005
"""The time an answer takes from its handler to the client."""

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve MCP on stdin and stdout until stdin is closed; that ends the process with exit code 0.

    Args:
        argv: options after `intelligentscan mcp`; None takes those of the process.

    Returns:
        2 for an option or a setting that is wrong.
    """
    # The thread that reads stdin cannot be interrupted; with Python's own handler Ctrl-C would wait for it for ever.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = _parser().parse_args(argv)
    _log_to_stderr()
    tame_mlflow(os.environ)
    try:
        settings = Settings.load()
        selection = _selection(options, settings)
        services = build(settings)
    except IntelligentScanError as error:
        sys.stderr.write(f"intelligentscan mcp: {error}\n")
        return 2
    server = IntelligentScanServer(services, selection)
    if sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write("intelligentscan mcp: waiting for an MCP client on stdin; connect one with its 'install'.\n")
    try:
        anyio.run(_serve, server, services)
    except* BrokenPipeError:
        logger.info("the client closed our stdout before stdin")
    # Writes are done by now, and a thread that still reads must not hold up the client.
    sys.stderr.flush()
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="intelligentscan mcp",
        description="MCP server on stdio. Settings of the environment apply too; the stricter always wins.",
        allow_abbrev=False,
    )
    parser.add_argument("--toolsets", type=_names, metavar="a,b", help=f"only these of: {', '.join(BUILT_IN)}")
    parser.add_argument("--tools", type=_names, metavar="x,y", help="offer these too, which are off by default")
    parser.add_argument("--exclude-tools", type=_names, default=(), metavar="x,y", help="leave these tools out")
    parser.add_argument("--json", action="store_true", help="as everywhere; here the protocol is JSON anyway")
    parser.add_argument("--read-only", action="store_true", help="leave out every tool that writes")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _selection(options: argparse.Namespace, settings: Settings) -> Selection:
    return select(
        stricter(options.toolsets, settings.toolsets),
        {*options.exclude_tools, *settings.exclude_tools},
        options.read_only or settings.read_only,
        stricter(options.tools, settings.tools, "tools") or (),
    )


def _log_to_stderr() -> None:
    log_to_stderr(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


async def _serve(server: IntelligentScanServer, services: Services) -> None:
    answered = anyio.Event()

    async def note_first_answer(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        try:
            return await call_next(ctx)
        finally:
            answered.set()

    server.middleware.append(note_first_answer)
    async with anyio.create_task_group() as group:
        group.start_soon(_open_store, services, answered)
        await server.run_stdio_async()
        group.cancel_scope.cancel()


async def _open_store(services: Services, answered: anyio.Event) -> None:
    """Import MLflow and open the store once the handshake is on its way out, so that the two do not compete."""
    with anyio.move_on_after(_QUIET_START_S):
        await answered.wait()
    await anyio.sleep(_WRITTEN_S)
    # Imports make a million objects that stay; collecting among them would be a fifth of the time.
    gc.disable()
    services.start()
    try:
        await services.store.read(lambda _: None)
        await anyio.to_thread.run_sync(services.load)
    except IntelligentScanError as error:
        # Whoever needs the store meets the same error, and reads it.
        logger.info("the store could not be opened: %s", error)
    except Exception:  # a call that needs what is broken answers with the same error; the server goes on
        logger.exception("not everything could be loaded")
    finally:
        gc.enable()
        gc.freeze()
