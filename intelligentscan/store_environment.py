"""The environment variables of MLflow: those that point plain MLflow at our store, and those for our own processes."""

from collections.abc import MutableMapping

from intelligentscan.settings import Settings, sqlite_path, sqlite_uri

_SERVERS = ("http://", "https://", "databricks")
_TAME = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # MLflow takes alembic's level from here too, whose migration lines would fill the first start.
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def exports(settings: Settings) -> dict[str, str]:
    """Return the variables to set: for MLflow's client, and for `mlflow ui` and `mlflow server`."""
    store = settings.store_uri
    registry = settings.registry_uri
    if registry is None and not store.startswith("databricks"):  # there, MLflow chooses Unity Catalog itself
        registry = store
    if registry is not None and (path := sqlite_path(registry)) is not None:
        registry = sqlite_uri(path)
    variables = {"MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"}
    if registry is not None:
        variables["MLFLOW_REGISTRY_URI"] = registry
    if not is_server(store):
        variables |= {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_REGISTRY_STORE_URI": registry or store}
    if settings.artifact_root:
        variables |= {
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.artifact_root,
            # The client takes the root for new experiments from here; without it, from the working directory.
            "_MLFLOW_SERVER_ARTIFACT_ROOT": settings.artifact_root,
        }
    return variables


def is_server(uri: str) -> bool:
    """Tell whether a tracking URI names a server, which has a UI of its own; any other store `mlflow ui` can open."""
    return uri.startswith(_SERVERS)


def tame_mlflow(environ: MutableMapping[str, str]) -> None:
    """Make MLflow quiet and quick to give up, in processes of ours; call it before MLflow is imported.

    By default its HTTP client tries for several minutes and it writes to stderr. What is set already stays: scripts
    and notebooks keep MLflow's own defaults, and whoever wants more patience sets it.
    """
    for name, value in _TAME.items():
        environ.setdefault(name, value)
