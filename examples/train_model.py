"""A training script as anybody writes it: plain MLflow and scikit-learn, not a word of IntelligentScan.

`intelligentscan run -- python examples/train_model.py --experiment NAME` runs it on the store that the
assistant uses, so that the next question in the chat can be about its runs.
"""

import argparse
from typing import Any

import mlflow
import sklearn
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def split() -> Any:
    """Return features and labels, 70 % to train with and 30 % held out, always the same."""
    data = load_breast_cancer(as_frame=True)
    return train_test_split(data.data, data.target, test_size=0.3, random_state=7)


def main() -> None:
    """Train one model for each strength and log it; print the runs' ids."""
    parser = argparse.ArgumentParser(description="Train small classifiers and log them.")
    parser.add_argument("--experiment", default="training")
    parser.add_argument("--strength", type=float, nargs="+", default=[1.0], help="inverse of the regularisation")
    options = parser.parse_args()

    mlflow.set_experiment(options.experiment)
    for strength in options.strength:
        print(train(strength))  # noqa: T201 - the caller reads it


def train(strength: float) -> str:
    """Train a model and log it; return its run's id."""
    x_train, x_test, y_train, y_test = split()
    with mlflow.start_run(run_name=f"logistic-C{strength:g}") as run:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        model.fit(x_train, y_train)
        predicted = model.predict(x_test)
        mlflow.log_param("algorithm", "LogisticRegression")
        mlflow.log_param("C", strength)
        mlflow.log_metric("accuracy", accuracy_score(y_test, predicted))
        mlflow.log_metric("f1_score", f1_score(y_test, predicted))
        pinned = [f"scikit-learn=={sklearn.__version__}"]
        mlflow.sklearn.log_model(model, name="model", input_example=x_test.head(2), pip_requirements=pinned)
    run_id: str = run.info.run_id
    return run_id


if __name__ == "__main__":
    main()
