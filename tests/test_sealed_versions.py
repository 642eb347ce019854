"""Sealed versions against what happened to them: changed bytes, swapped originals, drift, adoption, reconciliation."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Look, Trained, look_at, plain_mlflow, run_plain
from reviewed import approve, release

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    ExperimentLocked,
    GatesFailed,
    InvalidArgument,
    ModelNotFound,
    NotAdopted,
    NotGoverned,
    Refused,
    StoreBroken,
    VersionNotFound,
)
from intelligentscan.settings import Settings


@pytest.fixture
async def sealed(trained: Trained) -> Trained:
    """A trained store in which version 1 of `fm` was made from `with_model`, with bytes of its own."""
    await trained.services.registry.register("fm", run_id=trained.with_model)
    return trained


def folder_of(trained: Trained, version: int = 1) -> Path:
    return Path(trained.client.get_model_version("fm", str(version)).source)


def opened(path: Path) -> Path:
    """Return a sealed file or folder, made writable as its owner can."""
    path.parent.chmod(0o755)
    path.chmod(0o755 if path.is_dir() else 0o644)
    return path


async def outcomes(services: Services, version: int = 1) -> dict[str, str]:
    """Return the outcome of each gate for a promotion to Production."""
    would = await services.registry.promote("fm", version, "Production", reason="r", dry_run=True)
    assert would.status == ("would_refuse" if "fail" in {g.outcome for g in would.gates} else "would_promote")
    return {g.gate: g.outcome for g in would.gates if g.gate != "reviewed"}


# Bytes


async def test_a_flipped_byte_puts_a_version_into_quarantine_for_good(sealed: Trained) -> None:
    services = sealed.services
    file = opened(folder_of(sealed) / "requirements.txt")
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    report = await services.integrity.verify("fm")
    assert {p.code for p in report.problems} >= {"BYTES"}
    assert [p for p in report.problems if "requirements.txt" in (p.where or "")]
    assert {v.state for v in (await services.registry.get("fm")).versions} == {"sealed"}, "looking changes nothing"

    for to in ("Staging", "Production"):
        with pytest.raises(GatesFailed) as caught:
            await services.registry.promote("fm", 1, to, reason="r")
        failed = {g["gate"]: g["detail"] for g in caught.value.details["gates"] if g["outcome"] == "fail"}  # type: ignore[union-attr, index, call-overload]
        assert "quarantine" in failed["intact"]
    (version,) = (await services.registry.get("fm")).versions
    assert (version.state, version.stage) == ("quarantined", "None")
    quarantined = [e for e in (await services.history.get(name="fm")).events if e.action == "version.quarantined"]
    assert len(quarantined) == 1

    file.write_bytes(whole)
    file.chmod(0o444)
    file.parent.chmod(0o555)
    assert (await outcomes(services))["intact"] == "fail"
    assert {p.code for p in (await services.integrity.verify("fm")).problems} == {"QUARANTINED"}


async def test_after_a_quarantine_the_same_run_is_registered_again_as_another_version(sealed: Trained) -> None:
    services = sealed.services
    opened(folder_of(sealed))
    (folder_of(sealed) / "added.py").write_text("import os\n")
    with pytest.raises(GatesFailed):
        await services.registry.promote("fm", 1, "Staging")
    would = await services.registry.register("fm", run_id=sealed.with_model, dry_run=True)
    made = await services.registry.register("fm", run_id=sealed.with_model)
    assert (would.version, made.version, made.created) == (2, 2, True)
    assert (folder_of(sealed) / "added.py").exists(), "what was found is left as it was"
    assert folder_of(sealed, 2) != folder_of(sealed)
    assert set((await outcomes(services, 2)).values()) == {"pass"}
    assert (await release(services, "fm", 2, reason="r")).aliases == ["champion"]
    again = await services.registry.register("fm", run_id=sealed.with_model)
    assert (again.version, again.created) == (2, False)


async def test_a_damaged_blob_is_not_built_upon(sealed: Trained) -> None:
    services = sealed.services
    file = opened(folder_of(sealed) / "conda.yaml")
    file.write_bytes(b"changed")
    with pytest.raises(StoreBroken) as caught:
        await services.registry.register("second", run_id=sealed.with_model)
    assert "backup" in caught.value.next
    with pytest.raises(ModelNotFound):
        await services.registry.get("second")


@pytest.mark.parametrize("act", ["added", "removed", "renamed", "linked", "emptied", "manifest gone"])
async def test_whatever_happens_to_a_sealed_folder_is_found_and_blocks_promotion(sealed: Trained, act: str) -> None:
    folder = opened(folder_of(sealed))
    file = folder / "MLmodel"
    match act:
        case "added":
            (folder / "more.txt").write_text("x")
        case "removed":
            file.unlink()
        case "renamed":
            file.rename(folder / "MLmodel2")
        case "linked":
            file.rename(folder.parent.parent / "MLmodel")
            file.symlink_to(folder.parent.parent / "MLmodel")
        case "emptied":
            file.unlink()
            file.touch()
        case _:
            (event,) = (
                e for e in (await sealed.services.history.get(name="fm")).events if e.action == "version.registered"
            )
            digest = str(event.facts["manifest_digest"])
            (blob,) = (p for p in sealed.settings.archive_folder.rglob("*") if p.name == digest)
            opened(blob).unlink()
    assert "BYTES" in {p.code for p in (await sealed.services.integrity.verify("fm")).problems}
    assert (await outcomes(sealed.services))["intact"] == "fail"


async def test_a_changed_original_is_drift_that_an_administrator_accepts_and_loads_stay_sealed(
    sealed: Trained,
) -> None:
    services = sealed.services
    (model,) = (
        m
        for m in sealed.client.search_logged_models([sealed.experiment.experiment_id])
        if m.source_run_id == sealed.with_model
    )
    (Path(model.artifact_location) / "requirements.txt").write_text("other\n")
    report = await services.integrity.verify("fm")
    assert [(p.code, "requirements.txt" in (p.where or "")) for p in report.problems] == [("FILES", True)]
    assert await outcomes(services) == {"sealed": "pass", "intact": "pass", "not_drifted": "fail"}
    with pytest.raises(GatesFailed) as caught:
        await services.registry.promote("fm", 1, "Production", reason="r")
    assert "intelligentscan reconcile fm" in caught.value.next
    done = await services.adoption.reconcile("fm", accept=True, reason="a known clean-up")
    assert (done.how, done.left) == ("accepted", [])
    assert set((await outcomes(services)).values()) == {"pass"}
    assert (folder_of(sealed) / "requirements.txt").read_text() != "other\n"


# Drift


def as_owner(home: Path, *statements: str) -> None:
    """Change the store as its file's owner can: without the guards, which are put back as they were."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        triggers = dict(connection.execute(query).fetchall())
        for name in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement in statements:
            connection.execute(statement)
        for text in triggers.values():
            connection.execute(text)


CHAMPION = (
    "INSERT INTO registered_model_aliases (name, alias, version, workspace) VALUES ('fm', 'champion', 2, 'default')"
)
DRIFT: dict[str, tuple[tuple[str, ...], str]] = {
    "another champion": ((CHAMPION,), "ALIAS"),
    "another Production": (("UPDATE model_versions SET current_stage = 'Production' WHERE version = 2",), "STAGE"),
    "another source": (("UPDATE model_versions SET source = '/tmp/elsewhere' WHERE version = 1",), "SOURCE"),
    "a twin": (
        (
            "CREATE TEMP TABLE twin AS SELECT * FROM model_versions WHERE version = 1",
            "UPDATE twin SET version = 7",
            "INSERT INTO model_versions SELECT * FROM twin",
        ),
        "TWIN",
    ),
    "a version gone": (("DELETE FROM model_versions WHERE version = 2",), "ROWS"),
    "a metric changed": (("UPDATE metrics SET value = 1.0",), "ROWS"),
}


@pytest.mark.parametrize("kind", DRIFT)
async def test_what_the_owner_of_the_file_changes_is_found_and_blocks_promotion(registered: Trained, kind: str) -> None:
    statements, code = DRIFT[kind]
    as_owner(registered.home, *statements)
    services = registered.services
    report = await services.integrity.verify("fm")
    assert code in {p.code for p in report.problems}, report.problems
    assert (await outcomes(services))["not_drifted"] == "fail"
    before = look_at(registered.home)
    with pytest.raises(GatesFailed):
        await services.registry.promote("fm", 1, "Production", reason="r")
    assert look_at(registered.home).beside_trail == before.beside_trail


async def test_stages_and_aliases_are_put_back_to_the_record_or_accepted(registered: Trained) -> None:
    services = registered.services
    await release(services, "fm", 1, reason="r")
    moved = (
        "UPDATE model_versions SET current_stage = 'Archived' WHERE version = 1",
        "UPDATE model_versions SET current_stage = 'Production' WHERE version = 2",
        "UPDATE registered_model_aliases SET version = 2 WHERE alias = 'champion'",
    )
    as_owner(registered.home, *moved)
    assert not (await services.integrity.verify("fm")).ok
    restored = await services.adoption.reconcile("fm", accept=False, reason="nobody decided that")
    assert (restored.how, restored.left) == ("restored", [])
    assert {p.code for p in restored.problems} == {"ALIAS", "STAGE"}
    found = {v.version: (v.stage, v.aliases) for v in (await services.registry.get("fm")).versions}
    assert found == {1: ("Production", ["champion"]), 2: ("Archived", [])}
    assert (await services.integrity.verify("fm")).problems == []

    await approve(services, "fm", 2)
    as_owner(registered.home, *moved)
    accepted = await services.adoption.reconcile("fm", accept=True, reason="an emergency at night")
    assert (accepted.how, accepted.left) == ("accepted", [])
    assert [v.version for v in (await services.history.get(name="fm")).live["Production"]] == [2]
    assert (await services.integrity.verify("fm")).problems == []
    nothing = await services.adoption.reconcile("fm", accept=False, reason="r")
    assert (nothing.how, nothing.event) == ("nothing to do", None)
    events = [(e.action, e.reason) for e in (await services.history.get(name="fm")).events]
    assert [event for event in events if event[0] == "registry.reconciled"] == [
        ("registry.reconciled", "an emergency at night"), ("registry.reconciled", "nobody decided that"),
    ]  # fmt: skip


async def test_a_missing_guard_refuses_governed_acts_until_adoption_puts_it_back(
    registered: Trained,
) -> None:
    services = registered.services
    with closing(sqlite3.connect(registered.home / "mlflow.db")) as connection, connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'model_versions' LIMIT 1"
        (name,) = connection.execute(query).fetchone()
        connection.execute(f'DROP TRIGGER "{name}"')
    report = await services.integrity.verify()
    assert [(p.code, name in p.what) for p in report.problems if p.code == "GUARD"] == [("GUARD", True)]
    with pytest.raises(Refused) as caught:
        await services.registry.promote("fm", 1, "Archived")
    assert caught.value.code == "GUARDS_BROKEN"
    checked = await services.adoption.check()
    assert (checked.ok, checked.guards) == (False, {"missing": [f"trigger {name}"]})
    assert (await services.adoption.adopt()).repaired == [f"trigger {name}"]
    assert (await services.integrity.verify()).problems == []
    assert (await services.registry.promote("fm", 1, "Archived")).stage == "Archived"


async def test_what_is_asked_about_must_be_there(registered: Trained, look: Callable[[], Look]) -> None:
    services, client = registered.services, registered.client
    client.create_registered_model("plain")
    before = look()
    with pytest.raises(ModelNotFound):
        await services.integrity.verify("nothing")
    with pytest.raises(VersionNotFound):
        await services.integrity.verify("fm", 9)
    with pytest.raises(InvalidArgument):
        await services.integrity.verify(version=1)
    for call in (
        lambda: services.integrity.verify("plain"),
        lambda: services.adoption.reconcile("plain", accept=True, reason="r"),
    ):
        with pytest.raises(NotGoverned) as caught:
            await call()
        assert "intelligentscan adopt plain" in caught.value.next
    with pytest.raises(InvalidArgument):
        await services.adoption.reconcile("fm", accept=True, reason=" ")
    assert look() == before


# Stores that plain MLflow made


@pytest.fixture(scope="session")
def plain_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file as plain MLflow makes it, with one registered version in Production."""
    folder = tmp_path_factory.mktemp("plain")
    ended = run_plain(PLAIN, f"sqlite:///{folder / 'mlflow.db'}", env={"HOME": os.environ.get("HOME", "/")}, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


PLAIN = """
import sys, mlflow
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
mlflow.set_tracking_uri(sys.argv[1])
client.create_experiment("exp", artifact_location="artifacts")
run = client.create_run("1")
client.log_text(run.info.run_id, "flavors: {}\\n", "model/MLmodel")
client.set_terminated(run.info.run_id)
client.create_registered_model("fm")
client.create_model_version("fm", f"runs:/{run.info.run_id}/model", run.info.run_id)
client.transition_model_version_stage("fm", "1", "Production")
client.set_registered_model_alias("fm", "champion", "1")
"""


async def test_a_store_that_plain_mlflow_made_is_adopted_first(plain_template: Path, tmp_path: Path) -> None:
    """Until then nothing of ours stands in it, and everything but governed acts works."""
    from mlflow import MlflowClient

    (tmp_path / "mlflow.db").write_bytes((plain_template / "mlflow.db").read_bytes())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = Settings(home=tmp_path / "home", tracking_uri=uri)
    client, services = MlflowClient(tracking_uri=uri), build(settings)
    location = str(tmp_path / "ours")
    run = client.create_run(client.create_experiment("ours", artifact_location=location))
    client.log_text(run.info.run_id, "flavors: {}\n", "model/MLmodel")
    client.set_terminated(run.info.run_id)
    await services.runs.log("ours", params={"a": 1})

    for call in (
        lambda: services.registry.register("fm", run_id=run.info.run_id),
        lambda: services.locks.unlock("ours", "r"),
    ):
        with pytest.raises(NotAdopted) as caught:
            await call()
        assert "intelligentscan adopt" in caught.value.next
    with pytest.raises(NotGoverned):
        await services.registry.promote("fm", 1, "Staging")
    assert not (await services.registry.get("fm")).governed
    assert (await services.history.get()).events == []
    assert (await services.adoption.check()).next == "run 'intelligentscan adopt' to put this store under governance."
    assert [m.name for m in client.search_registered_models()] == ["fm"]

    adopted = await services.adoption.adopt()
    assert (adopted.installed, adopted.models, adopted.legacy_versions) == (True, ["fm"], 1)
    (version,) = (await services.registry.get("fm")).versions
    assert (version.state, version.stage, version.aliases) == ("legacy", "Production", ["champion"])
    assert (await services.adoption.check()).ok
    again = await services.adoption.adopt()
    assert (again.installed, again.repaired, again.models, again.event) == (False, [], [], None)
    made = await services.registry.register("fm", run_id=run.info.run_id)
    assert (made.version, made.next_experiment) == (2, "ours-v2")
    with pytest.raises(ExperimentLocked):
        await services.runs.log("ours")
    assert (await release(services, "fm", 2, reason="sealed")).previous_version == 1
    with pytest.raises(GatesFailed):
        await services.registry.promote("fm", 1, "Production", reason="legacy")
    assert (await services.integrity.verify()).problems == []


async def test_all_versions_that_plain_mlflow_had_put_into_production_give_way_to_the_promoted_one(
    trained: Trained,
) -> None:
    import mlflow

    services = trained.services
    with plain_mlflow(trained.settings.store_uri):
        for version in ("1", "2", "3"):
            mlflow.register_model(f"runs:/{trained.legacy}/classifier", "fm")
            trained.client.transition_model_version_stage("fm", version, "Production" if version != "3" else "Staging")
    assert (await services.adoption.adopt("fm")).legacy_versions == 3
    await services.registry.register("fm", run_id=trained.with_model)
    assert [v.version for v in (await services.history.get(name="fm")).live["Production"]] == [1, 2]
    done = await release(services, "fm", 4, reason="the only one")
    assert done.previous_version == 2
    found = {v.version: (v.stage, v.aliases) for v in (await services.registry.get("fm")).versions}
    assert found == {
        4: ("Production", ["champion"]), 3: ("Staging", []), 2: ("Archived", ["previous"]), 1: ("Archived", []),
    }  # fmt: skip
    live = (await services.history.get(name="fm")).live
    assert {stage: [v.version for v in there] for stage, there in live.items()} == {"Production": [4], "Staging": [3]}
    assert (await services.integrity.verify("fm")).problems == []


async def test_one_model_of_plain_mlflow_is_adopted_by_name(trained: Trained) -> None:
    import mlflow

    services = trained.services
    with plain_mlflow(trained.settings.store_uri):
        for name in ("fm", "other"):
            mlflow.register_model(f"runs:/{trained.legacy}/classifier", name)
    adopted = await services.adoption.adopt("fm")
    assert (adopted.installed, adopted.models, adopted.legacy_versions) == (False, ["fm"], 1)
    assert [(await services.registry.get(name)).governed for name in ("fm", "other")] == [True, False]
    with pytest.raises(NotGoverned):
        await services.registry.promote("other", 1, "Staging")
    with pytest.raises(ModelNotFound):
        await services.adoption.adopt("nothing")
    trained.client.delete_model_version("other", "1")
