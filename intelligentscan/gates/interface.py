"""What a gate is: a pure check of evidence that passes, fails, or does not apply."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from intelligentscan.domain.people import Tier
from intelligentscan.domain.policy import GateName, GateSettings, ModelRules, ReviewRules
from intelligentscan.domain.registry import GateResult, Stage
from intelligentscan.domain.review import Origin, Proof, ReviewStatus


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval of a review that was not revoked.

    Attributes:
        person: principal id of the reviewer.
        name: their name, for texts.
        proof: whether an enrolled key signed the decision.
        account: principal id of the account at which the decision was made.
        until: when it expires, in ms since the epoch.
    """

    person: str
    name: str
    proof: Proof
    account: str
    until: int


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """The newest review of a version.

    Attributes:
        review_id: its id.
        status: its state now.
        same_bytes: whether it was made for the bytes that are sealed now.
        same_policy: whether it was made under the policy in force.
        requester: principal id of who asked for it.
        missing: criteria without any evidence or attestation.
        approvals: those that were not revoked, expired ones too.
        withdrawn: whether this version was rejected, or an approval of it revoked, and it was not approved since.
    """

    review_id: str
    status: ReviewStatus
    same_bytes: bool
    same_policy: bool
    requester: str
    missing: tuple[str, ...]
    approvals: tuple[Approval, ...]
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """The newest scan that we made ourselves of the code that a run came from; time in ms since the epoch.

    Attributes:
        critical: open findings of this severity.
        high: open findings of this severity.
        suppressed: critical and high findings that a comment in the code silences.
    """

    run_id: str
    at: int
    clean: bool
    complete: bool
    critical: int
    high: int
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class Champion:
    """The version in Production, or failing one the last that was; and the metrics of its run."""

    version: int
    metrics: Mapping[str, float]
    live: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts on which a promotion is decided. What is missing is None or empty, and fails the gate that needs it.

    Attributes:
        name: the registered model.
        version: the version to promote.
        stage: where it is to go.
        sealed: whether it was registered through the service identity, its bytes in the archive.
        legacy: whether it was there before the model was governed.
        verified: whether the sealed copy was hashed again after its registration.
        quarantined: whether it was ever found changed.
        drift: what no longer matches the record, in short texts.
        now: the time of the decision in ms since the epoch.
        tier: which gates apply.
        rollback: whether the version was in Production right before the present one.
        metrics: last values of the run's metrics.
        metrics_origin: who measured them.
        champion: what it would replace.
        review: the newest review of the version.
        requesters: principal ids of who asked for the registration.
        run_author: the author that the run names; unverified.
        scan: the newest scan by us of the same commit.
        code_version: the commit that the run names.
        data: digests of the datasets that the run has logged.
        lineage_origin: who says so.
        signature: whether the sealed model declares its inputs and outputs.
        input_example: whether the sealed model holds an example of its input.
        card: fields of the model card that are filled.
        ended: when the run ended, in ms since the epoch.
        evaluation: id of the evaluation that this configuration has won; None as long as there is none.
    """

    name: str
    version: int
    stage: Stage
    sealed: bool
    legacy: bool
    verified: bool
    quarantined: bool
    drift: tuple[str, ...]
    now: int = 0
    tier: Tier = "standard"
    rollback: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    metrics_origin: Origin = "self-reported"
    champion: Champion | None = None
    review: ReviewFacts | None = None
    requesters: tuple[str, ...] = ()
    run_author: str | None = None
    scan: ScanFacts | None = None
    code_version: str | None = None
    data: tuple[str, ...] = ()
    lineage_origin: Origin = "self-reported"
    signature: bool = False
    input_example: bool = False
    card: tuple[str, ...] = ()
    ended: int | None = None
    evaluation: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the policy in force says to one gate for one model."""

    settings: GateSettings
    review: ReviewRules
    model: ModelRules


class Gate(Protocol):
    """One promotion check."""

    name: GateName

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Return the outcome; missing evidence fails."""
        ...
