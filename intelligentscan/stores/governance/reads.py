"""Questions to the governance database; each is a statement or two on an index."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, union

from intelligentscan.domain.errors import InvalidArgument, TrailBroken
from intelligentscan.domain.registry import Stage
from intelligentscan.stores.governance.chain import ID_LENGTH, principal_id, record_from_row, text_digest
from intelligentscan.stores.governance.key_events import BadKeyEvent, genesis_key, rotated_key
from intelligentscan.stores.governance.records import (
    HistoryRow,
    LiveRow,
    LockRecord,
    Principal,
    PrincipalKind,
    SealRecord,
    Subject,
)
from intelligentscan.stores.governance.report import KeyValidity
from intelligentscan.stores.governance.tables import GovernanceTables


class GovernanceReads:
    """Reads on one open connection.

    Args:
        connection: open on the governance database.
        tables: its tables.
    """

    def __init__(self, connection: Connection, tables: GovernanceTables) -> None:
        self.connection = connection
        self.tables = tables

    def lock(self, experiment_id: str) -> LockRecord | None:
        """Return the active lock of an experiment."""
        return self.locks([experiment_id]).get(experiment_id)

    def locks(self, experiment_ids: Iterable[str] | None = None) -> dict[str, LockRecord]:
        """Return the active locks, of these experiments only if any are named, by experiment id."""
        lock, unlock = self.tables.experiment_lock, self.tables.experiment_unlock
        query = select(lock).where(~select(unlock.c.event).where(unlock.c.lock_event == lock.c.event).exists())
        if experiment_ids is not None:
            wanted = [int(e) for e in experiment_ids if e.isascii() and e.isdecimal() and int(e) < 2**63]
            query = query.where(lock.c.experiment_id.in_(wanted))
        found = self.connection.execute(query.order_by(lock.c.event))
        return {str(r.experiment_id): _lock(r) for r in found}

    def last_lock(self, experiment_id: str) -> LockRecord | None:
        """Return the newest lock that an experiment ever had, whether or not it still holds."""
        lock = self.tables.experiment_lock
        query = select(lock).where(lock.c.experiment_id == int(experiment_id)).order_by(lock.c.event.desc())
        row = self.connection.execute(query.limit(1)).first()
        return _lock(row) if row is not None else None

    def locked_names(self) -> set[str]:
        """Return the names of all locked experiments."""
        return {record.experiment_name for record in self.locks().values()}

    def is_governed(self, workspace: str, name: str) -> bool:
        """Tell whether the name's versions are governed."""
        model = self.tables.governed_model
        return self.connection.execute(select(model.c.event).where(*_named(model, workspace, name))).first() is not None

    def seals(self, workspace: str, name: str, version: int | None = None) -> dict[int, SealRecord]:
        """Return the sealed versions of a name, by number."""
        seal = self.tables.seal
        query = select(seal).where(*_named(seal, workspace, name))
        if version is not None:
            query = query.where(seal.c.version == version)
        return {row.version: _seal(row) for row in self.connection.execute(query)}

    def all_seals(self) -> list[SealRecord]:
        """Return every seal, in the order of their making."""
        seal = self.tables.seal
        return [_seal(row) for row in self.connection.execute(select(seal).order_by(seal.c.event))]

    def seal_of(self, workspace: str, name: str, run_id: str, manifest_digest: str) -> SealRecord | None:
        """Return the version of a name that was made from these bytes of this run and was never found changed."""
        seal, quarantine = self.tables.seal, self.tables.quarantine
        changed = select(quarantine.c.event).where(
            *_named(quarantine, workspace, name), quarantine.c.version == seal.c.version
        )
        query = select(seal).where(
            *_named(seal, workspace, name),
            seal.c.run_id == run_id,
            seal.c.manifest_digest == manifest_digest,
            ~changed.exists(),
        )
        row = self.connection.execute(query.order_by(seal.c.version)).first()
        return _seal(row) if row else None

    def legacy(self, workspace: str, name: str) -> set[int]:
        """Return the versions that were there before the name was governed."""
        legacy = self.tables.legacy_version
        return set(self.connection.execute(select(legacy.c.version).where(*_named(legacy, workspace, name))).scalars())

    def stages(self, workspace: str, name: str) -> dict[int, Stage]:
        """Return our stage record: the last stage of each version that ever had one."""
        stage = self.tables.stage
        query = select(stage.c.version, stage.c.stage).where(*_named(stage, workspace, name)).order_by(stage.c.event)
        return {row.version: cast("Stage", row.stage) for row in self.connection.execute(query)}

    def ever_live(self, workspace: str, name: str) -> list[int]:
        """Return the versions that were in Production at some time by the record, the last one last."""
        table = self.tables.stage
        query = select(table.c.version).where(*_named(table, workspace, name), table.c.stage == "Production")
        return list(self.connection.execute(query.order_by(table.c.event)).scalars())

    def aliases(self, workspace: str, name: str) -> dict[str, int | None]:
        """Return our alias record: where each reserved alias points, None if it was taken away."""
        alias = self.tables.alias
        query = select(alias.c.alias, alias.c.version).where(*_named(alias, workspace, name)).order_by(alias.c.event)
        return {row.alias: row.version for row in self.connection.execute(query)}

    def quarantined(self, workspace: str, name: str) -> dict[int, int]:
        """Return the quarantined versions of a name, each with its first event."""
        table = self.tables.quarantine
        query = select(table.c.version, func.min(table.c.event)).where(*_named(table, workspace, name))
        return {row[0]: row[1] for row in self.connection.execute(query.group_by(table.c.version))}

    def retention(self, workspace: str, name: str, version: int) -> tuple[int, bool] | None:
        """Return until when a version is kept (ms since the epoch) and whether a legal hold is on it."""
        table = self.tables.retention
        query = select(table.c.until, table.c.hold).where(*_named(table, workspace, name), table.c.version == version)
        row = self.connection.execute(query.order_by(table.c.event.desc()).limit(1)).first()
        return (row.until, bool(row.hold)) if row else None

    def has_event(self, action: str, workspace: str, name: str, version: int) -> bool:
        """Tell whether such an event exists for a version."""
        event = self.tables.event
        query = select(event.c.seq).where(
            *_named(event, workspace, name), event.c.version == version, event.c.action == action
        )
        return self.connection.execute(query.limit(1)).first() is not None

    def reasons(self, workspace: str, name: str, action: str) -> dict[int, str]:
        """Return the reason given with the last such event of each version, unless it was erased."""
        event, said = self.tables.event, self.tables.free_text
        query = (
            select(event.c.version, said.c.text)
            .join(said, and_(said.c.event == event.c.seq, said.c.field == "reason"))
            .where(*_named(event, workspace, name), event.c.action == action)
            .order_by(event.c.seq)
        )
        return {row.version: row.text for row in self.connection.execute(query)}

    def last_fact(self, action: str, fact: str, subject: Subject) -> str | None:
        """Return a fact of the last such event about an experiment or a version."""
        event = self.tables.event
        about = [event.c.action == action]
        if subject.experiment_id is not None:
            about += [event.c.experiment_id == subject.experiment_id, event.c.name.is_(None)]
        if subject.name is not None:
            about += [*_named(event, str(subject.workspace), subject.name), event.c.version == subject.version]
        bodies = self.connection.execute(select(event.c.body).where(*about).order_by(event.c.seq.desc())).scalars()
        found = (json.loads(body)["facts"].get(fact) for body in bodies)
        return next((value for value in found if value is not None), None)

    def text_of(self, event: int, field: str) -> str | None:
        """Return a free text of an event, None if it has none or it was erased or exchanged."""
        return self.texts_of(event).get(field)

    def texts_of(self, event: int) -> dict[str, str | None]:
        """Return the free texts that an event binds, None for each that was erased or exchanged."""
        trail, said = self.tables.event, self.tables.free_text
        body = self.connection.execute(select(trail.c.body).where(trail.c.seq == event)).scalar()
        digests: dict[str, str] = json.loads(body)["text"] if body else {}
        if not digests:
            return {}
        rows = self.connection.execute(select(said).where(said.c.event == event)).all()
        return dict.fromkeys(digests) | {row.field: row.text for row in rows if text_holds(digests, row)}

    def on_behalf_of(self, event: int) -> str | None:
        """Return the principal id of whom an event was done for."""
        table = self.tables.event
        found: str | None = self.connection.execute(select(table.c.on_behalf_of).where(table.c.seq == event)).scalar()
        return found

    def product_of(self, workspace: str, name: str) -> str | None:
        """Return the product that a model belongs to: the first that a registration of it named."""
        event = self.tables.event
        query = select(event.c.body).where(*_named(event, workspace, name), event.c.action == "version.registered")
        bodies = self.connection.execute(query.order_by(event.c.seq)).scalars()
        found = (json.loads(body)["facts"].get("product") for body in bodies)
        return next((product for product in found if product is not None), None)

    def count_since(self, action: str, actor: str, since: int, most: int) -> int:
        """Return how many of somebody's last events are of a kind and not older than a time, up to a number."""
        event = self.tables.event
        last = select(event.c.action, event.c.at).where(event.c.actor == actor).order_by(event.c.seq.desc()).limit(most)
        return sum(row.action == action and row.at >= since for row in self.connection.execute(last))

    def governed_models(self) -> list[tuple[str, str]]:
        """Return workspace and name of every governed model."""
        model = self.tables.governed_model
        found = self.connection.execute(select(model.c.workspace, model.c.name).order_by(model.c.event))
        return [(row.workspace, row.name) for row in found]

    def key_in_force(self) -> str | None:
        """Return the id of the key that signs now, None before the first governed act."""
        keys = self.tables.signing_key
        found: str | None = self.connection.execute(
            select(keys.c.key_id).order_by(keys.c.event.desc()).limit(1)
        ).scalar()
        return found

    def key_validities(self) -> tuple[KeyValidity, ...]:
        """Return the keys as the signed events brought them into force, each with the events that it may sign."""
        event, made = self.tables.event, select(self.tables.signing_key.c.event)
        query = select(event).where(event.c.seq.in_(made)).order_by(event.c.seq)
        keys: list[KeyValidity] = []
        for row in self.connection.execute(query).mappings():
            try:
                record = record_from_row(row)
                new = rotated_key(record, keys[-1].public) if keys else genesis_key(record)
            except (BadKeyEvent, TrailBroken):
                continue  # it brought no key into force; the check of the trail reports it
            if keys:
                keys[-1] = replace(keys[-1], last=record.seq)
            keys.append(KeyValidity(new.key_id, new.public, record.seq + 1 if keys else 1))
        return tuple(keys)

    def principal_ids(self, name: str) -> list[str]:
        """Return the ids of everybody who goes by this name."""
        table = self.tables.principal_name
        return sorted(_named_in(self.connection.execute(select(table).where(table.c.name == name))))

    def find_principal(self, principal: Principal) -> str | None:
        """Return the id of a principal that has acted before."""
        table = self.tables.principal_name
        query = select(table).where(table.c.kind == principal.kind, table.c.name == principal.name)
        rows = self.connection.execute(query.order_by(table.c.principal_id))
        return next((row.principal_id for row in rows if name_is_bound(row)), None)

    def principals(self, ids: Iterable[str]) -> dict[str, Principal]:
        """Return who these principal ids stand for, as far as the names were not erased or exchanged."""
        table = self.tables.principal_name
        return _named_in(self.connection.execute(select(table).where(table.c.principal_id.in_(sorted(set(ids))))))

    def principal_of(self, principal_id: str) -> Principal | None:
        """Return who a principal id stands for, None if the name was erased or exchanged."""
        return self.principals([principal_id]).get(principal_id)

    def seq_at(self, at: int) -> int:
        """Return the last event at or before a time in ms since the epoch, 0 if there is none."""
        event = self.tables.event
        query = select(event.c.seq).where(event.c.at <= at).order_by(event.c.at.desc(), event.c.seq.desc()).limit(1)
        return self.connection.execute(query).scalar() or 0

    def history(
        self,
        *,
        name: str | None,
        version: int | None,
        actors: list[str] | None,
        before: int | None,
        limit: int,
    ) -> list[HistoryRow]:
        """Return events, the newest first, of a name, a version, or somebody.

        Args:
            name: only events of this registered model.
            version: only of this version.
            actors: only by or for one of these principal ids.
            before: only events with a smaller number.
            limit: how many at most.
        """
        event = self.tables.event
        wanted = []
        if name is not None:
            wanted.append(event.c.name == name)
        if version is not None:
            wanted.append(event.c.version == version)
        if before is not None:
            wanted.append(event.c.seq < before)
        newest = event.c.seq.desc()
        query: Select[Any] = select(event).where(*wanted).order_by(newest).limit(limit)
        if actors is not None:
            # One bounded walk per index; an OR over both would sort everything that somebody ever did.
            walks = [
                select(select(event.c.seq).where(column.in_(actors), *wanted).order_by(newest).limit(limit).subquery())
                for column in (event.c.actor, event.c.on_behalf_of)
            ]
            numbers = union(*walks).subquery()
            query = select(event).where(event.c.seq.in_(select(numbers.c.seq))).order_by(newest).limit(limit)
        return self._with_texts(list(self.connection.execute(query)))

    def live(self, name: str | None, until: int | None) -> list[LiveRow]:
        """Return which version was in which stage after an event number, or is now."""
        stage, event = self.tables.stage, self.tables.event
        known = [
            select(table.c.workspace, table.c.name, table.c.version).where(*([table.c.name == name] if name else []))
            for table in (self.tables.seal, self.tables.legacy_version)
        ]
        version = union(*known).subquery()
        keys = ("workspace", "name", "version")
        same = [getattr(stage.c, key) == getattr(version.c, key) for key in keys]
        # One step down the index per version, however often versions were moved.
        last = select(func.max(stage.c.event)).where(*same, *([stage.c.event <= until] if until is not None else []))
        query = (
            select(stage.c.name, stage.c.version, stage.c.stage, stage.c.event, event.c.at)
            .select_from(version)
            .join(stage, and_(*same, stage.c.event == last.correlate(version).scalar_subquery()))
            .join(event, event.c.seq == stage.c.event)
            .where(or_(stage.c.stage == "Production", stage.c.stage == "Staging"))
            .order_by(stage.c.name, stage.c.version)
        )
        return [
            LiveRow(r.name, r.version, cast("Stage", r.stage), r.at, r.event) for r in self.connection.execute(query)
        ]

    def _with_texts(self, rows: list[Row[Any]]) -> list[HistoryRow]:
        if not rows:
            return []
        texts = self.tables.free_text
        bodies = {r.seq: json.loads(r.body) for r in rows}
        meant = {seq: _people_in(body.get("facts", {})) for seq, body in bodies.items()}
        ids = {i for r in rows for i in (r.actor, r.on_behalf_of, *meant[r.seq]) if i}
        names = {i: who.name for i, who in self.principals(ids).items()}
        said: dict[int, dict[str, str]] = {}
        for r in self.connection.execute(select(texts).where(texts.c.event.in_([r.seq for r in rows]))):
            said.setdefault(r.event, {})[r.field] = r.text
        return [
            HistoryRow(
                seq=r.seq,
                at=r.at,
                actor=names.get(r.actor, r.actor),
                on_behalf_of=names.get(r.on_behalf_of, r.on_behalf_of) if r.on_behalf_of else None,
                action=r.action,
                experiment_id=r.experiment_id,
                name=r.name,
                version=r.version,
                run_id=r.run_id,
                body=bodies[r.seq],
                text=said.get(r.seq, {}),
                people={i: names[i] for i in meant[r.seq] if i in names},
            )
            for r in rows
        ]


def text_holds(digests: Mapping[str, str], row: Row[Any]) -> bool:
    """Tell whether a row of `free_text` is a text that its event binds by one of these digests."""
    try:
        return bool(digests[row.field] == text_digest(bytes.fromhex(row.salt), row.text))
    except (InvalidArgument, KeyError, TypeError, ValueError, AttributeError):
        return False


def name_is_bound(row: Row[Any]) -> bool:
    """Tell whether a row of `principal_name` names whom its id was made for."""
    try:
        return bool(row.principal_id == principal_id(bytes.fromhex(row.salt), row.kind, row.name))
    except (InvalidArgument, TypeError, ValueError):  # no salt, or none that is one
        return False


def _named_in(rows: Iterable[Row[Any]]) -> dict[str, Principal]:
    """Return the people of rows that are right. The ids of the first release bind nothing; they are shorter."""
    return {
        row.principal_id: Principal(cast("PrincipalKind", row.kind), row.name)
        for row in rows
        if len(row.principal_id) != ID_LENGTH or name_is_bound(row)
    }


_REFERS = ("approved_by", "account", "person", "requester")


def _people_in(facts: Any) -> set[str]:
    """Return the principal ids that an event's facts refer to."""
    values = [facts.get(key) for key in _REFERS] if isinstance(facts, dict) else []
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return {each for each in flat if isinstance(each, str)}


def _named(table: Any, workspace: str, name: str) -> tuple[Any, Any]:
    return table.c.workspace == workspace, table.c.name == name


def _lock(row: Row[Any]) -> LockRecord:
    values = dict(row._mapping)
    return LockRecord(**{**values, "experiment_id": str(values["experiment_id"])})


def _seal(row: Row[Any]) -> SealRecord:
    values = dict(row._mapping)
    return SealRecord(**{**values, "experiment_id": str(values["experiment_id"])})
