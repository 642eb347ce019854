"""The one error tree; every face translates it, and anything outside it is a bug.

IntelligentScanError
├── InvalidArgument            INVALID_ARGUMENT
│   ├── EngineMissing          ENGINE_MISSING
│   ├── InvalidName            INVALID_NAME
│   ├── InvalidFilter          INVALID_FILTER
│   ├── InvalidCursor          INVALID_CURSOR
│   ├── TooLarge               TOO_LARGE
│   └── SarifInvalid           SARIF_INVALID
├── PathRefused                PATH_NOT_ALLOWED
│   ├── PathNotFound           PATH_NOT_FOUND
│   ├── WrongPathKind          WRONG_PATH_KIND
│   └── PathUnreadable         PATH_UNREADABLE
├── NotFound                   NOT_FOUND
│   ├── ExperimentNotFound     EXPERIMENT_NOT_FOUND
│   ├── ExperimentDeleted      EXPERIMENT_DELETED
│   ├── RunNotFound            RUN_NOT_FOUND
│   ├── AmbiguousRun           AMBIGUOUS_RUN
│   ├── ModelNotFound          MODEL_NOT_FOUND
│   ├── VersionNotFound        VERSION_NOT_FOUND
│   ├── ArtifactNotFound       ARTIFACT_NOT_FOUND
│   ├── ReviewNotFound         REVIEW_NOT_FOUND
│   └── UnknownTool            UNKNOWN_TOOL
├── Refused                    REFUSED
│   ├── IdempotencyConflict    IDEMPOTENCY_CONFLICT
│   ├── ValueConflict          VALUE_CONFLICT
│   ├── RunNotFinished         RUN_NOT_FINISHED
│   ├── NoModel                NO_MODEL
│   ├── NothingToScan          NOTHING_TO_SCAN
│   ├── ReadOnly               READ_ONLY
│   ├── ExperimentLocked       EXPERIMENT_LOCKED
│   ├── DefaultExperiment      DEFAULT_EXPERIMENT
│   ├── StillRunning           STILL_RUNNING
│   ├── BytesChanged           BYTES_CHANGED
│   ├── NotPermitted           NOT_PERMITTED
│   ├── ReviewClosed           REVIEW_CLOSED
│   ├── ReviewIncomplete       REVIEW_INCOMPLETE
│   ├── SignatureInvalid       SIGNATURE_INVALID
│   ├── PlanInvalid            PLAN_INVALID
│   ├── Declined               DECLINED
│   ├── VersionSealed          VERSION_SEALED
│   ├── NotGoverned            NOT_GOVERNED
│   ├── GatesFailed            GATES_FAILED
│   └── GovernanceUnready      GOVERNANCE_UNREADY
│       ├── NotAdopted         NOT_ADOPTED
│       ├── GuardsBroken       GUARDS_BROKEN
│       ├── TrailBroken        TRAIL_BROKEN
│       └── KeyUnavailable     KEY_UNAVAILABLE
├── ScanFailed                 SCAN_FAILED
└── StoreError                 STORE_REFUSED
    ├── StoreUnavailable       STORE_UNAVAILABLE
    └── StoreBroken            STORE_BROKEN
"""

from typing import ClassVar

from intelligentscan._credential_forms import without_credentials


class IntelligentScanError(Exception):
    """A refusal or failure that a person or an agent can act upon.

    Attributes:
        code: stable upper-case identifier of the class.
        message: the fact, in one or two sentences.
        next: what to do next; names a tool and argument, a command or a setting.
        details: machine-readable facts, JSON-serialisable.
    """

    code: ClassVar[str] = "ERROR"

    def __init__(self, message: str, *, next: str = "", details: dict[str, object] | None = None) -> None:
        # What a caller gave may be repeated here, and what is raised ends up in logs and answers.
        self.message = without_credentials(message)
        super().__init__(self.message)
        self.next = without_credentials(next)
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.message} Next: {self.next}" if self.next else self.message


class InvalidArgument(IntelligentScanError):
    """An argument is outside what the call accepts."""

    code = "INVALID_ARGUMENT"


class EngineMissing(InvalidArgument):
    """A scan asks for an engine that is not installed."""

    code = "ENGINE_MISSING"


class InvalidName(InvalidArgument):
    """A name has characters or a length that MLflow or our rules do not take."""

    code = "INVALID_NAME"


class InvalidFilter(InvalidArgument):
    """A search filter or an ordering is not MLflow's filter language."""

    code = "INVALID_FILTER"


class InvalidCursor(InvalidArgument):
    """A cursor was not made by the call it was given to."""

    code = "INVALID_CURSOR"


class TooLarge(InvalidArgument):
    """A value or a count is over its bound."""

    code = "TOO_LARGE"


class SarifInvalid(InvalidArgument):
    """A document is not SARIF 2.1.0."""

    code = "SARIF_INVALID"


class PathRefused(IntelligentScanError):
    """A path lies outside the allowed roots, or is of a kind that is always refused."""

    code = "PATH_NOT_ALLOWED"


class PathNotFound(PathRefused):
    """A path inside the allowed roots does not exist."""

    code = "PATH_NOT_FOUND"


class WrongPathKind(PathRefused):
    """A file where a folder is needed, a folder where a file is needed, or something special."""

    code = "WRONG_PATH_KIND"


class PathUnreadable(PathRefused):
    """A path cannot be read by this user."""

    code = "PATH_UNREADABLE"


class NotFound(IntelligentScanError):
    """Something that was named does not exist."""

    code = "NOT_FOUND"


class ExperimentNotFound(NotFound):
    """No experiment has this name or id."""

    code = "EXPERIMENT_NOT_FOUND"


class ExperimentDeleted(NotFound):
    """The experiment exists but was soft-deleted."""

    code = "EXPERIMENT_DELETED"


class RunNotFound(NotFound):
    """No run has this id, or the experiment has no run yet."""

    code = "RUN_NOT_FOUND"


class AmbiguousRun(NotFound):
    """A run prefix fits more than one run."""

    code = "AMBIGUOUS_RUN"


class ModelNotFound(NotFound):
    """No registered model has this name."""

    code = "MODEL_NOT_FOUND"


class VersionNotFound(NotFound):
    """The registered model has no such version."""

    code = "VERSION_NOT_FOUND"


class ArtifactNotFound(NotFound):
    """The run has no such artifact."""

    code = "ARTIFACT_NOT_FOUND"


class UnknownTool(NotFound):
    """The server publishes no tool of this name."""

    code = "UNKNOWN_TOOL"


class Refused(IntelligentScanError):
    """The call is well formed but the state of things forbids it."""

    code = "REFUSED"


class IdempotencyConflict(Refused):
    """An idempotency key came back with other arguments."""

    code = "IDEMPOTENCY_CONFLICT"


class ValueConflict(Refused):
    """A param was logged before with another value."""

    code = "VALUE_CONFLICT"


class RunNotFinished(Refused):
    """The run is still running, failed or was deleted."""

    code = "RUN_NOT_FINISHED"


class NoModel(Refused):
    """The run has no model that could be registered."""

    code = "NO_MODEL"


class NothingToScan(Refused):
    """The target holds no file that an engine can analyse."""

    code = "NOTHING_TO_SCAN"


class ReadOnly(Refused):
    """The server runs in read-only mode."""

    code = "READ_ONLY"


class ExperimentLocked(Refused):
    """The experiment was closed by a registration; nothing in it changes any more."""

    code = "EXPERIMENT_LOCKED"


class DefaultExperiment(Refused):
    """MLflow's default experiment belongs to everybody and is never locked."""

    code = "DEFAULT_EXPERIMENT"


class StillRunning(Refused):
    """Another run of the experiment has not ended; its writer would meet the lock."""

    code = "STILL_RUNNING"


class BytesChanged(Refused):
    """The model's files changed while they were copied into the archive."""

    code = "BYTES_CHANGED"


class NotPermitted(Refused):
    """This account may not do it on this store."""

    code = "NOT_PERMITTED"


class ReviewNotFound(NotFound):
    """There is no review with this id."""

    code = "REVIEW_NOT_FOUND"


class ReviewClosed(Refused):
    """The review was decided, replaced or has expired; it takes no more decisions."""

    code = "REVIEW_CLOSED"


class ReviewIncomplete(Refused):
    """The policy in force wants evidence for every criterion before a review is approved."""

    code = "REVIEW_INCOMPLETE"


class SignatureInvalid(Refused):
    """The signature does not belong to the statement, or its key is not enrolled."""

    code = "SIGNATURE_INVALID"


class PlanInvalid(Refused):
    """The plan is unknown, another person's, for other arguments, declined, used or expired; or the state has moved."""

    code = "PLAN_INVALID"


class Declined(Refused):
    """The person who was asked said no."""

    code = "DECLINED"


class VersionSealed(Refused):
    """A governed model, version or reserved alias does not change in this way."""

    code = "VERSION_SEALED"


class NotGoverned(Refused):
    """The model was registered by plain MLflow and never adopted."""

    code = "NOT_GOVERNED"


class GatesFailed(Refused):
    """A promotion check does not pass; `details.gates` names each."""

    code = "GATES_FAILED"


class GovernanceUnready(Refused):
    """Governed acts are refused until the store is put in order."""

    code = "GOVERNANCE_UNREADY"


class NotAdopted(GovernanceUnready):
    """The store has no governance tables yet."""

    code = "NOT_ADOPTED"


class GuardsBroken(GovernanceUnready):
    """Guards are missing, changed, foreign, or do not cover the schema."""

    code = "GUARDS_BROKEN"


class TrailBroken(GovernanceUnready):
    """The audit trail does not verify."""

    code = "TRAIL_BROKEN"


class KeyUnavailable(GovernanceUnready):
    """This account cannot read the key that signs the trail."""

    code = "KEY_UNAVAILABLE"


class ScanFailed(IntelligentScanError):
    """No engine could complete; nothing was learned about the target."""

    code = "SCAN_FAILED"


class StoreError(IntelligentScanError):
    """The tracking store answered with a refusal of its own."""

    code = "STORE_REFUSED"


class StoreUnavailable(StoreError):
    """The tracking store did not answer within the deadline."""

    code = "STORE_UNAVAILABLE"


class StoreBroken(StoreError):
    """The store's files or schema cannot be used as they are."""

    code = "STORE_BROKEN"
