"""Upkeep of the database: MLflow's schema upgrade under the guards, and PostgreSQL's split roles."""

import json
import re
from collections.abc import Iterator

import rfc8785
from sqlalchemy import Connection

from intelligentscan._signing import KeyFolder
from intelligentscan.domain.administration import RolesResult, UpgradeResult
from intelligentscan.domain.errors import InvalidArgument, Refused, StoreBroken, TooLarge, TrailBroken
from intelligentscan.domain.text import untrusted
from intelligentscan.services.adoption import AdoptionService
from intelligentscan.services.principal import person
from intelligentscan.services.seals import MAX_DOCUMENT, REBASED
from intelligentscan.settings import Settings
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.governance.export import stored_events
from intelligentscan.stores.governance.migrations import migrate
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import Act, Subject
from intelligentscan.stores.governance.roles import RoleNames, for_administrator, init_roles
from intelligentscan.stores.governance.row_check import verify_rows
from intelligentscan.stores.governance.store import GovernedUnit, event_count
from intelligentscan.stores.governance.tables import governance_tables
from intelligentscan.stores.governance.verify import verify_chain
from intelligentscan.stores.interface import Stores
from intelligentscan.stores.row_digests import compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from intelligentscan.stores.mlflow_upgrade import GovernanceSteps, UpgradeFacts

_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,50}")
_CHANGED_BEFORE = "was changed before the upgrade, or could not be compared: see verify_integrity"
_FIRST_SEEN = "the rows of locked experiments and governed versions are the same as before"


class UpkeepService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, settings: Settings, archive: Archive, adoption: AdoptionService) -> None:
        self._store = store
        self._settings = settings
        self._archive = archive
        self._adoption = adoption

    async def upgrade(self) -> UpgradeResult:
        """Bring MLflow's schema, the governance tables and the guards to this release: as a whole, or nothing of it.

        Raises:
            Refused: others are using the store.
            TrailBroken: the audit trail does not verify.
            StoreError: the migrations would change sealed or locked rows, or cannot be run.
        """
        tampered: set[Subject] = set()
        report = await self._store.upgrade(lambda steps: self._steps(steps, tampered))
        facts = report.facts
        notes = [f"{_FIRST_SEEN}."] if facts.kept else []
        notes += [
            f"{_named(subject)} was changed before the upgrade, or could not be compared: see verify_integrity."
            for subject in tampered
        ]
        return UpgradeResult(
            upgraded=report.changed,
            before=facts.revision_before,
            after=facts.revision_after,
            verified=len(facts.kept),
            backup=str(report.backup) if report.backup else None,
            notes=notes,
        )

    async def init_roles(self, prefix: str = "intelligentscan", *, dry_run: bool = False) -> RolesResult:
        """Make the PostgreSQL roles owner, app, npta and auditor, and give each what it needs and no more.

        A store that is not governed yet is adopted first.

        Args:
            prefix: what the names of the roles begin with.
            dry_run: only say what would be run.

        Raises:
            InvalidArgument: the prefix cannot begin a role's name.
            Refused: the store is no PostgreSQL database.
            NotPermitted: the account may not make roles.
        """
        if not _PREFIX.fullmatch(prefix):
            raise InvalidArgument(
                "A prefix of roles has lower-case letters, digits and '_', up to 51.", next="give another --prefix."
            )
        names = RoleNames(*(f"{prefix}_{role}" for role in ("owner", "app", "npta", "auditor")))
        if not dry_run and await self._store.read(_adoptable):
            await self._adoption.adopt()

        def work(stores: Stores) -> tuple[list[str], list[str]]:
            tables = stores.schema().tables
            with stores.governance.engine.begin() as connection:
                left = for_administrator(connection, names, tables)
                return init_roles(connection, names, tables, dry_run=dry_run), left

        statements, left = await self._store.write(work)
        return RolesResult(
            status="would_do" if dry_run else "done",
            roles=list(names.every),
            statements=statements,
            notes=["For the administrator, who decides who may log in:", *left],
        )

    def _steps(self, steps: "type[GovernanceSteps]", tampered: set[Subject]) -> "GovernanceSteps":
        """Return the steps; what was changed already is put into `tampered`, and never taken for good."""

        def check(connection: Connection) -> None:
            _check_trail(connection)
            tampered.update(self._tampered(connection))

        def record(connection: Connection, facts: "UpgradeFacts") -> None:
            self._record(connection, facts, tampered)

        return steps(migrate=migrate, record=record, check=check)

    def _tampered(self, connection: Connection) -> Iterator[Subject]:
        """Return the locked experiments and sealed versions whose rows differ from those recorded."""
        read = GovernanceReads(connection, governance_tables(connection.dialect.name))
        recorded = [(Subject(lock.experiment_id), lock.rows_digest) for lock in read.locks().values()]
        recorded += [(Subject(None, s.workspace, s.name, s.version), s.rows_digest) for s in read.all_seals()]
        for subject, digest in recorded:
            try:
                document = self._archive.read_document(
                    read.last_fact(REBASED, "rows_digest", subject) or digest, MAX_DOCUMENT
                )
            except (StoreBroken, TooLarge):  # what cannot be compared is not taken for good either
                yield subject
                continue
            if compare(connection, json.loads(document)):
                yield subject

    def _record(self, connection: Connection, facts: "UpgradeFacts", tampered: set[Subject]) -> None:
        """Append what was done, and what the kept rows are compared with from now on."""
        tables = governance_tables(connection.dialect.name)
        unit = GovernedUnit(connection, tables, KeyFolder(self._settings.keys_folder), joint=True)
        told = {key: value for key, value in facts.document.items() if key != "kept"}
        unit.append(Act("database.upgraded", person(), facts={**told, "kept": len(facts.kept)}))
        for each in facts.kept:
            subject = _subject(each.after.document["of"])
            if subject not in tampered:
                digest = self._archive.put_document(rfc8785.dumps(each.after.document))
                unit.append(Act(REBASED, person(), subject, facts={"rows_digest": digest}))


def _named(subject: Subject) -> str:
    if subject.experiment_id is not None:
        return f"Experiment {subject.experiment_id}"
    return f"Version {subject.version} of '{untrusted(subject.name or '', 80)}'"


def _subject(of: dict[str, object]) -> Subject:
    if "experiment_id" in of:
        return Subject(experiment_id=str(of["experiment_id"]))
    return Subject(workspace=str(of["workspace"]), name=str(of["name"]), version=int(str(of["version"])))


def _adoptable(stores: Stores) -> bool:
    if stores.governance.engine.dialect.name != "postgresql" or not stores.governance.joint:
        raise Refused("Roles exist on PostgreSQL alone.", next="protect a SQLite store by the permissions of its file.")
    return not stores.governance.installed()


def _check_trail(connection: Connection) -> None:
    """Refuse to carry a trail over that does not verify."""
    tables = governance_tables(connection.dialect.name)
    if event_count(connection, tables) == 0:
        return
    report = verify_chain(stored_events(connection, tables), full_signatures=False)
    rows = verify_rows(connection, tables).problems
    if not report.ok or rows:
        first = (*report.problems, *rows)[0]
        raise TrailBroken(
            f"The audit trail does not verify: {first.message}",
            next="run 'intelligentscan audit verify'; restore the store from a backup before the upgrade.",
        )
