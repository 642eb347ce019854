"""Gates on our scan of the code that a model came from: nothing serious open, and everything recent enough."""

from intelligentscan.domain.policy import GateName
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.interface import Evidence, Rules
from intelligentscan.gates.outcome import another_run, does_not_apply, failed, missing, passed, too_weak

_DAY_MS = 86_400_000
_CLOCK_SKEW_MS = _DAY_MS
"""A time that lies further ahead than this was not told by a clock."""

_FROM_COMMIT = "a run of a Git checkout (or with params {'git.commit': …})"
_MAX_COMMIT = 64


class NoOpenFindings:
    """Did a complete scan of ours find nothing critical or high in exactly the code that made the model?"""

    name: GateName = "no_open_findings"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Pass a complete scan by our own engines of the run's commit, made from a clean working tree."""
        if not evidence.code_version:
            return missing(self.name, f"the run names no commit; {another_run(evidence, _FROM_COMMIT)}")
        commit = untrusted(evidence.code_version, _MAX_COMMIT)
        scan = evidence.scan
        if scan is None:
            return missing(self.name, f"we have not scanned commit {commit}; call {_scan(commit)}")
        which = f"our scan {untrusted(scan.run_id, _MAX_COMMIT)} of commit {commit}"
        if not scan.clean:
            return failed(self.name, f"{which} saw changes that are not committed; call {_scan(commit)}")
        if not scan.complete:
            return failed(
                self.name,
                f"{which} is not complete, or the repository has submodules, whose commits a scan does not know; "
                f"call {_scan(commit)} and see its coverage",
            )
        if scan.critical != 0 or scan.high != 0:
            return failed(
                self.name,
                f"{which} has {scan.critical} critical and {scan.high} high findings open; list_findings "
                f"run_id='{untrusted(scan.run_id, _MAX_COMMIT)}', mend and commit, then "
                f"{another_run(evidence, 'a run of that commit')}",
            )
        if scan.suppressed and rules.settings.refuse_suppressed:
            return failed(
                self.name,
                f"{which} has {scan.suppressed} critical or high findings that comments silence, and the policy "
                f"counts them; mend and commit, then {another_run(evidence, 'a run of that commit')}",
            )
        silenced = f", {scan.suppressed} silenced by comments (list_findings state='suppressed')"
        return passed(self.name, f"{which} is complete: nothing critical or high{silenced if scan.suppressed else ''}")


class Fresh:
    """Are the run and the scan recent enough?"""

    name: GateName = "fresh"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Fail what is older than the policy allows, or dated in the future."""
        days, commit = rules.settings.max_age_days, untrusted(evidence.code_version or "", _MAX_COMMIT)
        if days is None:
            return does_not_apply(self.name, "the policy names no age")
        if evidence.ended is None:
            return missing(self.name, f"it is not known when the run ended; {another_run(evidence, 'a new run')}")
        if wrong := _age_problem(evidence.now - evidence.ended, days):
            return failed(self.name, f"the run {wrong}; {another_run(evidence, 'a new run')}", evidence.lineage_origin)
        if evidence.scan is None:
            return missing(self.name, f"there is no scan of ours; call {_scan(commit)}")
        if wrong := _age_problem(evidence.now - evidence.scan.at, days):
            return failed(self.name, f"the scan {wrong}; call {_scan(commit)}")
        if weak := too_weak(self.name, evidence.lineage_origin, rules, "times of the run"):
            return weak
        return passed(self.name, f"run and scan are not older than {days} days", evidence.lineage_origin)


def _age_problem(age: int, days: int) -> str | None:
    if age < -_CLOCK_SKEW_MS:
        return "is dated in the future"
    if age > days * _DAY_MS:
        return f"is more than {days} days old"
    return None


def _scan(commit: str) -> str:
    return f"scan_vulnerabilities on a clean checkout of {commit or 'its commit'}"
