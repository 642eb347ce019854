"""Governed acts that tests do in processes of their own, which are killed in the middle."""

import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import anyio
from child_work import die_at_statement
from sqlalchemy import event
from sqlalchemy.engine import Engine

from intelligentscan.app import Services, build
from intelligentscan.services.registration import Registrar
from intelligentscan.services.seals import SealChecks
from intelligentscan.settings import Settings

MODEL = "killed-model"


def services_at(home: str, uri: str | None) -> Services:
    """Return services on a store."""
    return build(Settings(home=Path(home), tracking_uri=uri))


def register(home: str, uri: str | None, run_id: str) -> tuple[int, bool]:
    """Register a run; return version and whether it was made now."""
    made = anyio.run(lambda: services_at(home, uri).registry.register(MODEL, run_id=run_id))
    return made.version, made.created


def register_and_die(home: str, uri: str | None, run_id: str, point: str | int) -> None:
    """Begin to register and be killed: at a boundary of the saga, or before the n-th statement of its transaction."""
    services = services_at(home, uri)

    async def work() -> None:
        await services.store.read(lambda s: None)
        match point:
            case "bytes without ticket":
                Registrar._act = _die  # type: ignore[method-assign, assignment]
            case "ticket without commit":
                die_at_statement(1, "ticket_close")
            case "committed, not hashed again":
                SealChecks.ensure_verified = _die_async  # type: ignore[method-assign, assignment]
            case "at the commit":
                event.listen(Engine, "commit", lambda _connection: _die())
            case int():
                die_at_statement(point)
        await services.registry.register(MODEL, run_id=run_id)

    anyio.run(work)


def statements_of_registration(home: str, uri: str | None, run_id: str) -> int:
    """Register, and return how many statements that took."""
    services, seen = services_at(home, uri), 0

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1

    async def work() -> None:
        nonlocal seen
        await services.store.read(lambda s: None)
        seen = 0
        await services.registry.register(MODEL, run_id=run_id)

    anyio.run(work)
    return seen


def _die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process does not go on")


async def _die_async(*_: object) -> NoReturn:
    _die()
