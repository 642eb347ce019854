"""Brings the governance tables of a database to the schema of this release."""

from pathlib import Path

from sqlalchemy import Connection

from intelligentscan.stores.governance.tables import PREFIX, SCHEMA

VERSION_TABLE = "alembic_version"


def migrate(connection: Connection) -> None:
    """Make or bring up to date the governance tables, in the caller's transaction.

    Raises:
        SQLAlchemyError: this account may not make tables.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def version_table(dialect: str) -> str:
    """Return the name of the table that holds the schema's revision."""
    return VERSION_TABLE if dialect == "postgresql" else f"{PREFIX}{VERSION_TABLE}"


def version_schema(dialect: str) -> str | None:
    """Return the schema of that table."""
    return SCHEMA if dialect == "postgresql" else None
