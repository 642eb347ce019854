"""The toolset `registry`: registered models, their versions and stages."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import InputRequiredResult
from pydantic import Field

from intelligentscan.domain.names import MAX_DESCRIPTION
from intelligentscan.domain.plan import Consent
from intelligentscan.domain.registry import ModelDetails, PromotionDecision, RegisteredVersion, stage_from
from intelligentscan.toolsets.answer import fitting
from intelligentscan.toolsets.arguments import (
    Confirm,
    Cursor,
    Description,
    DryRun,
    Limit,
    ModelName,
    Product,
    Tags,
    Version,
    VersionChoice,
)
from intelligentscan.toolsets.confirmation import Asked, confirmed
from intelligentscan.toolsets.toolset import Toolset, tool


class Registry(Toolset):
    """The model registry: register, show, promote."""

    name = "registry"

    @tool(title="Register model", idempotent=True)
    async def register_model(
        self,
        ctx: Context[Any, Any],
        name: ModelName,
        run_id: Annotated[
            str | None,
            Field(min_length=32, max_length=32, description="Full id of a finished run."),
        ] = None,
        model_uri: Annotated[str | None, Field(max_length=2000, description="Instead: runs:/ or models:/ URI.")] = None,
        model_path: Annotated[
            str | None, Field(max_length=500, description="Which model, if the run has several.")
        ] = None,
        description: Description = None,
        tags: Tags = None,
        product: Product = None,
        use_case: Annotated[str | None, Field(max_length=MAX_DESCRIPTION, description="What it is for.")] = None,
        abandon_running: Annotated[bool, Field(description="End runs idle for 24 h.")] = False,
        dry_run: DryRun = False,
        confirm: Confirm = None,
    ) -> RegisteredVersion | InputRequiredResult:
        """Register the model of a finished run as a new, sealed version in the model registry.

        Locks the run's experiment for everybody; go on in next_experiment. A scan run gives its scanning
        configuration and stays open. Repeating returns the same version. Then use promote.
        """
        given: dict[str, Any] = {
            "run_id": run_id,
            "model_uri": model_uri,
            "model_path": model_path,
            "description": description,
            "tags": tags,
            "product": product,
            "use_case": use_case,
            "abandon_running": abandon_running,
        }

        async def act(consent: str | Consent | None, dry_run: bool = False) -> RegisteredVersion:
            return await self.services.registry.register(name, **given, dry_run=dry_run, confirm=consent)

        if dry_run:
            return await act(confirm, dry_run=True)
        asked = Asked(
            "register_model",
            {"name": name, **given},
            preview=lambda: act(None, dry_run=True),
            called_for=lambda planned: planned.seal_event is None,
            act=act,
        )
        return await confirmed(ctx, self.services, asked, confirm)

    @tool(title="Get model", read_only=True, idempotent=True)
    async def get_model(
        self,
        name: ModelName,
        version: VersionChoice = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> ModelDetails:
        """Show a registered model: versions with stage, aliases, source run, seal, reason and review.

        Tells the version that is live in Staging or Production now; to move one use promote. Changes nothing.
        """
        return await fitting(
            lambda rows: self.services.registry.get(name, version=version, limit=rows, cursor=cursor), limit
        )

    @tool(title="Promote model version", destructive=True, idempotent=True)
    async def promote(
        self,
        ctx: Context[Any, Any],
        name: ModelName,
        version: Version,
        to: Annotated[
            str,
            Field(
                description="Target stage.",
                json_schema_extra={"enum": ["Staging", "Production", "Archived"]},
            ),
        ],
        reason: Annotated[str | None, Field(max_length=1000, description="Why; required for Production.")] = None,
        dry_run: DryRun = False,
        confirm: Confirm = None,
    ) -> PromotionDecision | InputRequiredResult:
        """Promote, deploy, roll back or archive a model version: move it to Staging, Production or Archived.

        Refused unless every gate passes; dry_run shows them. Moves alias challenger or champion too; what was in
        Production is archived as previous. New versions: register_model.
        """
        given: dict[str, Any] = {"name": name, "version": version, "to": to, "reason": reason}

        async def act(consent: str | Consent | None, dry_run: bool = False) -> PromotionDecision:
            return await self.services.registry.promote(**given, dry_run=dry_run, confirm=consent)

        if dry_run or stage_from(to) != "Production":
            return await act(confirm, dry_run)
        asked = Asked(
            "promote",
            given,
            preview=lambda: act(None, dry_run=True),
            # What a gate refuses, or what is there already, needs nobody's yes.
            called_for=lambda planned: planned.status == "would_promote" and planned.changed,
            act=act,
        )
        return await confirmed(ctx, self.services, asked, confirm)
