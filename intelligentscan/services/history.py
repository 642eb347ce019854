"""Who did what on which evidence, and what was live when: from the audit trail and our stage record."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.history import History, HistoryEvent, LiveVersion
from intelligentscan.domain.text import untrusted
from intelligentscan.services import cursor as cursors
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import HistoryRow, LiveRow
from intelligentscan.stores.interface import Stores

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_HIDDEN_FACTS = ("public", "new_signature", "statement", "signature", "rules")
_HIDDEN_TEXTS = ("reason", "archive")
_MAX_TEXT = 300
_STAGING = "Staging as recorded; what plain MLflow moved there is not in the trail."


class HistoryService:
    """One use case per method."""

    def __init__(self, store: StoreAccess) -> None:
        self._store = store

    async def get(
        self,
        *,
        name: str | None = None,
        version: int | None = None,
        at: str | None = None,
        actor: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> History:
        """Return what happened, the newest first, and what was live.

        Args:
            name: only this registered model.
            version: only this version of it.
            at: a day (its end) or a time; RFC 3339, UTC if it names no zone. Nothing later is told.
            actor: only what this person or service did, or had done.
            limit: how many events.
            cursor: where the last answer ended.

        Raises:
            InvalidArgument: `at` is no time, or version came without name.
            InvalidCursor: the cursor belongs to another call.
        """
        cursors.checked_limit(limit)
        if version is not None and name is None:
            raise InvalidArgument("A version needs its model.", next="call get_history again with name too.")
        wanted = names.model_name(name) if name is not None else None
        until = moment(at) if at is not None else None
        call = ("history", wanted, version, at, actor)
        token = cursors.decode(cursor, *call)

        def look(stores: Stores) -> tuple[list[HistoryRow], list[LiveRow], bool]:
            if not stores.governance.installed():
                return [], [], False
            with stores.governance.reading() as read:
                last = read.seq_at(until) if until is not None else None
                actors = read.principal_ids(actor) if actor is not None else None
                before = int(token) if token else last + 1 if last is not None else None
                rows = read.history(name=wanted, version=version, actors=actors, before=before, limit=limit + 1)
                return rows, read.live(wanted, last), bool(actors)

        rows, live, known = await self._store.read(look)
        shown, more = rows[:limit], len(rows) > limit
        return History(
            events=[_event(row) for row in shown],
            live={
                stage: [_live(row) for row in live if row.stage == stage and version in (None, row.version)]
                for stage in ("Production", "Staging")
            },
            at=rfc3339(until) if until is not None else None,
            next_cursor=cursors.encode(str(shown[-1].seq), *call) if more else None,
            notes=([] if rows else _nothing(wanted, version, actor, known=known, until=until))
            + ([_STAGING] if any(row.stage == "Staging" for row in live) else []),
        )


def _nothing(name: str | None, version: int | None, actor: str | None, *, known: bool, until: int | None) -> list[str]:
    """Return why there are no events, as far as what was asked for explains it."""
    model = f"'{untrusted(name, 80)}'" if name is not None else None
    about = f"version {version} of {model}" if version is not None else model
    when = "by then" if until is not None else "yet"
    if actor is not None:
        who = untrusted(actor, 100)
        if not known:
            return [f"Nobody is known as '{who}' on this store."]
        return [f"'{who}' has not done anything{f' to {about}' if about else ''} {when}, nor had it done."]
    return [f"Nothing governed had happened to {about} {when}."] if about else []


def moment(text: str) -> int:
    """Return a time in milliseconds since the epoch; a day means its last instant.

    Raises:
        InvalidArgument: it is neither a day nor a time.
    """
    said = text.strip()
    try:
        if _DAY.fullmatch(said):
            day = datetime.fromisoformat(said).replace(tzinfo=UTC)
            return int((day + timedelta(days=1)).timestamp() * 1000) - 1
        time = datetime.fromisoformat(said)
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as exc:
        raise InvalidArgument(
            f"'{untrusted(text, 40)}' is no time.", next="give a day, 2026-11-07, or a time, 2026-11-07T14:30:00Z."
        ) from exc


def _event(row: HistoryRow) -> HistoryEvent:
    facts = row.body.get("facts", {})
    reason = row.text.get("reason")
    told = {k: _shown(_by_name(v, row.people)) for k, v in facts.items() if k not in _HIDDEN_FACTS and v is not None}
    told |= {k: untrusted(v, _MAX_TEXT) for k, v in row.text.items() if k not in _HIDDEN_TEXTS}
    told |= _changes(row.body.get("rows", {}))
    return HistoryEvent(
        seq=row.seq,
        at=rfc3339(row.at) or "",
        action=row.action,
        actor=untrusted(row.actor, 100),
        on_behalf_of=untrusted(row.on_behalf_of, 100) if row.on_behalf_of else None,
        name=untrusted(row.name, names.MAX_NAME) if row.name else None,
        version=row.version,
        experiment_id=row.experiment_id,
        run_id=row.run_id,
        reason=untrusted(reason, _MAX_TEXT) if reason else None,
        facts=told,
    )


def _by_name(value: Any, people: dict[str, str]) -> Any:
    """Return a fact with the names of people in the place of their ids."""
    if isinstance(value, str):
        return people.get(value, value)
    return [_by_name(v, people) for v in value] if isinstance(value, list) else value


def _changes(rows: dict[str, list[dict[str, Any]]]) -> dict[str, object]:
    """Return what an event changed, in the words that people use."""
    told: dict[str, object] = {}
    if stages := rows.get("stage"):
        told["stages"] = {str(r["version"]): r["stage"] for r in stages[:20]}
    if aliases := rows.get("alias"):
        told["aliases"] = {r["alias"]: r["version"] for r in aliases[:20]}
    if locks := rows.get("experiment_lock"):
        told["next_experiment"] = untrusted(str(locks[0]["next_experiment"]), names.MAX_NAME)
    if seals := rows.get("seal"):
        told["manifest_digest"] = seals[0]["manifest_digest"]
    if legacy := rows.get("legacy_version"):
        told["legacy_versions"] = len(legacy)
    return told


def _shown(value: Any) -> object:
    if isinstance(value, str):
        return untrusted(value, _MAX_TEXT)
    if isinstance(value, list):
        return [_shown(v) for v in value[:20]]
    if isinstance(value, dict):
        return {untrusted(str(k), 60): _shown(v) for k, v in list(value.items())[:20]}
    return cast("object", value)


def _live(row: LiveRow) -> LiveVersion:
    return LiveVersion(
        name=untrusted(row.name, names.MAX_NAME),
        version=row.version,
        stage="Production" if row.stage == "Production" else "Staging",
        since=rfc3339(row.since) or "",
        event=row.event,
    )
