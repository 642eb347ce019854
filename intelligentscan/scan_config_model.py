"""A scanning configuration as an MLflow pyfunc model: a data frame of paths in, one row per finding out.

MLflow loads it by the name of this module and the path of its YAML file; nothing is unpickled, and
`mlflow` itself is not needed here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.from_thread

from intelligentscan.scanners.config import FINDING_COLUMNS, ScanConfig
from intelligentscan.scanners.scan import scan_folder

if TYPE_CHECKING:
    import pandas as pd


class ScanConfigModel:
    """Scans each given folder with one configuration."""

    def __init__(self, config: ScanConfig) -> None:
        self.config = config

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Return the open findings of every folder in the column `repo_path`.

        Raises:
            PathNotFound: a folder does not exist.
            NothingToScan: a folder holds nothing that an engine takes.
        """
        import pandas as pd

        rows: list[dict[str, object]] = []
        with anyio.from_thread.start_blocking_portal() as portal:
            for repo_path in model_input["repo_path"]:
                report = portal.call(scan_folder, Path(str(repo_path)).resolve(), self.config)
                rows += [
                    {
                        "repo_path": str(repo_path),
                        "rule": finding.rule,
                        "engine": finding.engine,
                        "severity": finding.severity,
                        "path": finding.path or "",
                        "line": finding.line or 0,
                        "message": finding.message,
                        "fingerprint": finding.fingerprint,
                    }
                    for finding in report.findings
                    if finding.counts
                ]
        return pd.DataFrame(rows, columns=list(FINDING_COLUMNS)).astype({"line": "int64"})


def _load_pyfunc(data_path: str) -> ScanConfigModel:
    """Load the model; MLflow calls this with the path of the logged YAML file."""
    return ScanConfigModel(ScanConfig.from_yaml(Path(data_path).read_text(encoding="utf-8")))
