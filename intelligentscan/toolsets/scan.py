"""The toolset `scan`: vulnerability scans and their findings."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from intelligentscan.domain.names import MAX_NAME
from intelligentscan.domain.scan import FindingList, FindingState, ScanRun
from intelligentscan.domain.severity import Severity
from intelligentscan.toolsets.answer import fitting
from intelligentscan.toolsets.arguments import (
    MAX_PATH,
    Baseline,
    Cursor,
    ExperimentChoice,
    ExperimentRef,
    IdempotencyKey,
    Limit,
    Metrics,
    Params,
    Path,
    RunRef,
    Tags,
    Texts,
)
from intelligentscan.toolsets.toolset import Toolset, resource, tool

Ctx = Context[Any, Any]


class Scan(Toolset):
    """Scans of source code: run, import, list findings."""

    name = "scan"

    @tool(title="Scan for vulnerabilities", rest="list_findings pages through the findings")
    async def scan_vulnerabilities(
        self,
        repo_path: Annotated[Path, Field(description="Folder inside an allowed root.")],
        ctx: Ctx,
        experiment: Annotated[
            str | None,
            Field(
                max_length=MAX_NAME,
                description="Experiment name or id; default vulnerability_scanning.",
            ),
        ] = None,
        engines: Annotated[
            Texts | None,
            Field(description="Default bandit, ruff; by name if installed: ast-grep, hadolint, zizmor, semgrep …"),
        ] = None,
        config: Annotated[
            str | None,
            Field(
                max_length=MAX_PATH,
                description="Scanning configuration (YAML file), instead of engines.",
            ),
        ] = None,
        baseline: Baseline = None,
        idempotency_key: IdempotencyKey = None,
    ) -> ScanRun:
        """Scan source code of a repository or folder for security vulnerabilities (bandit, ruff).

        Logs counts, worst findings, coverage and a report as a run; runs no code of the target. For results
        of other scanners use log_scan_run.
        """

        async def progress(share: float, text: str) -> None:
            await ctx.report_progress(share, 1.0, text)

        return await self.services.scans.scan(
            repo_path,
            experiment=experiment,
            engines=engines,
            config=config,
            baseline=baseline,
            idempotency_key=idempotency_key,
            progress=progress,
        )

    @tool(title="Log scan run", rest="list_findings pages through the findings")
    async def log_scan_run(
        self,
        experiment: ExperimentRef,
        sarif_path: Annotated[
            str | None, Field(max_length=MAX_PATH, description="SARIF 2.1.0 file in an allowed root.")
        ] = None,
        sarif: Annotated[dict[str, Any] | None, Field(description="SARIF 2.1.0 log as JSON.")] = None,
        findings: Annotated[
            list[dict[str, Any]] | None,
            Field(max_length=10_000, description="Plain findings: {rule, severity, message, path, line}."),
        ] = None,
        repo_path: Annotated[str | None, Field(max_length=MAX_PATH, description="Scanned folder.")] = None,
        scanner: Annotated[str | None, Field(max_length=MAX_NAME, description="Scanner name.")] = None,
        scanner_version: Annotated[str | None, Field(max_length=100, description="Its version.")] = None,
        params: Params = None,
        metrics: Metrics = None,
        tags: Tags = None,
        baseline: Baseline = None,
        idempotency_key: IdempotencyKey = None,
    ) -> ScanRun:
        """Import vulnerability scan results of any scanner (CodeQL, Trivy, Semgrep, Snyk) as a run.

        Takes exactly one of sarif_path, sarif, findings; counts, ranks, reports and compares them. To scan
        code now use scan_vulnerabilities.
        """
        return await self.services.scans.log(
            experiment,
            sarif_path=sarif_path,
            sarif=sarif,
            findings=findings,
            repo_path=repo_path,
            scanner=scanner,
            scanner_version=scanner_version,
            params=params,
            metrics=metrics,
            tags=tags,
            baseline=baseline,
            idempotency_key=idempotency_key,
        )

    @tool(title="List findings", read_only=True, idempotent=True)
    async def list_findings(
        self,
        run_id: RunRef,
        experiment: ExperimentChoice = None,
        severity: Annotated[Severity | None, Field(description="Only this severity.")] = None,
        state: Annotated[FindingState | None, Field(description="Only this state.")] = None,
        rule: Annotated[str | None, Field(max_length=200, description="Only this rule id.")] = None,
        path: Annotated[str | None, Field(max_length=MAX_PATH, description="Only at or under this path.")] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> FindingList:
        """List findings (vulnerabilities, issues) of one scan: rule, severity, file and line, worst first.

        Filter by severity (critical), state (new, fixed), rule or path. For counts of several scans use
        compare_runs. Changes nothing.
        """
        return await fitting(
            lambda rows: self.services.scans.findings(
                run_id,
                experiment=experiment,
                severity=severity,
                state=state,
                rule=rule,
                path=path,
                limit=rows,
                cursor=cursor,
            ),
            limit,
        )

    @resource(uri="intelligentscan://runs/{run_id}/report", title="Scan report", mime_type="text/markdown")
    async def report(self, run_id: str) -> str:
        """Report of a scan run as Markdown; untrusted text in it."""
        return await self.services.runs.artifact_text(run_id, "report/report.md")

    @resource(uri="intelligentscan://runs/{run_id}/sarif", title="SARIF log", mime_type="application/json")
    async def sarif(self, run_id: str) -> str:
        """All findings of a scan run as SARIF 2.1.0; untrusted text in it."""
        return await self.services.runs.artifact_text(run_id, "sarif/combined.sarif")
