"""Whether what is stored is still what was sealed, locked and recorded."""

from typing import Annotated

from pydantic import Field

from intelligentscan.domain.noun import Noun
from intelligentscan.domain.registry import Enforcement


class Problem(Noun):
    """One thing that is not as it was recorded.

    `code` is stable: GUARD, CHAIN, RECORD, ROWS, BYTES, FILES, ALIAS, STAGE, SOURCE, QUARANTINED, UNVERIFIED,
    RETENTION, LEGACY or TWIN.
    """

    code: str
    what: Annotated[str, Field(description="Untrusted text.")]
    where: str | None = None
    next: str | None = None


class IntegrityReport(Noun):
    """The answer of `verify_integrity`."""

    ok: bool
    checked: Annotated[dict[str, int], Field(description="How many of what were checked.")]
    problems: Annotated[list[Problem], Field(description="code, what, where, next; texts untrusted.")]
    problems_total: int
    enforcement: Enforcement
    notes: list[str] = []
