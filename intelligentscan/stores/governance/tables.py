"""The tables of the governance database, and which of their rows triggers, services and verifiers read.

`event` is the audit trail. Every other table that governs (`GOVERNING`) is a projection of it: a row names
the event that made it, and that event's signed body holds the row again. A row without such an event
counts for nothing. Only `free_text`, of which the chain holds salted digests, and `principal_name`, whose
ids are salted digests of the names, may be erased.
"""

from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = "gov"
PREFIX = "gov_"
GOVERNING = (
    "signing_key", "ticket", "ticket_close", "experiment_lock", "experiment_unlock", "governed_model", "seal",
    "legacy_version", "stage", "alias", "quarantine", "retention",
    "product", "role", "reviewer_key", "policy", "review", "attestation", "decision", "scan_record", "plan",
    "plan_step",
)  # fmt: skip
ERASABLE = ("principal_name", "free_text")
EVERY = ("event", *GOVERNING, *ERASABLE)


@dataclass(frozen=True)
class GovernanceTables:
    """The tables as they are called on one kind of database."""

    metadata: MetaData
    event: Table
    signing_key: Table
    ticket: Table
    ticket_close: Table
    experiment_lock: Table
    experiment_unlock: Table
    governed_model: Table
    seal: Table
    legacy_version: Table
    stage: Table
    alias: Table
    quarantine: Table
    retention: Table
    product: Table
    role: Table
    reviewer_key: Table
    policy: Table
    review: Table
    attestation: Table
    decision: Table
    scan_record: Table
    plan: Table
    plan_step: Table
    principal_name: Table
    free_text: Table

    def projection(self, name: str) -> Table:
        """Return the table of a projection by its plain name."""
        if name not in GOVERNING:
            raise KeyError(name)
        table: Table = getattr(self, name)
        return table


def table_name(name: str, dialect: str) -> str:
    """Return how a governance table is called in SQL: `gov.seal` on PostgreSQL, `gov_seal` elsewhere."""
    return f"{SCHEMA}.{name}" if dialect == "postgresql" else f"{PREFIX}{name}"


def governance_tables(dialect: str) -> GovernanceTables:
    """Return the tables for a database dialect: in schema `gov` on PostgreSQL, with prefix `gov_` elsewhere."""
    postgres = dialect == "postgresql"
    metadata = MetaData(schema=SCHEMA if postgres else None)
    prefix = "" if postgres else PREFIX

    def table(name: str, *parts: Column[object] | UniqueConstraint | PrimaryKeyConstraint | Index) -> Table:
        return Table(f"{prefix}{name}", metadata, *parts)

    def made_by() -> Column[object]:
        target = f"{SCHEMA}.event.seq" if postgres else f"{PREFIX}event.seq"
        return Column("event", BigInteger, ForeignKey(target), nullable=False)

    def version_key() -> tuple[Column[object], ...]:
        return (
            Column("workspace", String(63), nullable=False),
            Column("name", String(256), nullable=False),
            Column("version", Integer, nullable=False),
        )

    return GovernanceTables(
        metadata=metadata,
        event=table(
            "event",
            Column("seq", BigInteger, primary_key=True, autoincrement=False),
            Column("at", BigInteger, nullable=False),
            Column("actor", String(64), nullable=False),
            Column("on_behalf_of", String(64)),
            Column("action", String(64), nullable=False),
            Column("experiment_id", String(64)),
            Column("workspace", String(63)),
            Column("name", String(256)),
            Column("version", Integer),
            Column("run_id", String(64)),
            Column("body", Text, nullable=False),
            Column("prev", String(64), nullable=False, unique=True),
            Column("hash", String(64), nullable=False, unique=True),
            Column("key_id", String(64), nullable=False),
            Column("signature", String(128), nullable=False),
            Index("gov_event_name", "name", "version", "seq"),
            Index("gov_event_actor", "actor", "seq"),
            Index("gov_event_for", "on_behalf_of", "seq"),
            Index("gov_event_experiment", "experiment_id", "seq"),
            Index("gov_event_at", "at"),
            Index("gov_event_action", "action", "seq"),
        ),
        signing_key=table(
            "signing_key", made_by(), Column("key_id", String(64), primary_key=True), Column("public", String(64))
        ),
        ticket=table(
            "ticket",
            made_by(),
            Column("ticket_id", String(64), primary_key=True),
            *version_key(),
            Column("run_id", String(64), nullable=False),
            Column("source", String(500), nullable=False),
            Column("manifest_digest", String(64), nullable=False),
            Column("requester", String(64), nullable=False),
            Column("expires", BigInteger, nullable=False),
            UniqueConstraint("workspace", "name", "version", name="gov_ticket_version"),
        ),
        ticket_close=table("ticket_close", made_by(), Column("ticket_id", String(64), primary_key=True)),
        experiment_lock=table(
            "experiment_lock",
            made_by(),
            Column("experiment_id", BigInteger, nullable=False),
            Column("experiment_name", String(256), nullable=False),
            Column("next_experiment", String(256), nullable=False),
            Column("rows_digest", String(64), nullable=False),
            Column("files_digest", String(64), nullable=False),
            PrimaryKeyConstraint("event"),
            Index("gov_experiment_lock_of", "experiment_id"),
        ),
        experiment_unlock=table(
            "experiment_unlock", made_by(), Column("lock_event", BigInteger, primary_key=True, autoincrement=False)
        ),
        governed_model=table(
            "governed_model",
            made_by(),
            Column("workspace", String(63)),
            Column("name", String(256)),
            PrimaryKeyConstraint("workspace", "name"),
        ),
        seal=table(
            "seal",
            made_by(),
            *version_key(),
            Column("run_id", String(64), nullable=False),
            Column("experiment_id", BigInteger, nullable=False),
            Column("source", String(500), nullable=False),
            Column("origin", String(1000), nullable=False),
            Column("manifest_digest", String(64), nullable=False),
            Column("rows_digest", String(64), nullable=False),
            PrimaryKeyConstraint("workspace", "name", "version"),
            Index("gov_seal_run", "run_id"),
        ),
        legacy_version=table(
            "legacy_version", made_by(), *version_key(), PrimaryKeyConstraint("workspace", "name", "version")
        ),
        stage=table(
            "stage",
            made_by(),
            *version_key(),
            Column("stage", String(20), nullable=False),
            PrimaryKeyConstraint("workspace", "name", "version", "event"),
        ),
        alias=table(
            "alias",
            made_by(),
            Column("workspace", String(63)),
            Column("name", String(256)),
            Column("alias", String(256)),
            Column("version", Integer),
            PrimaryKeyConstraint("workspace", "name", "alias", "event"),
        ),
        quarantine=table(
            "quarantine", made_by(), *version_key(), PrimaryKeyConstraint("workspace", "name", "version", "event")
        ),
        retention=table(
            "retention",
            made_by(),
            *version_key(),
            Column("until", BigInteger, nullable=False),
            Column("hold", Integer, nullable=False),
            PrimaryKeyConstraint("workspace", "name", "version", "event"),
        ),
        product=table(
            "product",
            made_by(),
            Column("workspace", String(63), nullable=False),
            Column("product", String(256), nullable=False),
            Column("tier", String(20), nullable=False),
            PrimaryKeyConstraint("workspace", "product", "event"),
        ),
        role=table(
            "role",
            made_by(),
            Column("workspace", String(63), nullable=False),
            Column("product", String(256), nullable=False),
            Column("role", String(20), nullable=False),
            Column("person", String(64), nullable=False),
            Column("granted", Integer, nullable=False),
            PrimaryKeyConstraint("workspace", "product", "role", "person", "event"),
        ),
        reviewer_key=table(
            "reviewer_key",
            made_by(),
            Column("fingerprint", String(64), nullable=False),
            Column("person", String(64), nullable=False),
            Column("public", Text, nullable=False),
            Column("active", Integer, nullable=False),
            PrimaryKeyConstraint("fingerprint", "event"),
        ),
        policy=table(
            "policy",
            made_by(),
            Column("policy", String(60), nullable=False),
            Column("digest", String(64), nullable=False),
            Column("document", Text, nullable=False),
            PrimaryKeyConstraint("event"),
        ),
        review=table(
            "review",
            made_by(),
            Column("review_id", String(32), primary_key=True),
            *version_key(),
            Column("manifest_digest", String(64), nullable=False),
            Column("policy_digest", String(64), nullable=False),
            Column("dossier_digest", String(64), nullable=False),
            Column("requester", String(64), nullable=False),
            Column("expires", BigInteger, nullable=False),
            Index("gov_review_version", "name", "version"),
        ),
        attestation=table(
            "attestation",
            made_by(),
            Column("review_id", String(32), nullable=False),
            *version_key(),
            Column("criterion", String(20), nullable=False),
            Column("person", String(64), nullable=False),
            Column("proof", String(20), nullable=False),
            Column("digest", String(64), nullable=False),
            PrimaryKeyConstraint("event"),
            Index("gov_attestation_version", "name", "version"),
        ),
        decision=table(
            "decision",
            made_by(),
            Column("decision_id", String(32), primary_key=True),
            Column("review_id", String(32), nullable=False),
            *version_key(),
            Column("verdict", String(10), nullable=False),
            Column("person", String(64), nullable=False),
            Column("proof", String(20), nullable=False),
            Column("statement_digest", String(64), nullable=False),
            Column("fingerprint", String(64)),
            Column("expires", BigInteger, nullable=False),
            Index("gov_decision_version", "name", "version"),
        ),
        scan_record=table(
            "scan_record",
            made_by(),
            Column("run_id", String(64), primary_key=True),
            Column("experiment_id", BigInteger, nullable=False),
            Column("commit_id", String(64)),
            Column("clean", Integer, nullable=False),
            Column("complete", Integer, nullable=False),
            Column("critical", Integer, nullable=False),
            Column("high", Integer, nullable=False),
            Column("suppressed", Integer, nullable=False),
            Column("sarif_digest", String(64), nullable=False),
            Index("gov_scan_record_commit", "commit_id"),
        ),
        plan=table(
            "plan",
            made_by(),
            Column("plan_id", String(32), primary_key=True),
            Column("tool", String(40), nullable=False),
            Column("person", String(64), nullable=False),
            Column("arguments_digest", String(64), nullable=False),
            Column("state_digest", String(64), nullable=False),
            Column("expires", BigInteger, nullable=False),
            Index("gov_plan_of", "person", "arguments_digest"),
        ),
        plan_step=table(
            "plan_step",
            made_by(),
            Column("plan_id", String(32), nullable=False),
            Column("step", String(10), nullable=False),
            Column("person", String(64), nullable=False),
            Column("how", String(20), nullable=False),
            PrimaryKeyConstraint("plan_id", "step"),
        ),
        principal_name=table(
            "principal_name",
            Column("principal_id", String(64), primary_key=True),
            Column("kind", String(20), nullable=False),
            Column("name", String(256), nullable=False),
            Column("salt", String(64)),
            Index("gov_principal_name_of", "kind", "name"),
        ),
        free_text=table(
            "free_text",
            Column("event", BigInteger),
            Column("field", String(40)),
            Column("salt", String(64), nullable=False),
            Column("text", Text, nullable=False),
            PrimaryKeyConstraint("event", "field"),
        ),
    )
