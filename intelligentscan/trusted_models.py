"""The types that `use()` lets MLflow write into scikit-learn models: a numbered list, and a record of its use.

MLflow writes scikit-learn models in the skops format, reads each back at once, and refuses every type that
skops does not hold harmless unless the caller names it in `skops_trusted_types`. That refuses every decision
tree and every XGBoost model, of which those types are a part. They are not harmless in a file of a stranger:
neither the nodes of a tree nor the bytes of a booster are checked when they are read. What this process has
trained itself is no stranger's; whoever loads the model later trusts the same types, by name, because MLflow
keeps them in its `MLmodel` file.
"""

import functools
import importlib
import json
import os
from collections.abc import Callable
from typing import Any

TRUST_LIST = 1
"""Number of this list; another list has another number, and the tag of a run names the one that it was made with."""
TRUSTED_TYPES = frozenset(
    {
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",  # the named estimators of an ensemble that votes or stacks
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRFClassifier",
        "xgboost.sklearn.XGBRFRegressor",
        "xgboost.sklearn.XGBRanker",
        "xgboost.sklearn.XGBRegressor",
    }
)
TAG = "intelligentscan.trusted_types"
"""Tag of the run: JSON with the number of the list and the types that its models needed of it."""
_SKOPS = "skops"
_MARK = "_intelligentscan_trust_list"


def trust_known_types() -> None:
    """Let plain `mlflow.sklearn.log_model(model, "model")` write models of these types, in this process only.

    MLflow has no setting for it, so its public `save_model`, which `log_model` calls, is wrapped: the argument
    is filled in where the caller has left it out. A model that needs any other type is passed on as it came,
    and MLflow refuses it in its own words.
    """
    flavor: Any = importlib.import_module("mlflow.sklearn")
    if not hasattr(flavor.save_model, _MARK):
        flavor.save_model = _trusting(flavor.save_model)


def _trusting(save_model: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(save_model)
    def trusting(sk_model: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        types = None
        if not args and kwargs.get("skops_trusted_types") is None and _is_skops(kwargs.get("serialization_format")):
            types = _needed(sk_model)
        if not types:
            return save_model(sk_model, path, *args, **kwargs)
        done = save_model(sk_model, path, **{**kwargs, "skops_trusted_types": types})
        if run_id := getattr(kwargs.get("mlflow_model"), "run_id", None):
            _record(run_id, types)
        return done

    setattr(trusting, _MARK, TRUST_LIST)
    return trusting


def _is_skops(chosen: str | None) -> bool:
    if chosen is not None:
        return chosen == _SKOPS
    import mlflow

    # There, MLflow writes another format unless told otherwise.
    return not (mlflow.get_tracking_uri().startswith("databricks") or "DATABRICKS_RUNTIME_VERSION" in os.environ)


def _needed(model: Any) -> list[str]:
    """Return the types of the list that a model needs; none if it needs no others, or some that are not listed."""
    skops: Any = importlib.import_module("skops.io")
    try:
        asked = set(skops.get_untrusted_types(data=skops.dumps(model)))
    except Exception:  # whatever it is: MLflow meets it too, and says it in its own words
        return []
    return sorted(asked) if asked <= TRUSTED_TYPES else []


def _record(run_id: str, types: list[str]) -> None:
    """Write into the run which types were trusted, together with those of its other models."""
    from mlflow import MlflowClient

    client = MlflowClient()
    before = client.get_run(run_id).data.tags.get(TAG)
    try:
        known = json.loads(before)["types"] if before else []
    except (ValueError, TypeError, KeyError):  # somebody else's text
        known = []
    client.set_tag(run_id, TAG, json.dumps({"list": TRUST_LIST, "types": sorted({*known, *types})}))
