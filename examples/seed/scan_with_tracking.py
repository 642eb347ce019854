"""A scanner of one's own behind an MCP tool, tracked with plain MLflow: params, metrics, and its report as artifact."""

import json
import sys
import tempfile
from pathlib import Path

import anyio
import intelligentscan
import mlflow
from mcp import Client
from mcp.server import MCPServer

SAMPLE = Path(__file__).resolve().parents[1] / "sample_app"

mcp = MCPServer("scanner-of-ones-own")


class Findings(list[dict[str, str]]):
    """What a scan has found."""

    def count_critical(self) -> int:
        """Return how many are critical: bandit has no such rating, so here it is a grave one that it is sure of."""
        return sum(f["issue_severity"] == f["issue_confidence"] == "HIGH" for f in self)


class VulnerabilityScanner:
    """Scans Python code with bandit."""

    async def scan(self, repo_path: str) -> Findings:
        """Return the findings in a folder."""
        command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "--format", "json", repo_path]
        done = await anyio.run_process(command, check=False)
        return Findings(json.loads(done.stdout)["results"])


def generate_report(results: Findings) -> str:
    """Write the findings to a file and return its path."""
    path = Path(tempfile.mkdtemp()) / "report.json"
    path.write_text(json.dumps(results, indent=2))
    return str(path)


@mcp.tool()
async def scan_vulnerabilities(repo_path: str) -> list[dict[str, str]]:
    """Scan for vulnerabilities and track the scan as a run."""
    mlflow.set_experiment("vulnerability_scanning")

    with mlflow.start_run():
        scanner = VulnerabilityScanner()
        results = await scanner.scan(repo_path)

        mlflow.log_metric("vulnerabilities_found", len(results))
        mlflow.log_metric("critical_count", results.count_critical())

        mlflow.log_param("repo_path", repo_path)
        mlflow.log_param("scanner_version", "1.0.0")

        report_path = generate_report(results)
        mlflow.log_artifact(report_path)

    return [{"rule": f["test_id"], "file": f["filename"]} for f in results]


async def main() -> None:
    """Call the tool as an MCP client does."""
    async with Client(mcp) as client:
        answer = await client.call_tool("scan_vulnerabilities", {"repo_path": str(SAMPLE)})
    print(f"{len(answer.structured_content['result'])} findings")


intelligentscan.use()
anyio.run(main)
