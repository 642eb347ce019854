"""The second team member's attempt: boosted trees. `python train_xgboost.py FILE.csv` prints the run's id."""

import mlflow
import training
from xgboost import XGBClassifier

import intelligentscan

PARAMS = {"n_estimators": 200, "learning_rate": 0.1, "max_depth": 3, "random_state": 7, "n_jobs": 1}


def main() -> None:
    """Train it and log everything."""
    chosen = training.options("Train XGBoost on the transactions.")
    intelligentscan.use()
    mlflow.set_experiment(chosen.experiment)
    with mlflow.start_run(run_name="xgb_attempt_1") as run:
        data = training.load(chosen.data)
        mlflow.log_param("algorithm", "XGBoost")
        mlflow.log_params(PARAMS)
        model = XGBClassifier(**PARAMS)
        with training.measured():
            model.fit(data.train[training.FEATURES], data.train[training.LABEL])
        training.log_evaluation(model, data)
        training.log_the_model(model, data, "xgboost", "xgboost-cpu")  # the one that is there
    print(run.info.run_id)  # noqa: T201 - the caller reads it


if __name__ == "__main__":
    main()
