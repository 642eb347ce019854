"""Gate on the evaluation of a scanning configuration, which stands in the committee's place for it."""

from intelligentscan.domain.policy import GateName
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.interface import Evidence, Rules
from intelligentscan.gates.outcome import missing, passed


class Evaluated:
    """Has this configuration won an evaluation against what is in use?"""

    name: GateName = "evaluated"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Pass a configuration that has; until evaluations exist, none has."""
        if not evidence.evaluation:
            return missing(
                self.name,
                "the configuration was not evaluated; evaluate the configuration with evaluate_scan_configs, which "
                "comes with a later release; Staging is open meanwhile",
            )
        return passed(self.name, f"evaluation {untrusted(evidence.evaluation, 64)}")
