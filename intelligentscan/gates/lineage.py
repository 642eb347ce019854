"""Gate on where a model came from: is it known from which code and which data?"""

from intelligentscan.domain.policy import GateName
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.interface import Evidence, Rules
from intelligentscan.gates.outcome import another_run, missing, passed, too_weak


class Lineage:
    """Does the run name the commit of its code and the digests of its data?"""

    name: GateName = "lineage"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Pass a run that names both."""
        lacking = []
        if not evidence.code_version:
            lacking.append("no commit (a Git checkout, or params {'git.commit': …})")
        if not any(evidence.data):
            lacking.append("no dataset (mlflow.log_input)")
        if lacking:
            return missing(
                self.name, f"the run names {' and '.join(lacking)}; {another_run(evidence, 'a run that does')}"
            )
        if weak := too_weak(self.name, evidence.lineage_origin, rules, "commit and datasets"):
            return weak
        commit = untrusted(evidence.code_version or "", 64)
        return passed(self.name, f"commit {commit}, {len(evidence.data)} datasets by digest", evidence.lineage_origin)
