"""After a registration the experiment is locked: the next run in it is refused, and work goes on in the next one."""

import intelligentscan
import mlflow
from mlflow.exceptions import MlflowException

intelligentscan.use()

mlflow.set_experiment("/team-awesome/fraud-detection-v1")
try:
    with mlflow.start_run():
        mlflow.log_param("attempt", "one too many")
except MlflowException as refused:
    print(refused)
else:
    raise SystemExit("the experiment was not locked")

mlflow.set_experiment("/team-awesome/fraud-detection-v2")
with mlflow.start_run():
    mlflow.log_param("attempt", "the next iteration")
print("going on in /team-awesome/fraud-detection-v2")
