"""MLflow's own store methods inside one transaction of ours: all of them happen, or none.

MLflow's SQLAlchemy stores take every session from `ManagedSessionMaker`. That maker is replaced once
per store by one that hands out the session of the unit open on this thread, if there is one, and
MLflow's own session otherwise. The methods commit within; inside a unit that only flushes.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

SessionMaker = Callable[..., AbstractContextManager[Session]]


class UnitBroken(Exception):
    """A store method rolled back inside a unit; nothing of the unit was kept."""


class _UnitSession(Session):
    """A session whose commit waits for the end of the unit."""

    broken = False

    def commit(self) -> None:
        self.flush()

    def rollback(self) -> None:
        self.broken = True  # the store may wrap or swallow what is raised here
        raise UnitBroken


class Units:
    """Opens units on the database that one or two SQLAlchemy stores share."""

    def __init__(self, *stores: Any) -> None:
        self._active = threading.local()
        self._engine: Engine = stores[0].engine
        for store in stores:
            store.ManagedSessionMaker = self._joining(store.ManagedSessionMaker)

    def _joining(self, own: SessionMaker) -> SessionMaker:
        @contextmanager
        def joined(session: Session) -> Iterator[Session]:
            yield session

        def make(read_only: bool = True) -> AbstractContextManager[Session]:
            session: Session | None = getattr(self._active, "session", None)
            return own(read_only=read_only) if session is None else joined(session)

        return make

    @contextmanager
    def unit(self) -> Iterator[Session]:
        """Open a transaction that the stores' methods on this thread join; commit it at the end.

        On SQLite it takes the write lock at once, so that what it reads stays true until it commits.
        A unit opened inside another one on the same thread is part of it.

        Raises:
            UnitBroken: a store method rolled back; call the methods one by one instead.
        """
        outer: Session | None = getattr(self._active, "session", None)
        if outer is not None:
            yield outer
            return
        with self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
                connection.exec_driver_sql("PRAGMA busy_timeout = 20000")
                connection.exec_driver_sql("PRAGMA case_sensitive_like = true")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            session = _UnitSession(bind=connection, join_transaction_mode="rollback_only")
            self._active.session = session
            try:
                yield session
                if session.broken:
                    raise UnitBroken
                session.flush()
                connection.commit()
            except Exception as exc:
                connection.rollback()
                if session.broken:
                    raise UnitBroken from exc
                raise
            except BaseException:
                connection.rollback()
                raise
            finally:
                self._active.session = None
                session.close()
