"""Logs one attempt: its parameter, its metric and its model."""

import intelligentscan
import mlflow
from sklearn.ensemble import RandomForestClassifier

from data import X_test, X_train, y_test, y_train

intelligentscan.use()
mlflow.set_experiment("my-first-experiment")

with mlflow.start_run():
    model = RandomForestClassifier(n_estimators=100)
    model.fit(X_train, y_train)

    mlflow.log_param("n_estimators", 100)

    accuracy = model.score(X_test, y_test)
    mlflow.log_metric("accuracy", accuracy)

    mlflow.sklearn.log_model(model, "random_forest_model")

# The same without a context manager: then somebody must end it.
run = mlflow.start_run()
mlflow.log_param("max_depth", 10)
mlflow.end_run()

print(f"accuracy {accuracy:.2f}")
