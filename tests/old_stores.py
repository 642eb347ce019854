"""Stores as older releases left them: an older MLflow schema with rows, our tables, guards and one lock in it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, text

from intelligentscan.stores.governance.migrations import migrate
from intelligentscan.stores.governance.tables import governance_tables
from intelligentscan.stores.guards import install as guards
from intelligentscan.stores.guards.schema import read_schema

DATASETS, LOGGED_MODELS, SCORERS, SPANS, SPAN_COSTS = (
    "7f2a7d5fae7d", "400f98739977", "534353b11cbc", "a1b2c3d4e5f6", "b7e2c1a4d9f3",
)  # fmt: skip
"""Revisions of MLflow's schema, named for what came with them; the last one is the one before costs were moved."""
LOCKED, OPEN = 1, 2
GENESIS = "0" * 64


@dataclass(frozen=True)
class OldStores:
    """Hands out copies of old stores on one kind of database."""

    kind: str
    make: Callable[..., str]

    def store(self, revision: str = DATASETS, *, governed: bool = True) -> str:
        return self.make(revision, governed)


def engine_of(uri: str) -> Engine:
    return sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)


def make_old_store(uri: str, revision: str, *, governed: bool = True) -> None:
    """Make a store at a revision of MLflow's schema; experiment 1 is locked, version 1 of `fraud` governed."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = engine_of(uri)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(uri)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with engine.begin() as connection:
        for experiment in (LOCKED, OPEN):
            fill(connection, experiment)
        register(connection, "fraud", 1, "r1-0")
        register(connection, "other", 1, "r2-0")
    if governed:
        with engine.begin() as connection:
            migrate(connection)
            lock(connection)
            guards.install(connection)
    engine.dispose()


def put(connection: Connection, name: str, /, **values: Any) -> None:
    """Insert a row, as far as this schema has the table and the columns."""
    there = _columns(connection).get(name)
    if there is None:
        return
    row = {column: _json(value) for column, value in values.items() if column in there}
    columns, marks = ", ".join(f'"{column}"' for column in row), ", ".join(f":{column}" for column in row)
    connection.execute(text(f'INSERT INTO "{name}" ({columns}) VALUES ({marks})'), row)  # noqa: S608


def _columns(connection: Connection) -> dict[str, set[str]]:
    known: dict[str, set[str]] | None = connection.info.get("columns")
    if known is None:
        known = {table: set(columns) for table, columns in read_schema(connection).columns}
        connection.info["columns"] = known
    return known


def _json(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


def fill(connection: Connection, experiment: int) -> None:
    """Write an experiment with rows in most of the tables that belong to one."""
    e = experiment
    put(connection, "experiments", experiment_id=e, name=f"risk-{e}", artifact_location=f"/a/{e}",
        lifecycle_stage="active", creation_time=1, last_update_time=2)  # fmt: skip
    put(connection, "experiment_tags", key="owner", value="ann", experiment_id=e)
    for number in range(2):
        run = f"r{e}-{number}"
        put(connection, "runs", run_uuid=run, name=f"run {number} é", source_type="LOCAL", source_name="train.py",
            entry_point_name="", user_id="ann", status="FINISHED", start_time=1, end_time=2, source_version="",
            lifecycle_stage="active", artifact_uri=f"/a/{e}/{run}", experiment_id=e)  # fmt: skip
        for step in range(20):
            at = {"timestamp": 1000 + step, "step": step, "is_nan": False, "run_uuid": run}
            put(connection, "metrics", key="loss", value=0.1 * step + 1e-17, **at)
        put(connection, "metrics", key="bad", value=0.0, timestamp=1, step=0, is_nan=True, run_uuid=run)
        put(connection, "latest_metrics", key="loss", value=1.9, timestamp=1019, step=19, is_nan=False, run_uuid=run)
        put(connection, "latest_metrics", key="bad", value=0.0, timestamp=1, step=0, is_nan=True, run_uuid=run)
        put(connection, "params", key="depth", value="3", run_uuid=run)
        put(connection, "tags", key="mlflow.user", value="ann", run_uuid=run)
        put(connection, "inputs", input_uuid=f"i{run}", source_type="DATASET", source_id=f"d{e}",
            destination_type="RUN", destination_id=run)  # fmt: skip
        put(connection, "input_tags", input_uuid=f"i{run}", name="mlflow.data.context", value="training")
    put(connection, "datasets", dataset_uuid=f"d{e}", experiment_id=e, name="claims", digest="abc",
        dataset_source_type="local", dataset_source="{}", dataset_schema="{}", dataset_profile="{}")  # fmt: skip
    model = f"m{e}"
    put(connection, "logged_models", model_id=model, experiment_id=e, name="model", artifact_location=f"/a/{e}/m",
        creation_timestamp_ms=1, last_updated_timestamp_ms=2, status=2, lifecycle_stage="active", model_type="",
        source_run_id=f"r{e}-0", status_message="")  # fmt: skip
    put(connection, "logged_model_params", model_id=model, experiment_id=e, param_key="p", param_value="v")
    put(connection, "logged_model_tags", model_id=model, experiment_id=e, tag_key="t", tag_value="v")
    put(connection, "logged_model_tags", model_id=model, experiment_id=e, tag_key="mlflow.modelVersions",
        tag_value="[]")  # fmt: skip
    put(connection, "logged_model_metrics", model_id=model, metric_name="auc", metric_timestamp_ms=1, metric_step=0,
        metric_value=0.9, experiment_id=e, run_id=f"r{e}-0")  # fmt: skip
    put(connection, "scorers", experiment_id=e, scorer_name="judge", scorer_id=f"s{e}")
    put(connection, "scorer_versions", scorer_id=f"s{e}", scorer_version=1, serialized_scorer="{}", creation_time=1)
    _trace(connection, e)


def _trace(connection: Connection, e: int) -> None:
    trace = f"tr{e}"
    put(connection, "trace_info", request_id=trace, experiment_id=e, timestamp_ms=1, execution_time_ms=2, status="OK")
    put(connection, "trace_tags", key="kind", value="chat", request_id=trace)
    put(connection, "trace_tags", key="mlflow.traceName", value="answer", request_id=trace)
    put(connection, "trace_request_metadata", key="mlflow.trace.session", value="s-1", request_id=trace)
    put(connection, "trace_request_metadata", key="note", value="n", request_id=trace)
    put(connection, "trace_metrics", request_id=trace, key="input_tokens", value=12.0)
    put(connection, "spans", trace_id=trace, experiment_id=e, span_id="sp", name="call", type="LLM", status="OK",
        start_time_unix_nano=10, end_time_unix_nano=30, content="{}",
        dimension_attributes={"mlflow.llm.model": "small"})  # fmt: skip
    put(connection, "span_metrics", trace_id=trace, span_id="sp", key="total_cost", value=0.5)
    put(connection, "assessments", assessment_id=f"as{e}", trace_id=trace, name="good", assessment_type="feedback",
        value="true", created_timestamp=1, last_updated_timestamp=1, source_type="HUMAN", source_id="ann", valid=True,
        experiment_id=e, trace_timestamp_ms=1, is_numeric_value=True)  # fmt: skip


def register(connection: Connection, name: str, version: int, run: str) -> None:
    """Write a registered model with one version."""
    put(connection, "registered_models", name=name, creation_time=1, last_updated_time=1)
    put(connection, "model_versions", name=name, version=version, creation_time=1, last_updated_time=1, user_id="ann",
        current_stage="Staging", source=f"/archive/{name}", run_id=run, status="READY")  # fmt: skip
    put(connection, "model_version_tags", name=name, version=version, key="seal", value="1")
    put(connection, "registered_model_aliases", name=name, version=version, alias="mine")


def lock(connection: Connection) -> None:
    """Lock experiment 1 and govern `fraud`, by rows whose signatures nobody looks at here."""
    tables = governance_tables(connection.dialect.name)
    event(connection, 1)
    connection.execute(
        tables.experiment_lock.insert().values(
            event=1, experiment_id=LOCKED, experiment_name="risk-1", next_experiment="risk-1-v2", rows_digest="0" * 64,
            files_digest="0" * 64,
        )
    )  # fmt: skip
    connection.execute(tables.governed_model.insert().values(event=1, workspace="default", name="fraud"))


def event(connection: Connection, seq: int, body: str = "{}") -> None:
    """Append an entry that continues the trail, with a hash that only looks like one."""
    tables = governance_tables(connection.dialect.name)
    prev = f"{seq - 1:064d}" if seq > 1 else GENESIS
    connection.execute(
        tables.event.insert().values(
            seq=seq, at=seq, actor="a" * 32, action="store.upgraded", body=body, prev=prev, hash=f"{seq:064d}",
            key_id="k" * 32, signature="s",
        )
    )  # fmt: skip


def copied(template: Path, target: Path) -> str:
    """Copy a closed SQLite store and return its URI."""
    target.write_bytes(template.read_bytes())
    return f"sqlite:///{target}"
