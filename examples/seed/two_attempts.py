"""Tries two algorithms in one experiment, as steps 1 and 2 of the workflow do."""

import intelligentscan
import mlflow
from sklearn.ensemble import RandomForestClassifier
from xgboost import XGBClassifier

from data import X_test, X_train, y_test, y_train

intelligentscan.use()

experiment_name = "Fraud Detection Model"
experiment_id = mlflow.create_experiment(experiment_name)
mlflow.set_experiment(experiment_name)

with mlflow.start_run(run_name="random_forest_v1"):
    model = RandomForestClassifier(n_estimators=100)
    model.fit(X_train, y_train)

    mlflow.log_param("algorithm", "RandomForest")
    mlflow.log_param("n_estimators", 100)

    accuracy = model.score(X_test, y_test)
    mlflow.log_metric("accuracy", accuracy)

    mlflow.sklearn.log_model(model, "model")

with mlflow.start_run(run_name="xgboost_v1"):
    model = XGBClassifier(n_estimators=100)
    model.fit(X_train, y_train)

    mlflow.log_param("algorithm", "XGBoost")
    mlflow.log_param("n_estimators", 100)

    accuracy = model.score(X_test, y_test)
    mlflow.log_metric("accuracy", accuracy)

    mlflow.sklearn.log_model(model, "model")

# Step 3, comparing, is done in the UI by clicking; here is the same table as text.
print(intelligentscan.compare_runs(experiment=experiment_name).summary)
