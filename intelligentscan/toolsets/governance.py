"""The toolset `governance`: reviews, what happened and what was live, and whether everything is as it was recorded."""

from typing import Annotated, Any

from pydantic import Field

from intelligentscan.domain.history import History
from intelligentscan.domain.integrity import IntegrityReport
from intelligentscan.domain.names import MAX_NAME
from intelligentscan.domain.people import Product
from intelligentscan.domain.review import ReviewRequest
from intelligentscan.toolsets.answer import fitting
from intelligentscan.toolsets.arguments import Cursor, Description, Limit, ModelName, Texts, Version, VersionChoice
from intelligentscan.toolsets.toolset import Toolset, tool

MAX_LIVE = 50
"""Most versions that one answer names per stage."""

ModelChoice = Annotated[str | None, Field(max_length=MAX_NAME, description="Only this model.")]


class Governance(Toolset):
    """The audit trail and the checks against it."""

    name = "governance"

    @tool(title="Request review", idempotent=True)
    async def request_review(
        self,
        name: ModelName,
        version: Version,
        evidence: Annotated[
            dict[str, Any] | None,
            Field(description="Text by criterion: accuracy, safety, bias, risks, documentation."),
        ] = None,
    ) -> ReviewRequest:
        """Ask the committee (MRMC) for approval of a sealed version, which Production needs; people decide.

        Gathers what the run proves and lists missing evidence; then a person runs next, then promote.
        """
        return await self.services.reviews.request(name, version, evidence)

    @tool(title="Get history", read_only=True, idempotent=True, rest="call get_history with name")
    async def get_history(
        self,
        name: ModelChoice = None,
        version: VersionChoice = None,
        at: Annotated[str | None, Field(max_length=40, description="Day or RFC 3339 time; default now.")] = None,
        actor: Annotated[str | None, Field(max_length=MAX_NAME, description="Only by this person.")] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> History:
        """Audit trail: who registered, promoted or changed a version, when, why and on which evidence.

        Also which version was live in Production on a date. For versions as they are now use get_model. Changes
        nothing.
        """

        async def page(rows: int) -> History:
            found = await self.services.history.get(
                name=name, version=version, at=at, actor=actor, limit=rows, cursor=cursor
            )
            return _bounded(found)

        return await fitting(page, limit)

    @tool(title="Verify integrity", read_only=True, idempotent=True, rest="call verify_integrity with name and version")
    async def verify_integrity(self, name: ModelChoice = None, version: VersionChoice = None) -> IntegrityReport:
        """Check that sealed versions, locked experiments, stages, guards and audit trail are untouched.

        Hashes the sealed files again; finds tampering, drift and corruption. For who did what use get_history.
        Changes nothing.
        """
        return await self.services.integrity.verify(name, version)

    @tool(title="Onboard product", idempotent=True, by_default=False)
    async def onboard_product(
        self,
        name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="AI product name.")],
        description: Description = None,
        developers: Annotated[Texts | None, Field(description="Accounts of who builds it.")] = None,
    ) -> Product:
        """Onboard an AI product, so that people get roles in it; the caller becomes its owner.

        Repeating returns it as it is, or adds developers. Owners, reviewers and tier are an administrator's act.
        Then name it as product in create_experiment and register_model.
        """
        return await self.services.people.onboard(name, description, developers or ())


def _bounded(found: History) -> History:
    """Return a page whose live versions leave room for its events."""
    over = {stage: len(rows) for stage, rows in found.live.items() if len(rows) > MAX_LIVE}
    if not over:
        return found
    cut = [f"{stage} shows {MAX_LIVE} of {count:,}; call get_history with name" for stage, count in over.items()]
    return found.model_copy(
        update={
            "live": {stage: rows[:MAX_LIVE] for stage, rows in found.live.items()},
            "notes": [*found.notes, *cut],
        }
    )
