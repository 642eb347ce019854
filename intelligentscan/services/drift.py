"""What the registry says against what our record says: somebody may have gone around us."""

from intelligentscan.domain.errors import TrailBroken
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.registry import ALIAS_OF_STAGE, PREVIOUS, RESERVED_ALIASES
from intelligentscan.domain.text import untrusted
from intelligentscan.stores.governance import report
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Subject
from intelligentscan.stores.governance.store import event_count
from intelligentscan.stores.governance.subject_check import verify_subject
from intelligentscan.stores.guards.rules import looks_reserved
from intelligentscan.stores.interface import Stores, VersionRecord

_CHAMPION = ALIAS_OF_STAGE["Production"]
_LOOKS = 5


def drift_of(stores: Stores, name: str) -> list[Problem]:
    """Return where stages, aliases, versions and records of a governed name do not match.

    A plain client may move a version to Staging, and the alias `challenger` with it; that is no drift. Record and
    registry are read one after the other, so what an act changed in between is looked at again.
    """
    for _ in range(_LOOKS):
        before = _last_event(stores)
        problems = _compared(stores, name)
        if not problems or _last_event(stores) == before:
            break
    return problems


def _compared(stores: Stores, name: str) -> list[Problem]:
    with stores.governance.reading() as read:
        stages = read.stages(DEFAULT_WORKSPACE, name)
        aliases = read.aliases(DEFAULT_WORKSPACE, name)
        sealed = read.seals(DEFAULT_WORKSPACE, name)
        legacy = read.legacy(DEFAULT_WORKSPACE, name)
        subject = Subject(workspace=DEFAULT_WORKSPACE, name=name)
        experiments = sorted({seal.experiment_id for seal in sealed.values()})
        forged = _forged(read, subject, *(Subject(experiment_id=each) for each in experiments))
    problems = guard_problems(stores)
    problems += [Problem(code="RECORD", what=f"{p.code}: {p.message}", where=name) for p in forged]
    shown = untrusted(name, 80)
    fix = f"'intelligentscan reconcile {shown} --reason …' puts the registry back to the record; --accept accepts it."
    model = stores.registry.get_model(name)
    if model is None:
        return [*problems, Problem(code="ROWS", what="the registered model is gone from the registry", where=name)]
    there = {v.version: v for v in all_versions(stores, name)}
    for alias in sorted(model.aliases):
        if looks_reserved(alias) and alias not in RESERVED_ALIASES:
            what = f"alias {untrusted(alias, 60)} looks like a reserved one and was there before the model was governed"
            delete = f"delete it: MlflowClient().delete_registered_model_alias('{shown}', '{untrusted(alias, 60)}')."
            problems.append(Problem(code="ALIAS", what=what, where=name, next=delete))
    for alias in (_CHAMPION, PREVIOUS):
        recorded, actual = aliases.get(alias), model.aliases.get(alias)
        if recorded != actual:
            what = f"alias {alias} points to {_version(actual)}, by the record to {_version(recorded)}"
            problems.append(Problem(code="ALIAS", what=what, where=name, next=fix))
    if stores.registry.stages:
        recorded_live = {v for v, stage in stages.items() if stage == "Production"}
        actual_live = {v.version for v in there.values() if v.stage == "Production"}
        for version in sorted(recorded_live ^ actual_live):
            there_now, by_record = ("not in", "in") if version in recorded_live else ("in", "not in")
            what = f"version {version} is {there_now} Production, by the record {by_record} it"
            problems.append(Problem(code="STAGE", what=what, where=name, next=fix))
    for version in sorted(there.keys() - sealed.keys() - legacy):
        what = f"version {version} was made without the service: neither sealed nor legacy"
        problems.append(Problem(code="TWIN", what=what, where=name, next="delete it as the owner of the database."))
    gone = sorted((sealed.keys() | legacy) - there.keys())
    problems += [Problem(code="ROWS", what=f"version {v} is gone from the registry", where=name) for v in gone]
    if stores.governance.joint:
        for version in sorted(sealed.keys() & there.keys()):
            if not there[version].source.endswith(f"/sealed/{sealed[version].source}"):
                what = f"version {version} loads from another place than its sealed copy"
                problems.append(Problem(code="SOURCE", what=what, where=name))
    return problems


def _last_event(stores: Stores) -> int:
    with stores.governance.reading() as read:
        return event_count(read.connection, read.tables)


def refuse_forged(read: GovernanceReads, *subjects: Subject) -> None:
    """Refuse to build on a record that the trail did not make.

    Raises:
        TrailBroken: a row or an event about one of the subjects does not hold.
    """
    if found := _forged(read, *subjects):
        raise TrailBroken(
            f"The record is not what the audit trail made: {found[0].message}",
            next="run 'intelligentscan audit verify'; restore the store from a backup.",
        )


def _forged(read: GovernanceReads, *subjects: Subject) -> list[report.Problem]:
    keys = read.key_validities()
    found = (p for each in subjects for p in verify_subject(read.connection, read.tables, each, keys).problems)
    return list(dict.fromkeys(found))  # an event can be about a name and about its experiment


def guard_problems(stores: Stores) -> list[Problem]:
    """Return which guards are not as they belong."""
    if not stores.governance.joint:
        return []
    report = stores.governance.guard_report()
    return [
        Problem(
            code="GUARD",
            what=f"guard {kind}: {untrusted(text, 200)}",
            next="run 'intelligentscan db check', then 'intelligentscan adopt' to put the guards back.",
        )
        for kind in ("missing", "changed", "foreign", "unmapped")
        for text in getattr(report, kind)
    ]


def all_versions(stores: Stores, name: str) -> list[VersionRecord]:
    """Return every version of a name."""
    found: list[VersionRecord] = []
    token: str | None = None
    while True:
        page = stores.registry.get_versions(name, None, 1000, token)
        found += page.rows
        token = page.next_token
        if token is None:
            return found


def _version(version: int | None) -> str:
    return "nothing" if version is None else f"version {version}"
