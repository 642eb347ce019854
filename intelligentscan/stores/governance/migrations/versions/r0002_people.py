"""People, reviews, policies, scans made by us, and plans that wait for a person."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of review and roles, and an index of events by their action."""
    postgres = op.get_bind().dialect.name == "postgresql"
    schema, prefix = ("gov", "") if postgres else (None, "gov_")

    def table(name: str, *parts: sa.schema.SchemaItem) -> None:
        op.create_table(f"{prefix}{name}", *parts, schema=schema)

    def index(name: str, of: str, *columns: str) -> None:
        op.create_index(name, f"{prefix}{of}", list(columns), schema=schema)

    def made_by() -> sa.Column[int]:
        target = "gov.event.seq" if postgres else "gov_event.seq"
        return sa.Column("event", sa.BigInteger, sa.ForeignKey(target), nullable=False)

    def version_key() -> tuple[sa.Column[object], ...]:
        return (
            sa.Column("workspace", sa.String(63), nullable=False),
            sa.Column("name", sa.String(256), nullable=False),
            sa.Column("version", sa.Integer, nullable=False),
        )

    index("gov_event_action", "event", "action", "seq")
    with op.batch_alter_table(f"{prefix}principal_name", schema=schema) as names:
        names.drop_constraint("gov_principal_kind_name", type_="unique")
        names.add_column(sa.Column("salt", sa.String(64)))
    index("gov_principal_name_of", "principal_name", "kind", "name")
    table(
        "product",
        made_by(),
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("product", sa.String(256), nullable=False),
        sa.Column("tier", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "product", "event"),
    )
    table(
        "role",
        made_by(),
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("product", sa.String(256), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("granted", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("workspace", "product", "role", "person", "event"),
    )
    table(
        "reviewer_key",
        made_by(),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("public", sa.Text, nullable=False),
        sa.Column("active", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "event"),
    )
    table(
        "policy",
        made_by(),
        sa.Column("policy", sa.String(60), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("event"),
    )
    table(
        "review",
        made_by(),
        sa.Column("review_id", sa.String(32), primary_key=True),
        *version_key(),
        sa.Column("manifest_digest", sa.String(64), nullable=False),
        sa.Column("policy_digest", sa.String(64), nullable=False),
        sa.Column("dossier_digest", sa.String(64), nullable=False),
        sa.Column("requester", sa.String(64), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
    index("gov_review_version", "review", "name", "version")
    table(
        "attestation",
        made_by(),
        sa.Column("review_id", sa.String(32), nullable=False),
        *version_key(),
        sa.Column("criterion", sa.String(20), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("proof", sa.String(20), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("event"),
    )
    index("gov_attestation_version", "attestation", "name", "version")
    table(
        "decision",
        made_by(),
        sa.Column("decision_id", sa.String(32), primary_key=True),
        sa.Column("review_id", sa.String(32), nullable=False),
        *version_key(),
        sa.Column("verdict", sa.String(10), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("proof", sa.String(20), nullable=False),
        sa.Column("statement_digest", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
    index("gov_decision_version", "decision", "name", "version")
    table(
        "scan_record",
        made_by(),
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("experiment_id", sa.BigInteger, nullable=False),
        sa.Column("commit_id", sa.String(64)),
        sa.Column("clean", sa.Integer, nullable=False),
        sa.Column("complete", sa.Integer, nullable=False),
        sa.Column("critical", sa.Integer, nullable=False),
        sa.Column("high", sa.Integer, nullable=False),
        sa.Column("suppressed", sa.Integer, nullable=False),
        sa.Column("sarif_digest", sa.String(64), nullable=False),
    )
    index("gov_scan_record_commit", "scan_record", "commit_id")
    table(
        "plan",
        made_by(),
        sa.Column("plan_id", sa.String(32), primary_key=True),
        sa.Column("tool", sa.String(40), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("arguments_digest", sa.String(64), nullable=False),
        sa.Column("state_digest", sa.String(64), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
    index("gov_plan_of", "plan", "person", "arguments_digest")
    table(
        "plan_step",
        made_by(),
        sa.Column("plan_id", sa.String(32), nullable=False),
        sa.Column("step", sa.String(10), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("how", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("plan_id", "step"),
    )
