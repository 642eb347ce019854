"""Governed stores for tests of people, on both databases, and what an attacker with the file or the tables can do."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy
from conftest import copy_store
from postgres_server import Postgres

from intelligentscan._ssh_signature import fingerprint, load_private_key, public_of, sign_sshsig
from intelligentscan.app import Services, build
from intelligentscan.domain.people import KnownAs, ReviewerKey, Right
from intelligentscan.domain.registry import Enforcement
from intelligentscan.services import rights
from intelligentscan.services.principal import person, real_user
from intelligentscan.services.reviewer_keys import NAMESPACE, statement
from intelligentscan.settings import Settings
from intelligentscan.stores.governance.records import Principal

ME = real_user()
OTHER = "daemon" if ME != "daemon" else "bin"
"""An account that every machine has."""
ENFORCEMENTS: tuple[Enforcement, ...] = ("prevented", "detected", "advisory")


@dataclass(frozen=True)
class PeopleWorld:
    """A governed store, and raw SQL of who owns its tables."""

    services: Services
    home: Path
    uri: str

    @property
    def sqlite(self) -> bool:
        return self.uri.startswith("sqlite")

    def table(self, name: str) -> str:
        return f"gov_{name}" if self.sqlite else f"gov.{name}"

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Run one statement past all services and commit it; placeholders are `?`."""
        engine = sqlalchemy.create_engine(self.uri, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            text = statement if self.sqlite else statement.replace("?", "%s")
            found = connection.exec_driver_sql(text, tuple(values))
            return [tuple(row) for row in found] if found.returns_rows else []

    def unguarded(self, table: str) -> str:
        """Take the guards of a table of the record away, and return its name in SQL."""
        if self.sqlite:
            with closing(sqlite3.connect(self.home / "mlflow.db")) as connection, connection:
                triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
                for (name,) in connection.execute(triggers, (f"gov_{table}",)).fetchall():
                    connection.execute(f'DROP TRIGGER "{name}"')
        else:
            self.sql(f"ALTER TABLE gov.{table} DISABLE TRIGGER ALL")
        return self.table(table)

    async def allowed(self, right: Right, product: str | None, who: Principal | None = None) -> bool:
        """Tell whether somebody may do something; a refusal must be of its class and say what to do."""

        def ask(stores: Any) -> bool:
            with stores.governance.reading() as read:
                try:
                    rights.require(read, right, product, who)
                except rights.NotPermitted as refusal:
                    assert refusal.next
                    return False
                return True

        return await self.services.store.read(ask)

    async def id_of(self, who: Principal) -> str | None:
        """Return somebody's principal id."""

        def look(stores: Any) -> str | None:
            with stores.governance.reading() as read:
                found: str | None = read.find_principal(who)
                return found

        return await self.services.store.read(look)

    async def hand_over(self) -> None:
        """Make another account the only administrator."""
        await self.services.people.grant("administrator", OTHER)
        await self.services.people.revoke("administrator", ME)

    async def enrol(self, who: str, key: bytes, known_as: KnownAs | None = None) -> ReviewerKey:
        """Enrol a key of which we have the private half."""
        private = load_private_key(key)
        public = public_of(private)
        proof = sign_sshsig(private, NAMESPACE, statement(who, fingerprint(public)))
        return await self.services.people.enrol(who, public, proof, known_as)


def sqlite_people(template: Path, folder: Path) -> PeopleWorld:
    home = copy_store(template, folder / "home")
    return PeopleWorld(build(Settings(home=home)), home, f"sqlite:///{home / 'mlflow.db'}")


def postgres_people(postgres: Postgres, migrated: str, folder: Path) -> Iterator[PeopleWorld]:
    uri = postgres.uri(postgres.database(migrated))
    services = build(Settings(home=folder / "home", tracking_uri=uri))
    anyio.run(services.adoption.adopt)
    yield PeopleWorld(services, folder / "home", uri)


def account(name: str) -> Principal:
    return Principal("os-user", name)


__all__ = ["ME", "OTHER", "PeopleWorld", "account", "person", "postgres_people", "sqlite_people"]
