"""The same with the plugin's helper object."""

import intelligentscan
import mlflow
from sklearn.ensemble import RandomForestClassifier

from data import X_train, y_train
from hackathon_plugin import AIModelHelper

intelligentscan.use()

helper = AIModelHelper()
helper.create_experiment("my_exp")

mlflow.set_experiment("my_exp")
with mlflow.start_run() as run:
    model = RandomForestClassifier(n_estimators=100).fit(X_train, y_train)
    mlflow.sklearn.log_model(model, "model")
run_id = run.info.run_id

print(helper.register_model(run_id, "my_model_of_the_plugin"))
