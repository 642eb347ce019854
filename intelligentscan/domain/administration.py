"""What an administrator's commands answer: adoption, the state of the database, reconciliation, retention."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.noun import Noun
from intelligentscan.domain.registry import Enforcement


class Adoption(Noun):
    """What `adopt` has put under governance."""

    installed: Annotated[bool, Field(description="Tables and guards were made by this call.")]
    repaired: Annotated[list[str], Field(description="Guards that were missing or changed and are back.")]
    models: Annotated[list[str], Field(description="Models that are governed from now on; untrusted text.")]
    legacy_versions: int
    event: int | None
    enforcement: Enforcement
    notes: list[str] = []


class DatabaseCheck(Noun):
    """The state of guards, schema and rights."""

    ok: bool
    dialect: str
    governed: bool
    mlflow_revision: str | None
    mlflow_head: str | None
    upgrade_needed: bool
    guards: Annotated[dict[str, list[str]], Field(description="missing, changed, foreign, unmapped.")]
    locks: int
    models: int
    events: int
    enforcement: Enforcement
    next: str | None = None


class UpgradeResult(Noun):
    """What `db upgrade` did."""

    upgraded: bool
    before: str | None
    after: str | None
    verified: Annotated[int, Field(description="Locked experiments and governed versions whose rows were compared.")]
    backup: str | None = None
    notes: list[str] = []


class RolesResult(Noun):
    """What `db init-roles` did or would do."""

    status: Literal["done", "would_do"]
    roles: list[str]
    statements: list[str]
    notes: list[str] = []


class Reconciliation(Noun):
    """What became of drift."""

    name: Annotated[str, Field(description="Untrusted text.")]
    how: Literal["restored", "accepted", "nothing to do"]
    problems: list[Problem]
    left: list[Problem]
    event: int | None


class RetentionState(Noun):
    """How long a sealed version is kept."""

    name: Annotated[str, Field(description="Untrusted text.")]
    version: int
    until: str
    legal_hold: bool
    event: int
