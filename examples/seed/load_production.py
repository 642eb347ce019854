"""Loads what is in Production and predicts with it, as step 6 does."""

import intelligentscan
import mlflow.pyfunc

from data import new_data

intelligentscan.use()

model = mlflow.pyfunc.load_model(
    model_uri="models:/fraud_detector_production/Production",
)

predictions = model.predict(new_data)
print(predictions)
