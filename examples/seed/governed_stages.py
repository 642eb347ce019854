"""The steps 4, 5 and 6 on the model that the bridge has registered: what plain MLflow may still do, and what not."""

import subprocess
import sys

import intelligentscan
import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from data import new_data

NAME = "team_awesome_fraud_detector"

intelligentscan.use()
client = MlflowClient()

best_run_id = client.get_model_version(NAME, "1").run_id
try:
    mlflow.register_model(model_uri=f"runs:/{best_run_id}/model", name=NAME)
except MlflowException as refused:
    print(f"plain register_model: {refused}")

client.transition_model_version_stage(name=NAME, version=1, stage="Staging")

try:
    client.transition_model_version_stage(name=NAME, version=1, stage="Production")
except MlflowException as refused:
    print(f"plain transition: {refused}")

asked = {"name": NAME, "version": 1, "stage": "Production", "reason": "the better one of two"}
decision = intelligentscan.promote(**asked)
if decision.status == "pending_review":
    print(f"review {decision.review_id} is wanted")
    approve = ["review", "approve", str(decision.review_id), "--reason", "compared on what was held out"]
    subprocess.run([sys.executable, "-m", "intelligentscan", *approve], check=True)
    decision = intelligentscan.promote(**asked)
print(f"{decision.status}: {decision.stage}, {decision.aliases}, four_eyes: {decision.four_eyes}")

model = mlflow.pyfunc.load_model(f"models:/{NAME}/Production")
print(model.predict(new_data))
