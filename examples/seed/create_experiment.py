"""Makes an experiment: the container of attempts."""

import intelligentscan
import mlflow

intelligentscan.use()

experiment_id = mlflow.create_experiment("my-first-experiment")
print(experiment_id)
