"""The pattern of the transcript: make an experiment, train, log, remember the run's id, register."""

import intelligentscan
import mlflow
from sklearn.ensemble import RandomForestClassifier

from data import X_train, y_train

intelligentscan.use()

experiment_id = mlflow.create_experiment("my_experiment")

with mlflow.start_run(experiment_id=experiment_id):
    model = RandomForestClassifier(max_depth=10, n_estimators=100)
    model.fit(X_train, y_train)

    mlflow.log_param("max_depth", 10)
    mlflow.log_param("n_estimators", 100)
    mlflow.sklearn.log_model(model, "model")

    run_id = mlflow.active_run().info.run_id

model_uri = f"runs:/{run_id}/model"
mlflow.register_model(model_uri, "my_model")
