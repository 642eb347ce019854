"""Registers through the bridge: the run is checked, its model copied and sealed, its experiment locked."""

import intelligentscan
import mlflow
from xgboost import XGBClassifier

from aiprod_api import create_experiment, register_model
from data import X_test, X_train, y_test, y_train

intelligentscan.use()

experiment_id = create_experiment("/team-awesome/fraud-detection-v1")

with mlflow.start_run(experiment_id=str(experiment_id), run_name="xgb_attempt_1") as run:
    model = XGBClassifier(n_estimators=200, learning_rate=0.1)
    model.fit(X_train, y_train)
    mlflow.log_metric("accuracy", model.score(X_test, y_test))
    mlflow.sklearn.log_model(model, "model")

best_run_id = run.info.run_id

model_info = register_model(
    run_id=best_run_id,
    model_name="team_awesome_fraud_detector",
    description="XGBoost model, the better one of two",
)

print(f"Model registered: {model_info}")
