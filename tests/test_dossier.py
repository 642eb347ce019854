"""Dossiers: what is known about a version per criterion, who says so, the same bytes for the same facts."""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Trained, plain_mlflow
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine

from intelligentscan._digest import sha256_hex
from intelligentscan.app import Services
from intelligentscan.domain.review import CRITERIA, EvidenceItem, ReviewDetails
from intelligentscan.services.dossier import (
    ArtifactFact,
    Dossier,
    Material,
    ScanFact,
    assemble,
    card_fields,
    given_in,
    items_of,
)
from intelligentscan.services.review_evidence import checked_evidence
from intelligentscan.services.sealed_model import SealedModel, sealed_model
from intelligentscan.stores.interface import DatasetRecord, RunRecord, VersionRecord

RUN = RunRecord("a" * 32, "run", "1", "FINISHED", False, "file:///x", 1, 2, {}, {}, {})
VERSION = VersionRecord("fm", 1, "None", (), "x", RUN.run_id, 1, None, {})
MATERIAL = Material(VERSION, "d" * 64, RUN)


def said(dossier: Dossier, criterion: str) -> dict[str, Any]:
    return {item.what: item.value for item in dossier.items if item.criterion == criterion}


def of(details: ReviewDetails, criterion: str) -> dict[str, EvidenceItem]:
    return {item.what: item for item in details.evidence if item.criterion == criterion}


# What is put together


def test_a_version_of_which_nothing_is_known_lacks_every_criterion() -> None:
    dossier = assemble(replace(MATERIAL, run=None))
    assert (dossier.items, dossier.missing) == ((), CRITERIA)


def test_each_criterion_gets_what_speaks_to_it_and_says_who_says_so() -> None:
    run = replace(
        RUN,
        metrics={"auc": 0.9, "loss": 0.2, "demographic_parity_gap": 0.01, "system/cpu": 5.0, "nan": float("nan")},
        params={"depth": "3"},
    )
    version = replace(
        VERSION,
        description="Scores cards; limited to Europe",
        tags={"card.limitations": "no cash", "team": "red", "card.owner": "cards"},
    )
    model = SealedModel(True, True, ("sklearn",), ("mlflow==3",), {"requirements.txt": "e" * 64}, ("m.pkl",), "f" * 64)
    dossier = assemble(
        Material(
            version, "d" * 64, run, model, "The family", "cards", "c" * 40, [DatasetRecord("d", "x1", "training")],
            [ArtifactFact("confusion_matrix.png", 10, "1" * 64), ArtifactFact("fairness/by_age.csv", 5, None),
             ArtifactFact("weights.bin", 5, None)],
            [ScanFact("measured by us", {"critical": 0}, "2" * 64), ScanFact("imported", {"critical": 1})],
            champion=7, champion_metrics={"auc": 0.8, "loss": 0.1, "other": 1.0},
        )
    )  # fmt: skip
    assert dossier.missing == ()
    accuracy = said(dossier, "accuracy")
    assert accuracy["metrics"] == {"auc": 0.9, "loss": 0.2, "nan": "nan"}
    assert accuracy["artifact"] == {"path": "confusion_matrix.png", "size": 10}
    assert accuracy["compared with the champion"] == {
        "version": 7,
        "metrics": {
            "auc": {"this": 0.9, "champion": 0.8, "better": True},
            "loss": {"this": 0.2, "champion": 0.1, "better": False},
        },
    }
    assert [i.origin for i in dossier.items if i.what == "scan"] == ["measured by us", "imported"]
    assert said(dossier, "safety")["files that run code when loaded"] == ["m.pkl"]
    assert said(dossier, "bias") == {
        "fairness metrics": {"demographic_parity_gap": 0.01}, "artifact": {"path": "fairness/by_age.csv", "size": 5},
    }  # fmt: skip
    risks = said(dossier, "risks")
    assert (risks["use case"], risks["card.limitations"]) == ("cards", "no cash")
    assert risks["description"] == "Scores cards; limited to Europe"
    written = said(dossier, "documentation")
    assert written["model card"] == {"limitations": "no cash", "owner": "cards"}
    assert written["sealed model"] == {"signature": True, "input_example": True, "flavors": ["sklearn"]}
    assert (written["code version"], written["params"]) == ("c" * 40, {"depth": "3"})
    assert written["data"] == [{"name": "d", "digest": "x1", "context": "training"}]
    measured = {i.what for i in dossier.items if i.origin == "measured by us"}
    assert measured == {"scan", "requirements", "files that run code when loaded", "sealed model", "environment"}


SPEAK: list[tuple[str, dict[str, Any], set[str]]] = [
    ("metrics", {"run": replace(RUN, metrics={"auc": 0.9})}, {"accuracy"}),
    ("only the machine's metrics", {"run": replace(RUN, metrics={"system/cpu": 0.9})}, set()),
    ("a plot", {"artifacts": [ArtifactFact("roc.png", 1, None)]}, {"accuracy"}),
    ("a file that shows nothing", {"artifacts": [ArtifactFact("weights.bin", 1, None)]}, set()),
    ("a fairness metric", {"run": replace(RUN, metrics={"equalizedOdds": 0.9})}, {"bias"}),
    ("an unbiased name", {"run": replace(RUN, metrics={"unbiasedness_of_weights": 0.9})}, {"accuracy"}),
    ("requirements and formats", {"model": SealedModel(requirements=("x",), digest="1" * 64)}, set()),
    ("code, data and params", {"code_version": "c" * 40, "run": replace(RUN, params={"a": "b"}),
                               "datasets": [DatasetRecord("d", "x", None)]}, set()),
    ("a use case", {"use_case": "cards"}, {"risks"}),
    ("a blank use case", {"use_case": "  "}, set()),
    ("a description", {"version": replace(VERSION, description="Scores cards")}, {"documentation"}),
    ("a description of its limits", {"version": replace(VERSION, description="Known limits: none")},
     {"documentation", "risks"}),
    ("a description of the model", {"model_description": "The family"}, {"documentation"}),
    ("a tag of its risks", {"version": replace(VERSION, tags={"known_risks": "x"})}, {"risks"}),
    ("a champion to compare with", {"champion": 2, "champion_metrics": {"auc": 1.0}}, set()),
    ("a scan", {"scans": [ScanFact("measured by us", {})]}, {"safety"}),
    ("something given", {"given": {"bias": "none"}}, {"bias"}),
    ("something taken back", {"given": {"bias": "", "risks": {}}}, set()),
]  # fmt: skip


@pytest.mark.parametrize(("change", "speaks"), [case[1:] for case in SPEAK], ids=[case[0] for case in SPEAK])
def test_a_criterion_is_missing_until_something_speaks_to_it(change: dict[str, Any], speaks: set[str]) -> None:
    assert set(CRITERIA) - set(assemble(replace(MATERIAL, **change)).missing) == speaks


def test_the_same_facts_in_another_order_give_the_same_bytes() -> None:
    one = replace(
        MATERIAL,
        run=replace(RUN, metrics={"a": 1.0, "b": 2.0}, params={"x": "1", "y": "2"}),
        version=replace(VERSION, tags={"card.a": "1", "card.b": "2"}),
        datasets=[DatasetRecord("a", "1", None), DatasetRecord("b", "2", "test")],
        artifacts=[ArtifactFact("a.png", 1, None), ArtifactFact("b.png", 2, None)],
    )
    other = replace(
        one,
        run=replace(RUN, metrics={"b": 2.0, "a": 1.0}, params={"y": "2", "x": "1"}),
        version=replace(VERSION, tags={"card.b": "2", "card.a": "1"}),
        datasets=list(reversed(one.datasets)),
        artifacts=list(reversed(one.artifacts)),
    )
    assert assemble(one).document == assemble(other).document
    assert assemble(one).digest == sha256_hex(assemble(one).document)
    assert assemble(replace(one, use_case="cards")).digest != assemble(one).digest


def test_long_lists_are_cut_and_say_how_much_was_left_out() -> None:
    many = [ArtifactFact(f"{n:03}.png", n, None) for n in range(100)]
    dossier = assemble(replace(MATERIAL, artifacts=many, run=replace(RUN, params={str(n): "x" for n in range(1000)})))
    assert said(dossier, "accuracy")["artifacts that are not listed"] == 60
    assert len(dossier.items) < 50
    assert len(dossier.document) < 30_000


texts = st.text(max_size=60) | st.sampled_from(["\ud800", "![x](http://e)", "<b>", "\u202e", "\x00", "card."])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(texts, texts, max_size=5), texts, st.dictionaries(texts, st.floats(), max_size=5))
def test_whatever_people_and_runs_write_is_kept_in_a_form_that_can_be_shown(
    tags: dict[str, str], text: str, metrics: dict[str, float]
) -> None:
    version = replace(VERSION, description=text, tags=tags)
    run = replace(RUN, metrics=metrics, params=tags)
    evidence = checked_evidence({"bias": text, "risks": dict(tags)})
    made = assemble(replace(MATERIAL, version=version, run=run, use_case=text, code_version=text, given=evidence))
    assert items_of(made.document) == made.items
    assert assemble(replace(MATERIAL, given=given_in(items_of(made.document)))).items == tuple(
        item for item in made.items if item.what.startswith("given")
    )
    assert not set(made.document.decode()) & {"\u202e", "\x00", "\ud800"}


@pytest.mark.parametrize(
    ("description", "tags", "use_case", "fields"),
    [
        (None, {}, None, ()),
        (" ", {"card.": "x", "card.owner": " "}, "", ()),
        ("text", {"card.owner": "me", "owner": "you"}, "cards", ("description", "owner", "use_case")),
        (None, {"card.description": "text", "card.use_case": "x"}, None, ("description", "use_case")),
    ],
)
def test_the_fields_of_the_card_are_those_that_say_something(
    description: str | None, tags: dict[str, str], use_case: str | None, fields: tuple[str, ...]
) -> None:
    assert card_fields(description, tags, use_case) == fields


# What the sealed files say


def test_a_model_with_signature_example_and_pickle_is_described_without_being_loaded(tmp_path: Path) -> None:
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    frame = pd.DataFrame({"a": [0.0, 1.0]})
    mlflow.sklearn.save_model(
        LogisticRegression().fit(frame, [0, 1]), str(tmp_path / "m"), signature=infer_signature(frame, [0, 1]),
        input_example=frame, pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
    )  # fmt: skip
    model = sealed_model(tmp_path / "m")
    assert (model.signature, model.input_example) == (True, True)
    assert model.flavors == ("python_function", "sklearn")
    assert "scikit-learn" in model.requirements
    assert model.pickled == ("model.pkl", "sklearn: cloudpickle")
    requirements = (tmp_path / "m" / "requirements.txt").read_bytes()
    assert model.environment["requirements.txt"] == sha256_hex(requirements)
    assert model.digest == sha256_hex((tmp_path / "m" / "MLmodel").read_bytes())


class Trap:
    """What a loader would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("sprung"), "x"))


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 8)}]\n" for n in range(12)
)
HOSTILE: dict[str, str] = {
    "no YAML": "a: [",
    "a list": "- a",
    "a text": "x",
    "code": "flavors: !!python/object/apply:os.system ['touch sprung']\n",
    "deep": "[" * 3_000,
    "a bomb": BOMB,
    "wrong types": "flavors: 3\nsignature: [1]\nsaved_input_example_info: {artifact_path: [x]}\n",
    "an example elsewhere": "saved_input_example_info: {artifact_path: ../../etc/passwd}\n",
    "an example at the top": "saved_input_example_info: {artifact_path: /etc/passwd}\n",
    "a link for an example": "saved_input_example_info: {artifact_path: link.json}\n",
    "half a signature": "signature: {inputs: '[]', outputs: null}\n",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_a_description_that_lies_or_attacks_says_nothing_and_runs_nothing(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "MLmodel").write_text(content)
    (folder / "link.json").symlink_to("/etc/passwd")
    (folder / "model.pkl").write_bytes(pickle.dumps(Trap()))
    model = sealed_model(folder)
    assert (model.signature, model.input_example, model.flavors) == (False, False, ())
    assert model.pickled == ("model.pkl",)
    assert not Path("sprung").exists()


def test_no_folder_says_nothing(tmp_path: Path) -> None:
    assert sealed_model(tmp_path / "none") == SealedModel()


# On a store


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect what is sent to databases."""
    seen: list[str] = []

    def note(_c: Any, _k: Any, sql: str, *_: Any) -> None:
        seen.append(sql)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def rich(trained: Trained, plots: int) -> str:
    """Log a run in an experiment of its own that has all that a dossier knows how to read; return its id."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    place = str(trained.home / "artifacts" / f"rich-{plots}")
    experiment = trained.client.create_experiment(f"rich-{plots}", artifact_location=place)
    frame = pd.DataFrame({"a": [0.0, 1.0]})
    with plain_mlflow(trained.settings.store_uri), mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_metrics({"auc": 0.9, "parity_gap": 0.01})
        mlflow.set_tag("mlflow.source.git.commit", "c" * 40)
        mlflow.log_input(mlflow.data.from_pandas(frame, name="cards"), context="training")  # type: ignore[attr-defined]
        for n in range(plots):
            mlflow.log_text(f"plot {n}", f"plots/{n:02}.svg")
        mlflow.sklearn.log_model(
            LogisticRegression().fit(frame, [0, 1]), name="model", signature=infer_signature(frame, [0, 1]),
            input_example=frame, pip_requirements=["scikit-learn"],
        )  # fmt: skip
    return str(run.info.run_id)


async def test_a_request_gathers_what_the_run_proves_in_a_bounded_number_of_calls(trained: Trained) -> None:
    services, counts = trained.services, []
    for number, plots in ((1, 1), (2, 35)):
        run_id = rich(trained, plots)
        tags: dict[str, object] = {"card.limitations": "no cash"}
        await services.registry.register(
            "cards", run_id=run_id, description="Scores cards", tags=tags, use_case="card payments"
        )
        await services.reviews.request("cards", number)
        with statements() as seen:
            asked = await services.reviews.request("cards", number)
        counts.append(len(seen))
        assert not asked.created
        assert [m.partition(":")[0] for m in asked.missing] == ["safety"]
        shown = await services.reviews.show(asked.review_id)
        plotted = [i for i in shown.evidence if i.what == "artifact"]
        assert len(plotted) == plots
        assert plotted[0].value == {"path": "plots/00.svg", "size": 6}
        assert plotted[0].digest == sha256_hex(b"plot 0")
    assert abs(counts[1] - counts[0]) <= 4
    accuracy, written, safety = of(shown, "accuracy"), of(shown, "documentation"), of(shown, "safety")
    assert accuracy["metrics"].value == {"auc": 0.9}
    assert of(shown, "bias")["fairness metrics"].value == {"parity_gap": 0.01}
    assert of(shown, "risks")["use case"].value == "card payments"
    assert written["model card"].value == {"limitations": "no cash"}
    assert written["code version"].value == "c" * 40
    assert written["data"].value[0]["name"] == "cards"
    assert written["sealed model"].value["signature"] is True
    assert written["sealed model"].origin == "measured by us"
    assert safety["requirements"].origin == "measured by us"
    document = services._archive.read_document(asked.dossier_digest, 10**6)
    assert json.loads(document)["format"] == "intelligentscan.dossier.v1"


async def test_it_is_compared_with_what_is_in_production(registered: Trained) -> None:
    services = registered.services
    first = await services.reviews.request("fm", 1)
    await services.reviews.decide(first.review_id, "approve", "first")
    await services.registry.promote("fm", 1, "Production", reason="first")
    second = await services.reviews.show((await services.reviews.request("fm", 2)).review_id)
    compared = of(second, "accuracy")["compared with the champion"].value
    assert compared["version"] == 1
    assert compared["metrics"]["accuracy"]["better"] is True


async def test_an_imported_scan_that_the_request_names_counts_as_imported_if_it_is_of_the_same_commit(
    trained: Trained,
) -> None:
    services, client = trained.services, trained.client
    client.set_tag(trained.with_model, "mlflow.source.git.commit", "c" * 40)
    await services.registry.register("fm", run_id=trained.with_model)
    document = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "Other"}}, "results": []}]}
    runs = {}
    for commit in ("c" * 40, "b" * 40):
        run = await services.scans.log(f"imports-{commit[0]}", sarif=document, create_missing=True)
        client.set_tag(run.run_id, "mlflow.source.git.commit", commit)
        runs[commit[0]] = run.run_id
    for commit, origins in (("b", []), ("c", ["imported"])):
        asked = await services.reviews.request("fm", 1, {"safety": {"run_id": runs[commit]}})
        shown = await services.reviews.show(asked.review_id)
        assert [i.origin for i in shown.evidence if i.what == "scan"] == origins


async def test_a_dossier_that_is_gone_from_the_archive_is_said_to_be_gone(trained: Trained) -> None:
    services: Services = trained.services
    await services.registry.register("fm", run_id=trained.with_model)
    asked = await services.reviews.request("fm", 1)
    digest = asked.dossier_digest
    blob = trained.home / "archive" / "sha256" / digest[:2] / digest
    blob.parent.chmod(0o755)
    blob.unlink()
    shown = await services.reviews.show(asked.review_id)
    assert (shown.evidence, shown.status) == ([], "open")
    assert any("not in the archive" in note for note in shown.notes)
