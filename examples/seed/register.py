"""Registers the best run's model by its `runs:/` URI, as step 4 does with plain MLflow."""

import intelligentscan
import mlflow

intelligentscan.use()

compared = intelligentscan.compare_runs(experiment="Fraud Detection Model")
best_run_id = next(metric.best_run_id for metric in compared.metrics if metric.key == "accuracy")

model_uri = f"runs:/{best_run_id}/model"
model_name = "fraud_detector_production"

mlflow.register_model(
    model_uri=model_uri,
    name=model_name,
)
