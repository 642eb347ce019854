"""The helper object for scripts that keep one: the verbs of the Python face, bound to one place."""

from intelligentscan import api
from intelligentscan.domain.errors import InvalidArgument


class AIModelHelper:
    """Tracks, compares, registers and promotes; each method is the function of the same name.

    Args:
        url: address of a team server. Without it, everything goes to the store of the settings.
        token: what a team server knows the caller by.

    Raises:
        InvalidArgument: a team server was named; this release has no client for one.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        if url is not None or token is not None:
            raise InvalidArgument(
                "AIModelHelper works on the store of the settings; it cannot speak to a team server yet.",
                next="leave url and token out, and set MLFLOW_TRACKING_URI to choose another store.",
            )

    create_experiment = staticmethod(api.create_experiment)
    log_scan_run = staticmethod(api.log_scan_run)
    compare_runs = staticmethod(api.compare_runs)
    register_model = staticmethod(api.register_model)
    promote = staticmethod(api.promote)
    get_history = staticmethod(api.get_history)
    verify_integrity = staticmethod(api.verify_integrity)
