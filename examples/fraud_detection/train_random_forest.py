"""The first team member's attempt: a random forest. `python train_random_forest.py FILE.csv` prints the run's id."""

import mlflow
import training
from sklearn.ensemble import RandomForestClassifier

import intelligentscan

PARAMS = {"n_estimators": 100, "max_depth": 10, "random_state": 7}


def main() -> None:
    """Train it and log everything."""
    chosen = training.options("Train a random forest on the transactions.")
    intelligentscan.use()
    mlflow.set_experiment(chosen.experiment)
    with mlflow.start_run(run_name="rf_attempt_1") as run:
        data = training.load(chosen.data)
        mlflow.log_param("algorithm", "RandomForest")
        mlflow.log_params(PARAMS)
        model = RandomForestClassifier(**PARAMS)
        with training.measured():
            model.fit(data.train[training.FEATURES], data.train[training.LABEL])
        training.log_evaluation(model, data)
        training.log_the_model(model, data)
    print(run.info.run_id)  # noqa: T201 - the caller reads it


if __name__ == "__main__":
    main()
