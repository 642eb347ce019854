"""What both training scripts do alike: read the transactions, measure a model, and log what was measured."""

import argparse
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import pandas as pd
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import train_test_split
from transactions import FEATURES, GROUP, LABEL

mpl.use("Agg")
for remark in ("Hint: Inferred schema contains integer", "The specified dataset source can be interpreted"):
    warnings.filterwarnings("ignore", message=remark)  # no value is missing here, and it is a file

EXPERIMENT = "/team-awesome/fraud-detection-v1"
HELD_OUT = 0.3


@dataclass(frozen=True)
class Transactions:
    """Transactions to train with, and those that are held out."""

    train: pd.DataFrame
    test: pd.DataFrame


def options(description: str) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="the file that transactions.py has written")
    parser.add_argument("--experiment", default=EXPERIMENT)
    return parser.parse_args()


def load(file: Path) -> Transactions:
    """Read the transactions, split them the same way each time, and log to the run which they were."""
    table = pd.read_csv(file)
    table[FEATURES] = table[FEATURES].astype(float)
    train, test = train_test_split(table, test_size=HELD_OUT, random_state=7, stratify=table[LABEL])
    for part, context in ((train, "training"), (test, "evaluation")):
        named = f"transactions-{context}"
        mlflow.log_input(mlflow.data.from_pandas(part, source=str(file), targets=LABEL, name=named), context=context)
    return Transactions(train, test)


@contextmanager
def measured() -> Iterator[None]:
    """Log how long the training took and how much memory this process has needed so far."""
    began = time.perf_counter()
    yield
    mlflow.log_metric("training_time_s", round(time.perf_counter() - began, 3))
    unit = 2**20 if sys.platform == "darwin" else 2**10
    mlflow.log_metric("memory_mb", round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1))


def log_evaluation(model: Any, data: Transactions) -> None:
    """Log how good a model is on what was held out, in all and in each region, as numbers and as pictures."""
    import matplotlib.pyplot as plt

    truth, predicted = data.test[LABEL], model.predict(data.test[FEATURES])
    mlflow.log_metrics(
        {
            "accuracy": accuracy_score(truth, predicted),
            "precision": precision_score(truth, predicted),
            "recall": recall_score(truth, predicted),
            "f1": f1_score(truth, predicted),
            "roc_auc": roc_auc_score(truth, model.predict_proba(data.test[FEATURES])[:, 1]),
        }
    )
    for region, rows in data.test.assign(predicted=predicted).groupby(GROUP):
        mlflow.log_metric(f"recall.subgroup.{region}", recall_score(rows[LABEL], rows["predicted"], zero_division=0))

    matrix = ConfusionMatrixDisplay.from_predictions(truth, predicted, display_labels=["honest", "fraud"])
    mlflow.log_figure(matrix.figure_, "confusion_matrix.png")

    importance = pd.Series(model.feature_importances_, index=FEATURES, name="importance").sort_values()
    mlflow.log_text(importance.iloc[::-1].to_csv(index_label="feature"), "feature_importance.csv")
    figure, axes = plt.subplots(layout="constrained")
    axes.barh(importance.index, importance.to_numpy())
    axes.set_xlabel("importance")
    mlflow.log_figure(figure, "feature_importance.png")
    plt.close("all")


def log_the_model(model: Any, data: Transactions, *packages: str) -> None:
    """Log the model as `model`, with its signature, an example, and what must be installed to load it."""
    mlflow.sklearn.log_model(
        model,
        "model",
        input_example=data.train[FEATURES].head(2),
        pip_requirements=list(_installed("scikit-learn", "skops", "pandas", *packages)),
    )


def _installed(*packages: str) -> Iterator[str]:
    for package in packages:
        with suppress(PackageNotFoundError):
            yield f"{package}=={version(package)}"
