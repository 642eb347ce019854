"""MLflow's tracking and registry stores, and how they are opened."""
