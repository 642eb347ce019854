"""What the governance database answers, and what a governed act hands to it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from intelligentscan.domain.registry import Stage

DEFAULT_WORKSPACE = "default"
PrincipalKind = Literal["os-user", "person", "service"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: an account on this machine, a person known by an enrolled key, or a service."""

    kind: PrincipalKind
    name: str


NPTA = Principal("service", "npta")
"""The service identity that registers for people."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about; every part may be missing."""

    experiment_id: str | None = None
    workspace: str | None = None
    name: str | None = None
    version: int | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """One entry to append to the audit trail.

    Attributes:
        action: what is done, as `noun.verb` in the past tense (`version.registered`).
        actor: who does it.
        on_behalf_of: for whom, if a service does it.
        subject: what it is about.
        facts: machine-readable facts, JSON values.
        rows: rows of governing tables that this event makes, by plain table name.
        text: free text of people, kept outside the chain under a salted digest.
    """

    action: str
    actor: Principal
    subject: Subject = Subject()
    on_behalf_of: Principal | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LockRecord:
    """An active lock of an experiment."""

    event: int
    experiment_id: str
    experiment_name: str
    next_experiment: str
    rows_digest: str
    files_digest: str


@dataclass(frozen=True, slots=True)
class SealRecord:
    """A sealed version."""

    event: int
    workspace: str
    name: str
    version: int
    run_id: str
    experiment_id: str
    source: str
    origin: str
    manifest_digest: str
    rows_digest: str


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One event with the names of its people and its free text, as far as they were not erased.

    Attributes:
        people: names of those whom its facts refer to, by principal id.
    """

    seq: int
    at: int
    actor: str
    on_behalf_of: str | None
    action: str
    experiment_id: str | None
    name: str | None
    version: int | None
    run_id: str | None
    body: dict[str, Any]
    text: dict[str, str]
    people: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A version and the stage that it held at some time."""

    name: str
    version: int
    stage: Stage
    since: int
    event: int
