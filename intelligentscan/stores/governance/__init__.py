"""The governance database: append-only, signed, chained records beside MLflow's tables."""
