"""The scripts that make the calls of the seed, each run as it ships, and the list of types that `use()` trusts."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import copy_store, run_plain

import intelligentscan
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.settings import Settings
from intelligentscan.trusted_models import TAG, TRUSTED_TYPES

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "seed"
EXPECTED = {
    "create_experiment": r"1\n",
    "log_a_run": "accuracy 0",
    "two_attempts": "BEST",
    "register": "",
    "stages": "Production",
    "load_production": "[",
    "transcript": "",
    "with_aiprod_api": "Model registered: status='registered' name='team_awesome_fraud_detector' version=1",
    "governed_stages": "promoted: Production, ['champion']",
    "with_hackathon_plugin": "name='my_model_of_the_plugin' version=1",
    "locked_experiment": "going on in /team-awesome/fraud-detection-v2",
    "scan_with_tracking": "findings",
}
"""What each script says, in the order in which DIFFERENCES.md runs them."""

_CHAIN = """
import contextlib, io, json, runpy, sys
folder, answers, scripts = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path.insert(0, folder)
said = {}
for script in scripts:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(f"{folder}/{script}.py", run_name="__main__")
    said[script] = out.getvalue()
with open(answers, "w") as file:
    json.dump(said, file)
"""


@pytest.fixture(scope="module")
def seed_home(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """The home of the store that the scripts write to."""
    return copy_store(template, tmp_path_factory.mktemp("seed") / "home")


@pytest.fixture(scope="module")
def said(seed_home: Path) -> dict[str, str]:
    """What each script has printed; one process for all, because each would import MLflow anew."""
    answers = seed_home.parent / "said.json"
    ended = run_plain(_CHAIN, str(FOLDER), str(answers), *EXPECTED, env=environment(seed_home), cwd=seed_home.parent)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, str] = json.loads(answers.read_text())
    return found


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a script; MLflow takes the requirements it knows instead of finding them out."""
    return {
        "INTELLIGENTSCAN_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "0",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


def test_every_script_is_run_here_and_has_its_line_in_the_differences() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py")}
    assert scripts - {"data", "aiprod_api", "hackathon_plugin"} == set(EXPECTED)
    told = (FOLDER / "DIFFERENCES.md").read_text()
    assert [name for name in scripts if f"`{name}.py`" not in told] == []
    assert [told.index(f"| `{name}.py` |") for name in EXPECTED] == sorted(
        told.index(f"| `{n}.py` |") for n in EXPECTED
    )


@pytest.mark.parametrize("script", EXPECTED)
def test_a_script_of_the_seed_does_what_its_snippet_does(script: str, said: dict[str, str]) -> None:
    assert EXPECTED[script].replace(r"\n", "\n") in said[script]


def test_what_the_scripts_did_is_in_plain_mlflow(seed_home: Path, said: dict[str, str]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=Settings(home=seed_home).store_uri)

    def runs(experiment: str) -> dict[str, Any]:
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}

    attempts = runs("Fraud Detection Model")
    assert {name: run.data.params for name, run in attempts.items()} == {
        "random_forest_v1": {"algorithm": "RandomForest", "n_estimators": "100"},
        "xgboost_v1": {"algorithm": "XGBoost", "n_estimators": "100"},
    }
    assert all(run.data.metrics["accuracy"] > 0.8 for run in attempts.values())
    assert {name: json.loads(run.data.tags[TAG]) for name, run in attempts.items()} == {
        "random_forest_v1": {"list": 1, "types": ["sklearn.tree._tree.Tree"]},
        "xgboost_v1": {"list": 1, "types": ["xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"]},
    }
    assert [run.data.params for run in runs("/team-awesome/fraud-detection-v2").values()] == [
        {"attempt": "the next iteration"}
    ]
    assert len(runs("/team-awesome/fraud-detection-v1")) == 1
    (scan,) = runs("vulnerability_scanning").values()
    assert scan.data.params["scanner_version"] == "1.0.0"
    assert scan.data.metrics["vulnerabilities_found"] > scan.data.metrics["critical_count"] > 0
    assert [file.path for file in client.list_artifacts(scan.info.run_id)] == ["report.json"]
    stages = {m.name: m.latest_versions[0].current_stage for m in client.search_registered_models()}
    assert stages == {
        "fraud_detector_production": "Production",
        "my_model": "None",
        "my_model_of_the_plugin": "None",
        "team_awesome_fraud_detector": "Production",
    }


def test_plain_mlflow_is_refused_where_the_differences_say_so(said: dict[str, str]) -> None:
    stages, locked = said["governed_stages"], said["locked_experiment"]
    assert "plain register_model: " in stages
    assert "PROMOTION_REQUIRED" in stages
    assert "continue in '/team-awesome/fraud-detection-v2'" in locked


def test_the_sealed_model_names_the_types_that_it_needs(seed_home: Path, said: dict[str, str]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=Settings(home=seed_home).store_uri)
    sealed = Path(client.get_model_version("team_awesome_fraud_detector", "1").source.removeprefix("file://"))
    assert (seed_home / "archive") in sealed.parents
    needed = yaml.safe_load((sealed / "MLmodel").read_text())["flavors"]["sklearn"]["skops_trusted_types"]
    assert needed == ["xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"]


def test_nothing_is_on_the_list_that_no_tree_and_no_xgboost_model_needs() -> None:
    import skops.io
    import xgboost
    from sklearn import ensemble, tree
    from sklearn.datasets import make_classification

    features, labels = make_classification(60, 5, random_state=7)
    voters = [("a", tree.DecisionTreeClassifier()), ("b", ensemble.RandomForestClassifier(2))]
    models = [
        tree.DecisionTreeClassifier(),
        tree.DecisionTreeRegressor(),
        tree.ExtraTreeClassifier(),
        ensemble.RandomForestClassifier(3),
        ensemble.RandomForestRegressor(3),
        ensemble.ExtraTreesClassifier(3),
        ensemble.GradientBoostingClassifier(n_estimators=3),
        ensemble.HistGradientBoostingClassifier(max_iter=3),
        ensemble.HistGradientBoostingRegressor(max_iter=3),
        ensemble.IsolationForest(n_estimators=3),
        ensemble.AdaBoostClassifier(n_estimators=3),
        ensemble.BaggingClassifier(n_estimators=3),
        ensemble.VotingClassifier(voters),
        ensemble.StackingClassifier(voters),
        xgboost.XGBClassifier(n_estimators=3),
        xgboost.XGBRegressor(n_estimators=3),
        xgboost.XGBRFClassifier(n_estimators=3),
        xgboost.XGBRFRegressor(n_estimators=3),
    ]
    needed = {t for m in models for t in skops.io.get_untrusted_types(data=skops.io.dumps(m.fit(features, labels)))}
    ranker = xgboost.XGBRanker(n_estimators=3).fit(features, labels, group=[30, 30])
    needed |= set(skops.io.get_untrusted_types(data=skops.io.dumps(ranker)))
    assert needed == TRUSTED_TYPES


_OUTSIDE = """
import json, sys
import intelligentscan, mlflow
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

X, y = make_classification(60, 5, random_state=7)

class OfOnesOwn(RandomForestClassifier):
    pass

def logged(*models, **more):
    with mlflow.start_run() as run:
        for model in models:
            try:
                mlflow.sklearn.log_model(model.fit(X, y), "model", pip_requirements=["scikit-learn"], **more)
            except mlflow.MlflowException as refused:
                return str(refused)
    return mlflow.get_run(run.info.run_id).data.tags.get("intelligentscan.trusted_types")

mlflow.set_experiment("trust")
without = logged(RandomForestClassifier(2))
intelligentscan.use()
intelligentscan.use()
print(json.dumps([
    without,
    logged(RandomForestClassifier(2)),
    logged(XGBClassifier(n_estimators=2), DecisionTreeClassifier()),
    logged(OfOnesOwn(2)),
    logged(LogisticRegression()),
    logged(DecisionTreeClassifier(), skops_trusted_types=["sklearn.tree._tree.Tree"]),
    logged(DecisionTreeClassifier(), serialization_format="cloudpickle"),
    logged(DecisionTreeClassifier(), skops_trusted_types=["no.such.Type"]),
]))
"""
REFUSED = "The saved sklearn model references untrusted types"


def test_a_tree_is_taken_after_use_and_a_type_outside_the_list_is_still_refused_by_mlflow(home: Path) -> None:
    ended = run_plain(_OUTSIDE, env=environment(home, MLFLOW_TRACKING_URI=Settings(home=home).store_uri))

    assert ended.returncode == 0, ended.stderr[-2000:]
    without, forest, several, own, regression, told, pickled, told_wrong = json.loads(ended.stdout.splitlines()[-1])
    assert without.startswith(REFUSED)
    assert json.loads(forest) == {"list": 1, "types": ["sklearn.tree._tree.Tree"]}
    assert json.loads(several) == {
        "list": 1,
        "types": ["sklearn.tree._tree.Tree", "xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"],
    }
    assert own.startswith(REFUSED)
    assert "['__main__.OfOnesOwn', 'sklearn.tree._tree.Tree']" in own
    assert told_wrong.startswith(REFUSED)
    assert (regression, told, pickled) == (None, None, None)


def test_the_helper_has_the_functions_themselves_and_refuses_a_team_server() -> None:
    helper = intelligentscan.AIModelHelper()
    for name in ("create_experiment", "log_scan_run", "compare_runs", "register_model", "promote"):
        function: Callable[..., Any] = getattr(helper, name)
        assert function is getattr(intelligentscan, name)
    for given in ({"url": "https://team.example"}, {"token": "t"}):
        with pytest.raises(InvalidArgument) as caught:
            intelligentscan.AIModelHelper(**given)
        assert "MLFLOW_TRACKING_URI" in str(caught.value.next)
