"""IntelligentScan: track, compare, register and govern MLflow runs, models and scans by conversation."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AIModelHelper",
    "compare_runs",
    "create_experiment",
    "get_history",
    "log_scan_run",
    "promote",
    "register_model",
    "request_review",
    "use",
    "verify_integrity",
]

_HOMES = {"AIModelHelper": "intelligentscan.plugin"}

if TYPE_CHECKING:
    from intelligentscan.api import (
        compare_runs,
        create_experiment,
        get_history,
        log_scan_run,
        promote,
        register_model,
        request_review,
        use,
        verify_integrity,
    )
    from intelligentscan.plugin import AIModelHelper


def __getattr__(name: str) -> Any:
    """Import the Python face when one of its names is first used: the server does not need it."""
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "intelligentscan.api")), name)
    raise AttributeError(f"module 'intelligentscan' has no attribute {name!r}")
