"""Gates on whether a version is what was registered."""

from intelligentscan.domain.policy import GateName
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.interface import Evidence, Rules

_MEASURED = "measured by us"


class Sealed:
    """Was the version registered through the service, with its bytes in the archive?"""

    name: GateName = "sealed"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Pass a sealed version; a legacy one fails."""
        if evidence.sealed:
            return GateResult(gate=self.name, outcome="pass", detail="sealed copy in the archive", origin=_MEASURED)
        what = "legacy, unreviewed: it was there before the model was governed" if evidence.legacy else "never sealed"
        return GateResult(
            gate=self.name,
            outcome="fail",
            detail=f"{what}; register its run with register_model name='{untrusted(evidence.name, 80)}' "
            "and promote that version",
            origin=_MEASURED,
        )


class Intact:
    """Are the sealed bytes still the ones that were registered?"""

    name: GateName = "intact"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Fail what was ever found changed."""
        if evidence.quarantined:
            return GateResult(
                gate=self.name,
                outcome="fail",
                detail="in quarantine: its bytes differ from what was sealed; register the run again with "
                f"register_model name='{untrusted(evidence.name, 80)}'",
                origin=_MEASURED,
            )
        if evidence.sealed and not evidence.verified:
            return GateResult(
                gate=self.name,
                outcome="fail",
                detail="its sealed copy was not hashed yet; call verify_integrity",
                origin=_MEASURED,
            )
        outcome = "pass" if evidence.sealed else "not_applicable"
        detail = "hashed again, nothing changed" if evidence.sealed else "not sealed"
        return GateResult(gate=self.name, outcome=outcome, detail=detail, origin=_MEASURED)


class NotDrifted:
    """Do registry, archive, experiment and guards still match the record?"""

    name: GateName = "not_drifted"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Fail while anything was changed behind our back."""
        if not evidence.drift:
            return GateResult(gate=self.name, outcome="pass", detail="everything matches the record", origin=_MEASURED)
        return self.failed(evidence.name, evidence.drift)

    @classmethod
    def failed(cls, name: str, drift: tuple[str, ...]) -> GateResult:
        """Return the outcome for what does not match."""
        shown = untrusted(name, 80)
        more = f" and {len(drift) - 3} more" if len(drift) > 3 else ""
        return GateResult(
            gate=cls.name,
            outcome="fail",
            detail=f"{'; '.join(drift[:3])}{more}; look with verify_integrity name='{shown}', then an "
            f"administrator runs 'intelligentscan reconcile {shown} --reason …'",
            origin=_MEASURED,
        )
