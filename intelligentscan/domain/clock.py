"""Times as every face writes them: RFC 3339 in UTC."""

from datetime import UTC, datetime


def rfc3339(milliseconds: int | None) -> str | None:
    """Return MLflow's milliseconds since the epoch as RFC 3339 in UTC, or None."""
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
