"""An administrator's acts on a store: adopt it, check it, put its registry back to the record, keep versions longer."""

from typing import Any

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan.domain import names
from intelligentscan.domain.administration import Adoption, DatabaseCheck, Reconciliation, RetentionState
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import (
    InvalidArgument,
    ModelNotFound,
    NotGoverned,
    Refused,
    VersionNotFound,
)
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.registry import ALIAS_OF_STAGE, PREVIOUS
from intelligentscan.domain.text import untrusted
from intelligentscan.services.acceptance import refuse_entered
from intelligentscan.services.drift import all_versions, drift_of
from intelligentscan.services.enforcement import claim
from intelligentscan.services.evidence import EvidenceGatherer
from intelligentscan.services.history import moment
from intelligentscan.services.locks import checked_reason
from intelligentscan.services.principal import person
from intelligentscan.services.registration_record import legacy_rows
from intelligentscan.services.rights import require
from intelligentscan.services.seals import REBASED, SealChecks
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, LockRecord, Subject
from intelligentscan.stores.governance.store import GovernedUnit, event_count, guards_broken
from intelligentscan.stores.interface import Stores
from intelligentscan.stores.row_digests import experiment_digest

_MAX_REPORTED = 50
_BY_HAND = "sealed bytes and rows are not rewritten: restore them from a backup, or register the run again."


class AdoptionService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, checks: SealChecks, gatherer: EvidenceGatherer) -> None:
        self._store = store
        self._checks = checks
        self._gatherer = gatherer

    async def adopt(self, name: str | None = None) -> Adoption:
        """Put a store, or one model that plain MLflow registered, under governance.

        Without a name: tables and guards are made or put back, and every model that is there is governed; its
        versions and aliases count as legacy, unreviewed. Repeating it changes nothing that is in order.

        Raises:
            ModelNotFound: there is no such model.
            StoreError: this account may not alter the database.
        """
        wanted = names.model_name(name) if name is not None else None
        return await self._store.write(lambda s: _adopt(s, wanted))

    async def check(self) -> DatabaseCheck:
        """Return the state of guards, schema and rights."""
        return await self._store.read(_check)

    async def reconcile(self, name: str, *, accept: bool, reason: str) -> Reconciliation:
        """Put stages and aliases of a model back to the record, or accept what is there; either is audited.

        When accepted, versions made behind our back become legacy, unreviewed, and locked experiments are compared
        with what they hold now. A sealed version whose own rows or bytes changed stays refused.

        Raises:
            GatesFailed: a version came to Production that promote would refuse.
            NotGoverned: the model is not governed.
        """
        wanted = names.model_name(name)
        because = checked_reason(reason, "reconcile")
        locks = await self._store.read(lambda s: _locks_behind(s, wanted))
        moved: dict[str, dict[str, str]] = {}
        changed: list[Problem] = []
        for lock in locks:
            if found := await self._checks.experiment(lock):
                changed += found
                if accept:
                    moved[lock.experiment_id] = await self._checks.as_it_is(lock.experiment_id)
        if accept:
            await refuse_entered(self._store, self._gatherer, wanted)
        return await self._store.write(lambda s: _reconcile(s, wanted, accept, because, changed, moved))

    async def retain(
        self, name: str, version: int, *, until: str | None = None, hold: bool | None = None, reason: str
    ) -> RetentionState:
        """Keep a sealed version longer, or put a legal hold on it or take it off.

        Raises:
            Refused: the date would shorten the retention.
            VersionNotFound: there is no such sealed version.
        """
        wanted = names.model_name(name)
        because = checked_reason(reason, "retain")
        end = moment(until) if until is not None else None
        if end is None and hold is None:
            raise InvalidArgument("Nothing is to be changed.", next="name a date with --until, or --hold or --release.")
        return await self._store.write(lambda s: _retain(s, wanted, version, end, hold, because))


def _adopt(stores: Stores, name: str | None) -> Adoption:
    governance = stores.governance
    installed = False
    repaired: list[str] = []
    if governance.joint and not governance.installed():
        governance.install_now()
        installed = True
    elif governance.joint and not (report := governance.guard_report()).ok:
        repaired = [*report.missing, *report.changed, *report.foreign]
        with governance.reading() as read:
            require(read, "administer", None)
        restored = Act("guards.restored", person(), facts={"guards": repaired[:_MAX_REPORTED]})
        governance.install_now(lambda unit: unit.append(restored))
        if not (left := governance.guard_report()).ok:
            if not left.unmapped:
                raise guards_broken(left)
            raise Refused(
                "The guards cannot cover this database: it has tables or columns of an unknown release of MLflow.",
                next="use the release of MLflow that this version is made for, or 'intelligentscan db upgrade'.",
                details={"unmapped": list(left.unmapped)[:_MAX_REPORTED]},
            )
    found = [name] if name is not None else stores.registry.model_names()
    models: list[str] = []
    versions = 0
    event = None
    with governance.unit() as unit:
        require(unit.read, "administer", None)
        if installed:
            event = unit.append(Act("store.adopted", person())).seq
        for each in found:
            if unit.read.is_governed(DEFAULT_WORKSPACE, each):
                continue
            if stores.registry.get_model(each) is None:
                raise ModelNotFound(
                    f"There is no registered model '{untrusted(each, 80)}'.", next="check the name in MLflow's UI."
                )
            unit.hold_name(DEFAULT_WORKSPACE, each)
            rows = legacy_rows(stores, each)
            made = unit.append(
                Act("model.adopted", person(), Subject(workspace=DEFAULT_WORKSPACE, name=each), rows=rows)
            )
            event, versions = made.seq, versions + len(rows["legacy_version"])
            models.append(each)
    return Adoption(
        installed=installed,
        repaired=repaired[:_MAX_REPORTED],
        models=[untrusted(m, names.MAX_NAME) for m in models[:_MAX_REPORTED]],
        legacy_versions=versions,
        event=event,
        enforcement=claim(stores),
        notes=["Versions that were there are legacy, unreviewed: they do not pass to Production."] if versions else [],
    )


def _check(stores: Stores) -> DatabaseCheck:
    governance = stores.governance
    schema = stores.schema()
    governed = governance.installed()
    guards: dict[str, list[str]] = {}
    locks = models = events = 0
    if governed:
        if governance.joint:
            report = governance.guard_report()
            guards = {
                kind: [untrusted(t, 200) for t in getattr(report, kind)][:_MAX_REPORTED]
                for kind in ("missing", "changed", "foreign", "unmapped")
                if getattr(report, kind)
            }
        with governance.reading() as read:
            locks, models = len(read.locks()), len(read.governed_models())
            events = event_count(read.connection, read.tables)
    advice = None
    if not governed and governance.joint:
        advice = "run 'intelligentscan adopt' to put this store under governance."
    elif schema.upgrade_needed:
        advice = "run 'intelligentscan db upgrade'."
    elif guards:
        advice = "run 'intelligentscan adopt' to put the guards back; the trail will show it."
    return DatabaseCheck(
        ok=governed and not guards and not schema.upgrade_needed,
        dialect=governance.engine.dialect.name,
        governed=governed,
        mlflow_revision=schema.current,
        mlflow_head=schema.head,
        upgrade_needed=schema.upgrade_needed,
        guards=guards,
        locks=locks,
        models=models,
        events=events,
        enforcement=claim(stores),
        next=advice,
    )


def _locks_behind(stores: Stores, name: str) -> list[LockRecord]:
    """Return the locks of the experiments that a governed model came from.

    Raises:
        NotGoverned: it is not governed.
    """
    if stores.governance.installed():
        with stores.governance.reading() as read:
            if read.is_governed(DEFAULT_WORKSPACE, name):
                return list(
                    read.locks({s.experiment_id for s in read.seals(DEFAULT_WORKSPACE, name).values()}).values()
                )
    raise NotGoverned(
        f"The model '{untrusted(name, 80)}' is not governed.",
        next=f"'intelligentscan adopt {untrusted(name, 80)}' puts it under governance.",
    )


def _reconcile(
    stores: Stores,
    name: str,
    accept: bool,
    reason: str,
    changed: list[Problem],
    moved: dict[str, dict[str, str]],
) -> Reconciliation:
    shown = untrusted(name, names.MAX_NAME)
    with stores.governance.unit() as unit:
        require(unit.read, "administer", None)
        unit.hold_name(DEFAULT_WORKSPACE, name)
        found = drift_of(stores, name) + changed
        mendable = [p for p in found if p.code in ("ALIAS", "STAGE") or (accept and p.code in _ACCEPTABLE)]
        if not mendable:
            return Reconciliation(name=shown, how="nothing to do", problems=found, left=_left(found), event=None)
        _refuse_moving(unit, moved)
        facts = {"how": "accepted" if accept else "restored", "problems": [p.what for p in mendable[:_MAX_REPORTED]]}
        rows = _rows_as_they_are(stores, name) if accept else {}
        subject = Subject(workspace=DEFAULT_WORKSPACE, name=name)
        event = unit.append(
            Act("registry.reconciled", person(), subject, facts=facts, rows=rows, text={"reason": reason})
        )
        for row in rows.get("stage", ()):
            moved_to = Subject(workspace=DEFAULT_WORKSPACE, name=name, version=row["version"])
            said = {"to": row["stage"], "reconciled_by_event": event.seq}
            unit.append(Act("version.accepted", person(), moved_to, facts=said, text={"reason": reason}))
        for experiment_id, digests in moved.items():
            unit.append(Act(REBASED, person(), Subject(experiment_id), facts=digests, text={"reason": reason}))
        if not accept:
            aliases = unit.read.aliases(DEFAULT_WORKSPACE, name)
            live = {alias: aliases.get(alias) for alias in (_CHAMPION, PREVIOUS)}
            stores.registry.set_live(name, unit.read.stages(DEFAULT_WORKSPACE, name), live)
    left = drift_of(stores, name) + ([] if accept else changed)
    return Reconciliation(
        name=shown, how="accepted" if accept else "restored", problems=found, left=_left(left), event=event.seq
    )


def _refuse_moving(unit: GovernedUnit, moved: dict[str, dict[str, str]]) -> None:
    """Refuse to accept what was changed again since somebody looked at it; nobody can write from here on.

    Raises:
        Refused: the rows of an experiment are not what was put into the archive a moment ago.
    """
    for experiment_id, digests in moved.items():
        unit.hold_experiment(experiment_id)
        if "rows_digest" not in digests:
            continue
        now = sha256_hex(rfc8785.dumps(experiment_digest(unit.connection, experiment_id).document))
        if now != digests["rows_digest"]:
            raise Refused(
                f"The experiment {experiment_id} was changed again while it was looked at.",
                next="find out who writes to it, look with verify_integrity, then reconcile again.",
            )


_ACCEPTABLE = ("TWIN", "FILES", "ROWS")
_CHAMPION = ALIAS_OF_STAGE["Production"]


def _left(problems: list[Problem]) -> list[Problem]:
    return [p if p.next else p.model_copy(update={"next": _BY_HAND}) for p in problems]


def _rows_as_they_are(stores: Stores, name: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that make the record say what the registry says."""
    key = {"workspace": DEFAULT_WORKSPACE, "name": name}
    with stores.governance.reading() as read:
        stages = read.stages(DEFAULT_WORKSPACE, name)
        aliases = read.aliases(DEFAULT_WORKSPACE, name)
        known = read.seals(DEFAULT_WORKSPACE, name).keys() | read.legacy(DEFAULT_WORKSPACE, name)
    model = stores.registry.get_model(name)
    there = all_versions(stores, name)
    actual = model.aliases if model else {}
    return {
        "stage": [
            {**key, "version": v.version, "stage": v.stage}
            for v in there
            if (stages.get(v.version) == "Production") != (v.stage == "Production")
        ],
        "alias": [
            {**key, "alias": alias, "version": actual.get(alias)}
            for alias in (_CHAMPION, PREVIOUS)
            if aliases.get(alias) != actual.get(alias)
        ],
        "legacy_version": [{**key, "version": v.version} for v in there if v.version not in known],
    }


def _retain(
    stores: Stores, name: str, version: int, until: int | None, hold: bool | None, reason: str
) -> RetentionState:
    with stores.governance.unit() as unit:
        require(unit.read, "administer", None)
        now = unit.read.retention(DEFAULT_WORKSPACE, name, version)
        if now is None:
            raise VersionNotFound(
                f"There is no sealed version {version} of '{untrusted(name, 80)}'.",
                next="get_model lists the versions and which are sealed.",
            )
        if until is not None and until < now[0]:
            raise Refused(
                f"The version is kept until {rfc3339(now[0])}; a retention is never shortened.",
                next="name a later date.",
            )
        end, held = until if until is not None else now[0], hold if hold is not None else now[1]
        key = {"workspace": DEFAULT_WORKSPACE, "name": name, "version": version}
        event = unit.append(
            Act(
                "retention.changed",
                person(),
                Subject(workspace=DEFAULT_WORKSPACE, name=name, version=version),
                facts={"until": end, "legal_hold": held},
                rows={"retention": [{**key, "until": end, "hold": int(held)}]},
                text={"reason": reason},
            )
        )
    return RetentionState(
        name=untrusted(name, names.MAX_NAME),
        version=version,
        until=rfc3339(end) or "",
        legal_hold=held,
        event=event.seq,
    )
