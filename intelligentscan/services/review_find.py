"""Finds what a review is about: a sealed version by its number, a review or a decision by the beginning of its id."""

import re
from dataclasses import dataclass

from sqlalchemy import select

from intelligentscan.domain.errors import InvalidArgument, ModelNotFound, NotGoverned, Refused, ReviewNotFound
from intelligentscan.domain.text import untrusted
from intelligentscan.services.review_state import DECIDED, REQUESTED
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, SealRecord
from intelligentscan.stores.governance.vouched import VouchedRow, vouched
from intelligentscan.stores.interface import Stores, VersionRecord

MIN_PREFIX = 6
_ID = re.compile(r"[0-9a-f]{6,32}")
_MAX_ALIKE = 100


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed version, as it was recorded and as the registry has it."""

    seal: SealRecord
    version: VersionRecord


@dataclass(frozen=True, slots=True)
class Found:
    """A review, and the decision in it that was named, if one was."""

    name: str
    version: int
    review_id: str
    decision_id: str | None = None


def sealed(stores: Stores, name: str, version: int) -> Sealed:
    """Return a sealed version.

    Raises:
        ModelNotFound, VersionNotFound: there is no such thing.
        NotGoverned: the model was registered by plain MLflow.
        Refused: the version is not sealed, or was found changed.
    """
    shown = untrusted(name, 80)
    if stores.registry.get_model(name) is None:
        raise ModelNotFound(
            f"There is no registered model '{shown}'.", next="register one with register_model, or check the name."
        )
    there = stores.registry.get_versions(name, version, 1, None).rows[0]
    if not stores.governance.installed():
        raise _not_governed(shown)
    with stores.governance.reading() as read:
        if not read.is_governed(DEFAULT_WORKSPACE, name):
            raise _not_governed(shown)
        seal = read.seals(DEFAULT_WORKSPACE, name, version).get(version)
        quarantined = version in read.quarantined(DEFAULT_WORKSPACE, name)
    if seal is None:
        raise Refused(
            f"Version {version} of '{shown}' is not sealed; only what cannot change any more is reviewed.",
            next="register its run with register_model to have a sealed version, then request its review.",
        )
    if quarantined:
        raise in_quarantine(shown, version)
    return Sealed(seal, there)


def in_quarantine(name: str, version: int) -> Refused:
    """Return the refusal of a version that was found changed."""
    return Refused(
        f"Version {version} of '{name}' was found changed and is in quarantine; nothing about it is decided any more.",
        next=f"call verify_integrity name='{name}' to see why; register its run again for a new version.",
    )


def find(read: GovernanceReads, text: str, *, decisions: bool = False) -> Found:
    """Return the review of an id, or of the beginning of one.

    Args:
        read: open on the governance database.
        text: the id, at least 6 characters of it.
        decisions: whether it may be the id of a decision too.

    Raises:
        InvalidArgument: the text cannot be an id, or fits several.
        ReviewNotFound: there is none.
    """
    wanted = text.strip().lower()
    if not _ID.fullmatch(wanted):
        raise InvalidArgument(
            f"'{untrusted(text, 40)}' cannot be the id of a review.",
            next=f"give its 32 hexadecimal digits, at least {MIN_PREFIX}; 'intelligentscan review list' shows them.",
        )
    found = [Found(r["name"], r["version"], r["review_id"]) for r in _rows(read, "review", "review_id", wanted)]
    if decisions:
        found += [
            Found(r["name"], r["version"], r["review_id"], r["decision_id"])
            for r in _rows(read, "decision", "decision_id", wanted)
        ]
    if not found:
        raise ReviewNotFound(
            f"There is no review '{wanted}'.",
            next="'intelligentscan review list' shows those there are; request_review makes one.",
        )
    if len(found) > 1:
        ids = ", ".join((f.decision_id or f.review_id) for f in found[:5])
        raise InvalidArgument(f"'{wanted}' fits several: {ids}.", next="give more of its digits.")
    return found[0]


def _rows(read: GovernanceReads, table: str, column: str, beginning: str) -> list[VouchedRow]:
    """Return the rows whose id begins so; those that somebody removed are looked for only if nothing else is found."""
    of = read.tables.projection(table).c[column]
    ids = list(read.connection.execute(select(of).where(of.like(f"{beginning}%")).limit(_MAX_ALIKE)).scalars())
    rows = vouched(read, table, {column: ids}).rows if ids else ()
    if not rows:
        action = REQUESTED if table == "review" else DECIDED
        rows = tuple(r for r in vouched(read, table, {}, (action,)).rows if r[column].startswith(beginning))
    return list(rows)


def _not_governed(name: str) -> NotGoverned:
    return NotGoverned(
        f"The model '{name}' was registered by plain MLflow and is not governed.",
        next=f"an administrator adopts it with 'intelligentscan adopt {name}'; or register a run with "
        f"register_model name='{name}'.",
    )
