"""The first governance schema: trail, tickets, locks, seals, stage record, principals."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table of the first release."""
    postgres = op.get_bind().dialect.name == "postgresql"
    schema, prefix = ("gov", "") if postgres else (None, "gov_")

    def table(name: str, *parts: sa.schema.SchemaItem) -> None:
        op.create_table(f"{prefix}{name}", *parts, schema=schema)

    def made_by() -> sa.Column[int]:
        target = "gov.event.seq" if postgres else "gov_event.seq"
        return sa.Column("event", sa.BigInteger, sa.ForeignKey(target), nullable=False)

    def version_key() -> tuple[sa.Column[object], ...]:
        return (
            sa.Column("workspace", sa.String(63), nullable=False),
            sa.Column("name", sa.String(256), nullable=False),
            sa.Column("version", sa.Integer, nullable=False),
        )

    table(
        "event",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("on_behalf_of", sa.String(64)),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("experiment_id", sa.String(64)),
        sa.Column("workspace", sa.String(63)),
        sa.Column("name", sa.String(256)),
        sa.Column("version", sa.Integer),
        sa.Column("run_id", sa.String(64)),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("prev", sa.String(64), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
    )
    for index, columns in {
        "gov_event_name": ["name", "version", "seq"],
        "gov_event_actor": ["actor", "seq"],
        "gov_event_for": ["on_behalf_of", "seq"],
        "gov_event_experiment": ["experiment_id", "seq"],
        "gov_event_at": ["at"],
    }.items():
        op.create_index(index, f"{prefix}event", columns, schema=schema)
    table(
        "signing_key",
        made_by(),
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("public", sa.String(64)),
    )
    table(
        "ticket",
        made_by(),
        sa.Column("ticket_id", sa.String(64), primary_key=True),
        *version_key(),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("source", sa.String(500), nullable=False),
        sa.Column("manifest_digest", sa.String(64), nullable=False),
        sa.Column("requester", sa.String(64), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("workspace", "name", "version", name="gov_ticket_version"),
    )
    table("ticket_close", made_by(), sa.Column("ticket_id", sa.String(64), primary_key=True))
    table(
        "experiment_lock",
        made_by(),
        sa.Column("experiment_id", sa.BigInteger, nullable=False),
        sa.Column("experiment_name", sa.String(256), nullable=False),
        sa.Column("next_experiment", sa.String(256), nullable=False),
        sa.Column("rows_digest", sa.String(64), nullable=False),
        sa.Column("files_digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("event"),
    )
    op.create_index("gov_experiment_lock_of", f"{prefix}experiment_lock", ["experiment_id"], schema=schema)
    table("experiment_unlock", made_by(), sa.Column("lock_event", sa.BigInteger, primary_key=True, autoincrement=False))
    table(
        "governed_model",
        made_by(),
        sa.Column("workspace", sa.String(63)),
        sa.Column("name", sa.String(256)),
        sa.PrimaryKeyConstraint("workspace", "name"),
    )
    table(
        "seal",
        made_by(),
        *version_key(),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("experiment_id", sa.BigInteger, nullable=False),
        sa.Column("source", sa.String(500), nullable=False),
        sa.Column("origin", sa.String(1000), nullable=False),
        sa.Column("manifest_digest", sa.String(64), nullable=False),
        sa.Column("rows_digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "name", "version"),
    )
    op.create_index("gov_seal_run", f"{prefix}seal", ["run_id"], schema=schema)
    table("legacy_version", made_by(), *version_key(), sa.PrimaryKeyConstraint("workspace", "name", "version"))
    table(
        "stage",
        made_by(),
        *version_key(),
        sa.Column("stage", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "name", "version", "event"),
    )
    table(
        "alias",
        made_by(),
        sa.Column("workspace", sa.String(63)),
        sa.Column("name", sa.String(256)),
        sa.Column("alias", sa.String(256)),
        sa.Column("version", sa.Integer),
        sa.PrimaryKeyConstraint("workspace", "name", "alias", "event"),
    )
    table("quarantine", made_by(), *version_key(), sa.PrimaryKeyConstraint("workspace", "name", "version", "event"))
    table(
        "retention",
        made_by(),
        *version_key(),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("hold", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "name", "version", "event"),
    )
    table(
        "principal_name",
        sa.Column("principal_id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.UniqueConstraint("kind", "name", name="gov_principal_kind_name"),
    )
    table(
        "free_text",
        sa.Column("event", sa.BigInteger),
        sa.Column("field", sa.String(40)),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("event", "field"),
    )
