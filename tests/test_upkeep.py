"""`db upgrade` as an administrator runs it on an older release's locked store, on both databases."""

from pathlib import Path

import anyio
import pytest
import rfc8785
import sqlalchemy
from old_stores import DATASETS, LOCKED, SPAN_COSTS, OldStores, engine_of

from intelligentscan._signing import KeyFolder
from intelligentscan.app import build
from intelligentscan.domain.errors import StoreBroken, TrailBroken
from intelligentscan.services.artifact_folders import list_folders
from intelligentscan.settings import Settings
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.governance.migrations import migrate
from intelligentscan.stores.governance.records import NPTA, Act, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.governance.tables import governance_tables
from intelligentscan.stores.guards import install as guards
from intelligentscan.stores.row_digests import experiment_digest

pytest_plugins = ["upgrade_fixtures"]


def locked_by_an_older_release(uri: str, home: Path) -> None:
    """Lock experiment 1 of a store at an old schema, as a registration did then."""
    archive = Archive(home / "archive")
    with engine_of(uri).begin() as connection:
        migrate(connection)
        guards.install(connection)
        unit = GovernedUnit(
            connection, governance_tables(connection.dialect.name), KeyFolder(home / "keys"), joint=True
        )
        rows = experiment_digest(connection, str(LOCKED)).document
        row = {
            "experiment_id": LOCKED,
            "experiment_name": "risk-1",
            "next_experiment": "risk-1-v2",
            "rows_digest": archive.put_document(rfc8785.dumps(rows)),
            "files_digest": archive.put_document(list_folders(archive, {})),
        }
        unit.append(Act("experiment.locked", NPTA, Subject(str(LOCKED)), rows={"experiment_lock": [row]}))
        unit.announce_lock(str(LOCKED))


@pytest.mark.parametrize("revision", [DATASETS, SPAN_COSTS])
async def test_an_upgrade_is_recorded_and_everything_verifies_after_it(
    old: OldStores,
    revision: str,
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path / "home", tracking_uri=old.store(revision, governed=False))
    await anyio.to_thread.run_sync(locked_by_an_older_release, settings.store_uri, settings.home)
    with pytest.raises(StoreBroken, match="another release") as refused:
        await build(settings).experiments.search()
    assert "intelligentscan db upgrade" in refused.value.next
    made = await build(settings).upkeep.upgrade()
    assert (made.upgraded, made.before, made.verified) == (True, revision, 1)
    services = build(settings)
    trail = await services.trail.verify()
    assert trail.ok, trail.problems
    check = await services.adoption.check()
    assert (check.ok, check.locks, check.mlflow_revision) == (True, 1, made.after)
    found = [p for p in (await services.integrity.verify()).problems if p.code != "FILES"]
    assert found == []
    actions = [event.action for event in (await services.history.get()).events]
    assert {"database.upgraded", "rows.recorded", "experiment.locked"} <= set(actions)
    assert not (await build(settings).upkeep.upgrade()).upgraded


async def test_rows_that_were_changed_before_the_upgrade_are_still_found_after_it(
    old: OldStores,
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path / "home", tracking_uri=old.store(DATASETS, governed=False))
    await anyio.to_thread.run_sync(locked_by_an_older_release, settings.store_uri, settings.home)
    with engine_of(settings.store_uri).begin() as connection:  # the owner of the tables goes around the guards
        guards.drop(connection)
        connection.exec_driver_sql("UPDATE metrics SET value = 77 WHERE run_uuid = 'r1-0'")
        guards.install(connection)
        guards.announce_lock(connection, LOCKED)
    made = await build(settings).upkeep.upgrade()
    assert any("changed before the upgrade" in note for note in made.notes)
    report = await build(settings).integrity.verify()
    assert [(p.code, p.where) for p in report.problems if p.code == "ROWS"] == [("ROWS", "experiment 1")]


async def test_a_trail_that_does_not_verify_is_not_carried_over(
    old: OldStores,
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path / "home", tracking_uri=old.store(DATASETS, governed=False))
    await anyio.to_thread.run_sync(locked_by_an_older_release, settings.store_uri, settings.home)
    tables = governance_tables(engine_of(settings.store_uri).dialect.name)
    with engine_of(settings.store_uri).begin() as connection:
        guards.drop(connection)
        connection.execute(sqlalchemy.update(tables.event).where(tables.event.c.seq == 2).values(at=1))
        guards.install(connection)
        guards.announce_lock(connection, LOCKED)
    with pytest.raises(TrailBroken):
        await build(settings).upkeep.upgrade()
