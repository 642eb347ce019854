"""How strong a claim is, who may do what, and what of the refused is recorded: with PostgreSQL's roles really split."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from conftest import plain_mlflow
from mlflow import MlflowClient
from postgres_server import Postgres
from reviewed import release

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import GatesFailed, InvalidArgument, Refused, StillRunning, StoreError
from intelligentscan.services.denials import DENIED, MAX_PER_MINUTE
from intelligentscan.settings import Settings

PREFIX = "enforced"


@dataclass(frozen=True)
class Split:
    """A PostgreSQL store with split roles, and a run that can be registered."""

    postgres: Postgres
    database: str
    home: Path
    run_id: str

    def as_role(self, role: str, home: Path | None = None) -> Services:
        uri = self.postgres.uri(self.database, role if role == "postgres" else f"{PREFIX}_{role}")
        return build(Settings(home=home or self.home, tracking_uri=uri))


@pytest.fixture
async def split(postgres: Postgres, database: str, tmp_path: Path) -> Split:
    owner = build(Settings(home=tmp_path / "home", tracking_uri=postgres.uri(database)))
    made = await owner.upkeep.init_roles(PREFIX)
    assert made.status == "done"
    for statement in made.notes[1:]:
        postgres.sql(statement, database)
    uri = postgres.uri(database, f"{PREFIX}_app")
    return Split(postgres, database, tmp_path / "home", await anyio.to_thread.run_sync(train, uri, tmp_path))


def train(uri: str, folder: Path) -> str:
    import mlflow
    from mlflow import MlflowClient
    from sklearn.linear_model import LogisticRegression

    with plain_mlflow(uri):
        experiment = MlflowClient(tracking_uri=uri).create_experiment("fraud", artifact_location=str(folder / "fraud"))
        with mlflow.start_run(experiment_id=experiment) as run:
            model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
            mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
    return str(run.info.run_id)


async def test_what_may_be_claimed_follows_from_what_the_account_can_reach(split: Split, tmp_path: Path) -> None:
    service = split.as_role("npta")
    registered = await service.registry.register("fm", run_id=split.run_id)
    assert registered.enforcement == "advisory"  # this process also holds the key
    elsewhere = tmp_path / "another-account"
    assert (await split.as_role("app", elsewhere).registry.get("fm")).enforcement == "prevented"
    assert (await split.as_role("npta", elsewhere).registry.get("fm")).enforcement == "detected"
    assert (await split.as_role("postgres", elsewhere).registry.get("fm")).enforcement == "detected"
    assert (await split.as_role("postgres").registry.get("fm")).enforcement == "advisory"
    split.postgres.sql("ALTER TABLE metrics DISABLE TRIGGER ALL", split.database)
    assert (await split.as_role("app", elsewhere).registry.get("fm")).enforcement == "advisory"


async def test_the_app_role_reads_the_record_but_cannot_register_or_promote(split: Split, tmp_path: Path) -> None:
    app = split.as_role("app", tmp_path / "another-account")
    with pytest.raises((StoreError, Refused)) as refused:
        await app.registry.register("fm", run_id=split.run_id)
    assert refused.value.next
    await split.as_role("npta").registry.register("fm", run_id=split.run_id)
    assert (await app.experiments.create("fraud")).next_experiment == "fraud-v2"
    assert (await app.history.get(name="fm")).events
    assert (await app.registry.get("fm")).versions[0].sealed
    with pytest.raises((StoreError, Refused)):
        await app.registry.promote("fm", 1, "Production", reason="I say so")
    service = split.as_role("npta")
    assert (await release(service, "fm", 1, reason="it is good")).stage == "Production"
    assert (await service.integrity.verify()).ok


async def test_an_archive_out_of_reach_is_no_damage_and_puts_nothing_into_quarantine(
    split: Split, tmp_path: Path
) -> None:
    service = split.as_role("npta")
    await service.registry.register("fm", run_id=split.run_id)
    other = tmp_path / "another-account"
    (other / "keys").parent.mkdir()
    shutil.copytree(split.home / "keys", other / "keys")
    seen = await split.as_role("app", other).integrity.verify()
    assert seen.ok, seen.problems  # this account may read the archive that lies elsewhere
    (split.home / "archive").rename(split.home / "hidden")
    report = await split.as_role("npta", other).integrity.verify()
    assert {p.code for p in report.problems} == {"UNCHECKED"}
    assert all("INTELLIGENTSCAN_ARCHIVE" in str(p.next) for p in report.problems)
    with pytest.raises(GatesFailed, match="gates failed"):
        await split.as_role("npta", other).registry.promote("fm", 1, "Production", reason="unseen")
    (split.home / "hidden").rename(split.home / "archive")
    decision = await release(split.as_role("npta", other), "fm", 1, reason="seen")
    assert decision.stage == "Production"


async def test_no_path_of_a_home_is_in_the_signed_trail(settings: Settings, services: Services) -> None:
    run_id = await anyio.to_thread.run_sync(train, settings.store_uri, settings.home)
    await services.registry.register("fm", run_id=run_id)
    await release(services, "fm", 1, reason="good")
    trail = settings.home / "trail.jsonl"
    assert await services.trail.export(trail) > 5
    assert str(settings.home) not in trail.read_text()


async def test_an_alias_that_looks_reserved_and_was_there_before_blocks_until_it_is_deleted(
    settings: Settings, services: Services, client: MlflowClient
) -> None:
    run_id = await anyio.to_thread.run_sync(train, settings.store_uri, settings.home)
    client.create_registered_model("fm")
    client.create_model_version("fm", "/somewhere", run_id)
    client.set_registered_model_alias("fm", "Prod", "1")
    made = await services.registry.register("fm", run_id=run_id)
    with pytest.raises(GatesFailed, match="gates failed") as refused:
        await services.registry.promote("fm", made.version, "Production", reason="good")
    assert "Prod" in refused.value.next
    client.delete_registered_model_alias("fm", "Prod")
    assert (await release(services, "fm", made.version, reason="good")).stage == "Production"


async def test_roles_are_shown_before_they_are_made_and_made_again_without_harm(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    services = build(Settings(home=tmp_path / "home", tracking_uri=postgres.uri(database)))
    await services.adoption.adopt()
    shown = await services.upkeep.init_roles("shown", dry_run=True)
    assert shown.status == "would_do"
    assert shown.statements
    assert postgres.sql("SELECT 1 FROM pg_roles WHERE rolname = 'shown_app'") == []
    first = await services.upkeep.init_roles("shown")
    assert first.roles == ["shown_owner", "shown_app", "shown_npta", "shown_auditor"]
    assert (await services.upkeep.init_roles("shown")).status == "done"
    assert (await services.adoption.check()).ok
    with pytest.raises(InvalidArgument, match="prefix"):
        await services.upkeep.init_roles('x"; DROP TABLE runs; --')


async def test_a_sqlite_store_has_no_roles(services: Services) -> None:
    with pytest.raises(Refused, match="PostgreSQL"):
        await services.upkeep.init_roles()


async def test_an_account_without_the_key_is_told_where_it_is(settings: Settings, services: Services) -> None:
    run_id = await anyio.to_thread.run_sync(train, settings.store_uri, settings.home)
    await services.registry.register("fm", run_id=run_id)
    (settings.home / "keys").rename(settings.home / "hidden")
    with pytest.raises(Refused, match="key") as refused:
        await build(settings).registry.promote("fm", 1, "Staging")
    assert refused.value.code == "KEY_UNAVAILABLE"
    assert (await build(settings).registry.get("fm")).enforcement == "detected"


async def test_refused_acts_are_in_the_trail_but_only_so_many_a_minute(settings: Settings, services: Services) -> None:
    run_id = await anyio.to_thread.run_sync(train, settings.store_uri, settings.home)
    other = await services.runs.log("fraud", status="RUNNING")
    for _ in range(MAX_PER_MINUTE + 3):
        with pytest.raises(StillRunning):
            await services.registry.register("fm", run_id=run_id)
    events = (await services.history.get(name="fm", limit=100)).events
    assert [e.action for e in events] == [DENIED] * MAX_PER_MINUTE
    assert events[0].facts == {"tool": "register_model", "code": "STILL_RUNNING"}
    await services.runs.log("fraud", run_id=other.run_id, status="FINISHED")
    assert (await services.registry.register("fm", run_id=run_id)).created
    assert (await services.trail.verify()).ok
