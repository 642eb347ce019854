"""The toolset `tracking`: experiments and runs."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from intelligentscan.domain.comparison import RunComparison
from intelligentscan.domain.experiment import Experiment, ExperimentList
from intelligentscan.domain.names import MAX_NAME
from intelligentscan.domain.run import LoggedRun, RunDetails, RunList
from intelligentscan.toolsets.answer import fitting
from intelligentscan.toolsets.arguments import (
    NO_TRUTH,
    Cursor,
    Description,
    ExperimentChoice,
    ExperimentRef,
    IdempotencyKey,
    Limit,
    Metrics,
    Params,
    Path,
    Product,
    RunRef,
    Tags,
    Texts,
    one_of_one,
)
from intelligentscan.toolsets.toolset import Toolset, tool

RunName = Annotated[str | None, Field(max_length=MAX_NAME, description="Name for people.")]
EndStatus = Literal["FINISHED", "RUNNING", "FAILED", "KILLED"]


class Tracking(Toolset):
    """Experiments and runs: create, log, find, show, compare."""

    name = "tracking"

    @tool(title="Create experiment", idempotent=True)
    async def create_experiment(
        self,
        name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="Name, unique in the store.")],
        description: Description = None,
        tags: Tags = None,
        product: Product = None,
    ) -> Experiment:
        """Create an experiment: a new named group (project) to track and log runs in.

        A name that exists is returned as it is; if it is locked, go on in next_experiment. To find existing ones
        use search_experiments.
        """
        return await self.services.experiments.create(name, description=description, tags=tags, product=product)

    @tool(title="Search experiments", read_only=True, idempotent=True)
    async def search_experiments(
        self,
        query: Annotated[str | None, Field(max_length=MAX_NAME, description="Part of the name, any case.")] = None,
        product: Product = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> ExperimentList:
        """List or find experiments (projects) by part of their name or by product, latest change first.

        Use it to see the experiments there are; for runs use search_runs. Changes nothing.
        """
        return await fitting(
            lambda rows: self.services.experiments.search(query=query, product=product, limit=rows, cursor=cursor),
            limit,
        )

    @tool(title="Log run", idempotent=False)
    async def log_run(
        self,
        experiment: ExperimentRef,
        run_id: Annotated[
            str | None, Field(min_length=6, max_length=64, description="Add to this run; omit for a new run.")
        ] = None,
        run_name: RunName = None,
        params: Params = None,
        metrics: Metrics = None,
        metric_history: Annotated[
            dict[str, Any] | None,
            Field(description="Curves by metric name: [{value, step, time_ms?}]."),
        ] = None,
        tags: Tags = None,
        artifacts: Annotated[
            dict[str, Path] | None,
            Field(max_length=100, description="Artifact path -> file inside an allowed root."),
        ] = None,
        parent_run_id: Annotated[
            str | None, Field(min_length=6, max_length=64, description="Run it is part of.")
        ] = None,
        status: Annotated[EndStatus | None, Field(description="RUNNING keeps the run open; default FINISHED.")] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> LoggedRun:
        """Log a run: record params, metrics, curves, tags and artifact files of a training or evaluation.

        Finishes it unless status is RUNNING; with run_id it adds to that run or ends it. For vulnerability
        results use log_scan_run.
        """
        return await self.services.runs.log(
            experiment,
            run_id=run_id,
            run_name=run_name,
            params=params,
            metrics=metrics,
            metric_history=metric_history,
            tags=tags,
            artifacts=artifacts,
            parent_run_id=parent_run_id,
            status=status,
            idempotency_key=idempotency_key,
        )

    @tool(title="Search runs", read_only=True, idempotent=True, rest="ask for less with columns")
    async def search_runs(
        self,
        experiment: ExperimentRef,
        filter: Annotated[
            str | None,
            Field(max_length=4000, description="MLflow filter: metrics.f1 > 0.9 and params.m = 'a'."),
        ] = None,
        order_by: Annotated[Texts | None, Field(description="'metrics.f1 DESC'; default newest first.")] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
        columns: Annotated[Texts | None, Field(description="Show only these: 'params.lr', 'metrics.f1'.")] = None,
    ) -> RunList:
        """Find, filter, sort and list runs of an experiment: best by a metric, latest, failed, by param.

        For one run in full use get_run, for runs side by side compare_runs. Changes nothing.
        """
        return await fitting(
            lambda rows: self.services.runs.search(
                experiment, filter=filter, order_by=order_by, limit=rows, cursor=cursor, columns=columns
            ),
            limit,
        )

    @tool(
        title="Get run",
        read_only=True,
        idempotent=True,
        rest="search_runs with columns returns chosen params and metrics",
    )
    async def get_run(
        self,
        run_id: RunRef,
        experiment: ExperimentChoice = None,
        metric_history: Annotated[
            Texts | None, Field(max_length=10, description="Metrics whose curve to return.")
        ] = None,
    ) -> RunDetails:
        """Show one run in full: params, metrics, tags, artifacts, models, status, user, git commit, times.

        With metric_history also curves. For lists use search_runs, for vulnerabilities list_findings. Changes
        nothing.
        """
        return await self.services.runs.get(run_id, experiment=experiment, metric_history=metric_history)

    @tool(
        title="Compare runs",
        read_only=True,
        idempotent=True,
        rest="compare fewer run_ids, or name the metrics",
    )
    async def compare_runs(
        self,
        run_ids: Annotated[
            list[Annotated[str, Field(min_length=6, max_length=64)]] | None,
            Field(min_length=2, max_length=100, description="Run ids; or give experiment."),
        ] = None,
        experiment: Annotated[
            str | None, Field(max_length=MAX_NAME, description="Take runs of this experiment.")
        ] = None,
        top_k: Annotated[
            int | None, Field(ge=2, le=100, description="How many runs of the experiment."), NO_TRUTH
        ] = None,
        order_by: Annotated[
            str | None,
            BeforeValidator(one_of_one),
            Field(max_length=MAX_NAME, description="'metrics.f1 DESC'; default newest first."),
        ] = None,
        metrics: Annotated[Texts | None, Field(description="Only these metrics.")] = None,
        only_differences: Annotated[bool, Field(description="Leave out params equal in all runs.")] = True,
        response_format: Annotated[
            Literal["concise", "detailed"], Field(description="How much the summary shows.")
        ] = "concise",
    ) -> RunComparison:
        """Compare 2 to 100 runs, models or scans side by side: differences, and the BEST marked.

        Shows params, metrics, new and fixed findings. Give run_ids, or experiment with top_k for its newest or
        best. For one run use get_run. Changes nothing.
        """
        return await self.services.comparisons.compare(
            run_ids=run_ids,
            experiment=experiment,
            top_k=top_k,
            order_by=order_by,
            metrics=metrics,
            only_differences=only_differences,
            response_format=response_format,
        )
