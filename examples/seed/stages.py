"""Moves a version through the stages with plain MLflow, as step 5 does, while the model is nobody's but MLflow's."""

import intelligentscan
from mlflow.tracking import MlflowClient

intelligentscan.use()
client = MlflowClient()

client.transition_model_version_stage(
    name="fraud_detector_production",
    version=1,
    stage="Staging",
)

client.transition_model_version_stage(
    name="fraud_detector_production",
    version=1,
    stage="Production",
)

print(client.get_model_version("fraud_detector_production", "1").current_stage)
