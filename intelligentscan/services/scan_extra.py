"""What a caller logs beside a scan: params, metrics and tags, checked, and free of the scan's secrets."""

from dataclasses import dataclass, field

from intelligentscan._credential_forms import REDACTED, is_secret_name
from intelligentscan.domain import names
from intelligentscan.scanners.secret_text import Secrets


@dataclass(frozen=True, slots=True)
class Extra:
    """Params, metrics and tags of a caller."""

    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def checked(
        params: dict[str, object] | None, metrics: dict[str, float] | None, tags: dict[str, object] | None
    ) -> "Extra":
        """Return them as they are stored, but for the scan's secrets.

        Raises:
            InvalidName: a key is not allowed, or holds a credential.
            InvalidArgument: a value is not allowed.
            TooLarge: there are too many, or a value is too long.
        """
        return Extra(names.params(params), names.metrics(metrics), names.tags(tags))

    def without(self, secrets: Secrets) -> "Extra":
        """Return them without credentials and without the values that the scan's findings report."""
        return Extra(
            {key: _safe(key, value, secrets) for key, value in self.params.items()},
            self.metrics,
            {key: _safe(key, value, secrets) for key, value in self.tags.items()},
        )


def _safe(key: str, value: str, secrets: Secrets) -> str:
    if is_secret_name(key) and any(c.isalpha() for c in value) and value.lower() not in ("true", "false", "none"):
        return REDACTED
    return secrets.redact(value)
