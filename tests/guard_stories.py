"""What the record decides on a guarded store: stories that hold on every database."""

# ruff: noqa: S608  the statements are the tests' own

from dataclasses import dataclass
from typing import Any

import pytest
from guard_acts import World
from guard_world import Governance
from mlflow.exceptions import MlflowException
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError


@dataclass(frozen=True)
class Store:
    world: World
    engine: Engine
    governance: Governance

    @property
    def locked(self) -> int:
        return int(self.world.locked.experiment)


def a_version_is_made_against_its_open_ticket_alone(store: Store) -> None:
    client, run = store.world.client, store.world.open.run
    source = "file:///sealed/4"
    with store.engine.begin() as connection:
        ticket = store.governance.ticket(connection, "governed", 4, run, source)
    for wrong in ((f"{source}x", run), (source, store.world.locked.run), (source, None)):
        with pytest.raises(MlflowException):
            client.create_model_version("governed", *wrong)
    made = client.create_model_version("governed", source, run, tags={"a": "b"})
    assert (int(made.version), made.tags, made.current_stage) == (4, {"a": "b"}, "None")
    with store.engine.begin() as connection:
        store.governance.close(connection, ticket)
    for act in (
        lambda: client.set_model_version_tag("governed", "4", "c", "d"),
        lambda: client.create_model_version("governed", source, run),
    ):
        with pytest.raises(MlflowException):
            act()
    with store.engine.begin() as connection:
        values = "'governed', 4, 'Production', 'file:///sealed/4'"
        columns = "name, version, current_stage, source"
        into = f"INTO model_versions ({columns}) VALUES ({values})"
        says(connection, "VERSION_SEALED", f"INSERT {into}")


def says(connection: Connection, code: str, statement: str) -> None:
    """Assert that a statement is refused with the code, in one line."""
    with pytest.raises(DBAPIError) as caught, connection.begin_nested():
        connection.exec_driver_sql(statement)
    said = str(caught.value.orig).split("\nCONTEXT: ")[0]  # PostgreSQL's clients add where it was said
    assert said.startswith(f"{code}: ")
    assert "\n" not in said
    assert getattr(caught.value.orig, "sqlstate", "P0001") == "P0001"  # never one that MLflow takes for a clash


def production_follows_the_recorded_stage(store: Store) -> None:
    client: Any = store.world.client

    def refused_move(version: int, stage: str) -> None:
        with pytest.raises(MlflowException, match=r"PROMOTION_REQUIRED: .*call promote"):
            client.transition_model_version_stage("governed", version, stage, stage == "Production")

    store.governance.stage("governed", 1, "Production")
    refused_move(2, "Production")
    client.transition_model_version_stage("governed", 1, "Production")
    refused_move(1, "Archived")
    store.governance.stage("governed", 2, "Production")
    refused_move(2, "Production")  # it would archive version 1, which nobody has decided
    store.governance.stage("governed", 1, "Archived")
    client.transition_model_version_stage("governed", 2, "Production", archive_existing_versions=True)
    assert client.get_model_version("governed", "1").current_stage == "Archived"
    refused_move(1, "Production")
    with store.engine.begin() as connection:
        for stage in ("Deleted_Internal", "production", "Live"):
            says(
                connection,
                "VERSION_SEALED",
                f"UPDATE model_versions SET current_stage = '{stage}' WHERE name='governed'",
            )
        says(connection, "VERSION_SEALED", "UPDATE model_versions SET current_stage = NULL WHERE name = 'governed'")


def reserved_aliases_follow_the_record(store: Store) -> None:
    client = store.world.client
    store.governance.alias("governed", "champion", 2)
    with pytest.raises(MlflowException, match="ALIAS_RESERVED"):
        client.set_registered_model_alias("governed", "champion", "1")
    client.set_registered_model_alias("governed", "champion", "2")
    with pytest.raises(MlflowException, match="ALIAS_RESERVED"):
        client.delete_registered_model_alias("governed", "champion")
    with pytest.raises(MlflowException, match="ALIAS_RESERVED"):
        client.set_registered_model_alias("governed", "champion", "3")
    store.governance.alias("governed", "champion", 3)
    client.set_registered_model_alias("governed", "champion", "3")
    store.governance.alias("governed", "champion", None)
    client.delete_registered_model_alias("governed", "champion")
    with store.engine.begin() as connection:
        nowhere = "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('governed', 'nightly', 9)"
        says(connection, "ALIAS_RESERVED", nowhere)


STORIES = (
    a_version_is_made_against_its_open_ticket_alone,
    production_follows_the_recorded_stage,
    reserved_aliases_follow_the_record,
)
