"""The environment that points plain MLflow (scripts, notebooks, `mlflow ui`) at our store."""

from intelligentscan.settings import Settings


def exports(settings: Settings) -> dict[str, str]:
    """Return the variables to set: for MLflow's client, and for `mlflow ui` and `mlflow server`."""
    store = settings.store_uri
    registry = settings.registry_uri or store
    variables = {"MLFLOW_TRACKING_URI": store, "MLFLOW_REGISTRY_URI": registry, "MLFLOW_DISABLE_TELEMETRY": "true"}
    if settings.is_sqlite and settings.artifact_root:
        variables |= {
            "MLFLOW_BACKEND_STORE_URI": store,
            "MLFLOW_REGISTRY_STORE_URI": registry,
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.artifact_root,
            # The client takes the root for new experiments from here; without it, from the working directory.
            "_MLFLOW_SERVER_ARTIFACT_ROOT": settings.artifact_root,
        }
    return variables
