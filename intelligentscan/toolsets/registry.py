"""The toolset `registry`: registered models, their versions and stages."""

from typing import Annotated

from pydantic import Field

from intelligentscan.domain.registry import ModelDetails, PromotionDecision, RegisteredVersion
from intelligentscan.toolsets.answer import fitting
from intelligentscan.toolsets.arguments import Confirm, Cursor, Description, DryRun, Limit, ModelName, Tags
from intelligentscan.toolsets.toolset import Toolset, tool


class Registry(Toolset):
    """The model registry: register, show, promote."""

    name = "registry"

    @tool(title="Register model", idempotent=True)
    async def register_model(
        self,
        name: ModelName,
        run_id: Annotated[
            str | None,
            Field(min_length=32, max_length=32, description="Full id of the finished run, or give model_uri."),
        ] = None,
        model_uri: Annotated[
            str | None, Field(max_length=2000, description="runs:/ or models:/ URI of a logged model.")
        ] = None,
        model_path: Annotated[
            str | None, Field(max_length=500, description="Which model, if the run has several.")
        ] = None,
        description: Description = None,
        tags: Tags = None,
        dry_run: DryRun = False,
        confirm: Confirm = None,
    ) -> RegisteredVersion:
        """Register the model of a finished run: creates a new version in the model registry.

        For a scan run that is its scanning configuration. The same again returns the same version. To put it
        into a stage use promote.
        """
        return await self.services.registry.register(
            name,
            run_id=run_id,
            model_uri=model_uri,
            model_path=model_path,
            description=description,
            tags=tags,
            dry_run=dry_run,
            confirm=confirm,
        )

    @tool(title="Get model", read_only=True, idempotent=True)
    async def get_model(
        self,
        name: ModelName,
        version: Annotated[int | None, Field(ge=1, le=2**31 - 1, description="Only this version.")] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> ModelDetails:
        """Show a registered model: versions with stage, aliases, source run, reason and review.

        Tells the version that is live in Staging or Production; to move one use promote. Changes nothing.
        """
        return await fitting(
            lambda rows: self.services.registry.get(name, version=version, limit=rows, cursor=cursor), limit
        )

    @tool(title="Promote model version", destructive=True, idempotent=True)
    async def promote(
        self,
        name: ModelName,
        version: Annotated[int, Field(ge=1, le=2**31 - 1, description="Version number.")],
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
    ) -> PromotionDecision:
        """Promote, deploy, roll back or archive a model version: move it to Staging, Production or Archived.

        Moves the alias (challenger, champion) too; the version in Production before is archived as alias
        previous. New versions come from register_model.
        """
        return await self.services.registry.promote(name, version, to, reason=reason, dry_run=dry_run, confirm=confirm)
