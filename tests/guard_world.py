"""What the guards' tests act on: a store with a row in every guarded table, governance rows made by hand, a digest."""

# ruff: noqa: S608  the statements are the tests' own

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from intelligentscan.stores.governance.tables import GovernanceTables, governance_tables
from intelligentscan.stores.guards import install
from intelligentscan.stores.guards.map import GUARDED, REGISTRY
from intelligentscan.stores.guards.paths import BY_NAME, belongs, guarded_tables
from intelligentscan.stores.guards.schema import read_schema

Row = dict[str, Any]
NEXT = "locked-v2"
_VERSION = {"workspace": "default", "name": "sample", "version": 1}
_ORIGIN = {"run_id": "r", "source": "s", "manifest_digest": "d"}
GOVERNANCE_ROWS: dict[str, Row] = {
    "signing_key": {"key_id": "k2", "public": "p"},
    "ticket": {"ticket_id": "t", **_VERSION, **_ORIGIN, "requester": "r", "expires": 1},
    "ticket_close": {"ticket_id": "t"},
    "experiment_lock": {"experiment_id": 99, "experiment_name": "e", "next_experiment": "e-v2", "rows_digest": "",
                        "files_digest": ""},
    "experiment_unlock": {},
    "governed_model": {"workspace": "default", "name": "sample"},
    "seal": {**_VERSION, **_ORIGIN, "experiment_id": 99, "origin": "o", "rows_digest": "d"},
    "legacy_version": _VERSION,
    "stage": {**_VERSION, "stage": "Staging"},
    "alias": {"workspace": "default", "name": "sample", "alias": "champion", "version": 1},
    "quarantine": _VERSION,
    "retention": {**_VERSION, "until": 1, "hold": 0},
    "product": {"workspace": "default", "product": "p", "tier": "standard"},
    "role": {"workspace": "default", "product": "", "role": "owner", "person": "x", "granted": 1},
    "reviewer_key": {"fingerprint": "f", "person": "x", "public": "ssh-ed25519 A", "active": 1},
    "policy": {"policy": "solo", "digest": "d", "document": "{}"},
    "review": {
        "review_id": "r", **_VERSION, "manifest_digest": "m", "policy_digest": "p", "dossier_digest": "d",
        "requester": "x", "expires": 1,
    },
    "attestation": {
        "review_id": "r", **_VERSION, "criterion": "bias", "person": "x", "proof": "self-asserted", "digest": "d",
    },
    "decision": {
        "decision_id": "d", "review_id": "r", **_VERSION, "verdict": "approve", "person": "x",
        "proof": "self-asserted", "statement_digest": "s", "fingerprint": None, "expires": 1,
    },
    "scan_record": {
        "run_id": "r", "experiment_id": 1, "commit_id": "c", "clean": 1, "complete": 1, "critical": 0, "high": 0,
        "suppressed": 0,
        "sarif_digest": "s",
    },
    "plan": {
        "plan_id": "p", "tool": "promote", "person": "x", "arguments_digest": "a", "state_digest": "s", "expires": 1,
    },
    "plan_step": {"plan_id": "p", "step": "approved", "person": "x", "how": "command line"},
}  # fmt: skip
"""One row for each table of the record; the unlock takes back the lock of the same event."""


def govern(connection: Connection) -> None:
    """Give a store governance tables and guards, whatever it had of them."""
    tables = governance_tables(connection.dialect.name)
    install.drop(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS gov")
    tables.metadata.create_all(connection)
    install.install(connection)


@dataclass
class Governance:
    """Writes governance rows as the services will: each with an event, in one transaction."""

    engine: Engine
    tables: GovernanceTables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = governance_tables(self.engine.dialect.name)

    def event(self, connection: Connection, rows: dict[str, Row]) -> int:
        """Append an event with one row in each named table; return its number."""
        event = self.tables.event
        last = connection.execute(select(event.c.seq, event.c.hash).order_by(event.c.seq.desc()).limit(1)).first()
        seq, prev = (last.seq + 1, last.hash) if last else (1, "0" * 64)
        values = {"at": 1, "actor": "a", "action": "test", "body": "{}", "key_id": "k", "signature": "s"}
        made = hashlib.sha256(f"{prev}{seq}".encode()).hexdigest()
        connection.execute(insert(event).values(seq=seq, prev=prev, hash=made, **values))
        for table, row in rows.items():
            own = {"lock_event": seq, **row} if table == "experiment_unlock" else row
            connection.execute(insert(self.tables.projection(table)).values(event=seq, **own))
        return int(seq)

    def record(self, **rows: Row) -> int:
        """Append an event of its own with the rows."""
        with self.engine.begin() as connection:
            return self.event(connection, rows)

    def lock(self, connection: Connection, experiment_id: int, name: str = "locked", following: str = NEXT) -> int:
        """Lock an experiment; return the lock's event."""
        install.hold_experiment(connection, experiment_id)
        row = {"experiment_id": experiment_id, "experiment_name": name, "next_experiment": following}
        event = self.event(connection, {"experiment_lock": {**row, "rows_digest": "", "files_digest": ""}})
        install.announce_lock(connection, experiment_id)
        return event

    def unlock(self, experiment_id: int, lock_event: int) -> None:
        with self.engine.begin() as connection:
            self.event(connection, {"experiment_unlock": {"lock_event": lock_event}})
            install.retract_lock(connection, experiment_id)

    def ticket(self, connection: Connection, name: str, version: int, run_id: str, source: str) -> str:
        """Open a ticket; return its id."""
        bound = {"workspace": "default", "name": name, "version": version, "run_id": run_id, "source": source}
        further = {"manifest_digest": "", "requester": "r", "expires": 2**40}
        self.event(connection, {"ticket": {"ticket_id": f"t-{name}-{version}", **bound, **further}})
        return f"t-{name}-{version}"

    def close(self, connection: Connection, ticket: str) -> None:
        self.event(connection, {"ticket_close": {"ticket_id": ticket}})

    def stage(self, name: str, version: int, stage: str) -> None:
        self.record(stage={"workspace": "default", "name": name, "version": version, "stage": stage})

    def alias(self, name: str, alias: str, version: int | None) -> None:
        self.record(alias={"workspace": "default", "name": name, "alias": alias, "version": version})


def digest(connection: Connection, experiment_id: int) -> str:
    """Return a digest of every row that belongs to the experiment, and of the whole registry."""
    schema = read_schema(connection)
    found = hashlib.sha256()
    for table in guarded_tables(schema):
        where = belongs(table, "r", str(experiment_id), schema)
        name = schema.of_mlflow(table.name)
        rows = connection.exec_driver_sql(f"SELECT * FROM {name} AS r WHERE {where}").all()
        found.update(repr((table.name, sorted(map(repr, rows)))).encode())
    for registry in REGISTRY:
        rows = connection.exec_driver_sql(f"SELECT * FROM {schema.of_mlflow(registry.name)}").all()
        found.update(repr((registry.name, sorted(map(repr, rows)))).encode())
    return found.hexdigest()


@contextmanager
def unchanged(engine: Engine, experiment_id: int) -> Iterator[None]:
    """Assert that what belongs to the experiment is the same afterwards."""
    with engine.connect() as connection:
        before = digest(connection, experiment_id)
    yield
    with engine.connect() as connection:
        assert digest(connection, experiment_id) == before


def sample_rows(mark: str, experiment_id: int) -> dict[str, Row]:
    """Return one row for every guarded table, all of one experiment; rows of different marks have different keys."""
    run, model, trace, scorer, queue = (f"{kind}-{mark}" for kind in ("run", "model", "trace", "scorer", "queue"))
    belonging = {"experiment_id": experiment_id}
    to_run = {"destination_id": run}
    made_at = {"creation_time_ms": 1, "last_update_time_ms": 1}
    return {
        "experiment_tags": {"key": f"k-{mark}", "value": "v", **belonging},
        "runs": {"run_uuid": run, "name": "n", "status": "FINISHED", "lifecycle_stage": "active", **belonging},
        "params": {"key": "p", "value": "v", "run_uuid": run},
        "tags": {"key": "t", "value": "v", "run_uuid": run},
        "metrics": {"key": "m", "value": 1.0, "timestamp": 1, "run_uuid": run, "step": 0, "is_nan": False},
        "latest_metrics": {"key": "m", "value": 1.0, "timestamp": 1, "step": 0, "is_nan": False, "run_uuid": run},
        "datasets": {"dataset_uuid": f"ds-{mark}", "name": f"d-{mark}", "digest": "x", "dataset_source_type": "s",
                     "dataset_source": "s", **belonging},
        "inputs": {"input_uuid": f"in-{mark}", "source_type": "DATASET", "source_id": f"ds-{mark}",
                   "destination_type": "RUN", **to_run},
        "input_tags": {"input_uuid": f"in-{mark}", "name": "n", "value": "v"},
        "logged_models": {"model_id": model, "name": "n", "artifact_location": "a", "creation_timestamp_ms": 1,
                          "last_updated_timestamp_ms": 1, "status": 1, "lifecycle_stage": "active",
                          "source_run_id": run, **belonging},
        "logged_model_params": {"model_id": model, "param_key": "k", "param_value": "v", **belonging},
        "logged_model_tags": {"model_id": model, "tag_key": "k", "tag_value": "v", **belonging},
        "logged_model_metrics": {"model_id": model, "metric_name": "m", "metric_timestamp_ms": 1, "metric_step": 1,
                                 "metric_value": 1.0, "run_id": run, **belonging},
        "trace_info": {"request_id": trace, "timestamp_ms": 1, "status": "OK", **belonging},
        "trace_tags": {"key": "k", "value": "v", "request_id": trace},
        "trace_request_metadata": {"key": "k", "value": "v", "request_id": trace},
        "trace_metrics": {"key": "k", "value": 1.0, "request_id": trace},
        "spans": {"trace_id": trace, "span_id": "s", "status": "OK", "start_time_unix_nano": 1, "content": "{}",
                  **belonging},
        "span_metrics": {"trace_id": trace, "span_id": "s", "key": "k", "value": 1.0},
        "assessments": {"assessment_id": f"a-{mark}", "trace_id": trace, "name": "n", "assessment_type": "feedback",
                        "value": "1", "created_timestamp": 1, "last_updated_timestamp": 1, "source_type": "HUMAN",
                        "valid": True, "run_id": run, **belonging},
        "entity_associations": {"association_id": f"e-{mark}", "source_type": "trace", "source_id": trace,
                                "destination_type": "run", **to_run},
        "issues": {"issue_id": f"i-{mark}", "name": "n", "description": "d", "status": "open", "source_run_id": run,
                   "created_timestamp": 1, "last_updated_timestamp": 1, **belonging},
        "scorers": {"scorer_id": scorer, "scorer_name": scorer, **belonging},
        "scorer_versions": {"scorer_id": scorer, "scorer_version": 1, "serialized_scorer": "{}"},
        "online_scoring_configs": {"online_scoring_config_id": f"o-{mark}", "scorer_id": scorer, "sample_rate": 1.0,
                                   **belonging},
        "label_schemas": {"schema_id": f"l-{mark}", "name": f"n-{mark}", "type": "feedback", "input_type": "text",
                          "input_config": "{}", "created_time": 1, "last_update_time": 1, **belonging},
        "review_queues": {"queue_id": queue, "name": queue, "name_key": queue, "queue_type": "custom", **made_at,
                          **belonging},
        "review_queue_items": {"queue_id": queue, "item_type": "trace", "item_id": trace, "status": "pending",
                               **made_at},
        "review_queue_users": {"queue_id": queue, "user_id": "u"},
        "review_queue_label_schemas": {"queue_id": queue, "schema_id": f"l-{mark}"},
        "endpoints": {"endpoint_id": f"ep-{mark}", "name": f"ep-{mark}", "created_at": 1, "last_updated_at": 1,
                      **belonging},
    }  # fmt: skip


def experiment_row(mark: str, experiment_id: int) -> Row:
    known = {"lifecycle_stage": "active", "artifact_location": "a"}
    return {"experiment_id": experiment_id, "name": f"{mark} rows", **known}


def add(connection: Connection, table: str, row: Row, verb: str = "INSERT INTO", tail: str = "") -> None:
    """Insert a row with plain SQL."""
    name = read_schema(connection).of_mlflow(table) if connection.dialect.name == "postgresql" else table
    sign = "?" if connection.dialect.name == "sqlite" else "%s"
    values = ", ".join(sign for _ in row)
    columns = ", ".join(row)
    statement = f"{verb} {name} ({columns}) VALUES ({values}){tail}"
    connection.exec_driver_sql(statement, tuple(row.values()))


def fill(connection: Connection, mark: str, experiment_id: int) -> None:
    """Give an experiment a row in every guarded table."""
    add(connection, "experiments", experiment_row(mark, experiment_id))
    for table, row in sample_rows(mark, experiment_id).items():
        add(connection, table, row)
    assert set(sample_rows(mark, experiment_id)) | {"experiments"} == {table.name for table in GUARDED}


def fresh(table: str, row: Row) -> Row:
    """Return the row with other keys, belonging to the same experiment."""
    kept = {reach.column for reach in BY_NAME[table].reaches} - {"source_id"}
    kept |= {"span_id"} if table == "span_metrics" else set()
    changed = dict(row)
    keys = [BY_NAME[table].key, *BY_NAME[table].unique]
    for key in keys:
        column = next((c for c in key if c in row and c not in kept and isinstance(row[c], str)), None)
        if column is None:
            column = next(c for c in key if c in row and isinstance(row[c], int))
        changed[column] = f"{row[column]}x" if isinstance(row[column], str) else row[column] + 5
    return changed
