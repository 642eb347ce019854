"""What `doctor` finds: one check per thing that must be right before the first scan."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.noun import Noun

CheckStatus = Literal["ok", "note", "problem"]
Details = dict[str, str | int | bool | list[str] | None]


class Check(Noun):
    """One thing that was looked at."""

    name: str
    status: Annotated[CheckStatus, Field(description="A note is worth knowing; a problem stops something.")]
    fact: str
    next: Annotated[str | None, Field(description="What to do about it.")] = None
    details: Details = {}

    @staticmethod
    def ok(name: str, fact: str, details: Details) -> "Check":
        """Return a check that found everything in order."""
        return Check(name=name, status="ok", fact=fact, details=details)

    @staticmethod
    def note(name: str, fact: str, next: str, details: Details) -> "Check":
        """Return a check that found something worth knowing."""
        return Check(name=name, status="note", fact=fact, next=next, details=details)

    @staticmethod
    def problem(name: str, fact: str, next: str, details: Details) -> "Check":
        """Return a check that found what stops something from working."""
        return Check(name=name, status="problem", fact=fact, next=next, details=details)


class Diagnosis(Noun):
    """The state of one installation and the store it uses."""

    healthy: Annotated[bool, Field(description="False if any check is a problem.")]
    checks: list[Check]

    @staticmethod
    def of(checks: list[Check]) -> "Diagnosis":
        """Return the diagnosis that these checks give."""
        return Diagnosis(healthy=all(check.status != "problem" for check in checks), checks=checks)
