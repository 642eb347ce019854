"""What the committee and our own scans say about a version, as the gates read it."""

from sqlalchemy import and_

from intelligentscan.domain.review import ReviewStatus
from intelligentscan.gates.interface import Approval, ReviewFacts, ScanFacts
from intelligentscan.services.review_state import Review, load, reviews_of
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.vouched import VouchedRow, vouched


def review_facts(
    read: GovernanceReads,
    workspace: str,
    name: str,
    version: int,
    manifest_digest: str,
    policy_digest: str,
    now: int,
) -> ReviewFacts | None:
    """Return what the newest review of a version says, None if there never was one.

    Args:
        read: open on the governance database, in the transaction of the act that it decides.
        workspace: where the model is.
        name: the registered model.
        version: its version.
        manifest_digest: of the bytes that are sealed now.
        policy_digest: of the policy in force.
        now: the time in ms since the epoch.
    """
    reviews = reviews_of(read, workspace, name, version, now)
    if not reviews:
        return None
    newest = reviews[-1]
    return ReviewFacts(
        review_id=newest.id,
        status=newest.status,
        same_bytes=newest.row["manifest_digest"] == manifest_digest,
        same_policy=newest.row["policy_digest"] == policy_digest,
        requester=newest.row["requester"] if newest.row["requester"] in newest.names else "",
        missing=newest.missing,
        approvals=tuple(
            Approval(d.row["person"], d.name, d.row["proof"], d.row.actor, d.row["expires"]) for d in newest.approvals
        ),
        withdrawn=withdrawn(reviews),
    )


def review_statuses(read: GovernanceReads, workspace: str, name: str, now: int) -> dict[int, ReviewStatus]:
    """Return the state of the newest review of each version of a model that has one."""
    event = read.tables.event
    about = and_(event.c.workspace == workspace, event.c.name == name)
    return {r.row["version"]: r.status for r in load(read, {"workspace": workspace, "name": name}, about, now)}


def withdrawn(reviews: list[Review]) -> bool:
    """Tell whether the committee has said no to this version, by revoking or rejecting, and not yes since."""
    taken = False
    for review in reviews:
        if review.revoked or review.status == "rejected" or (review.lost and not review.reached):
            taken = True
        elif review.approvals and review.reached:
            taken = False
    return taken


def scan_facts(read: GovernanceReads, commit: str) -> ScanFacts | None:
    """Return the newest scan that we made of a commit ourselves, None if there is none."""
    best = scan_record(read, commit)
    if best is None:
        return None
    return ScanFacts(
        run_id=best["run_id"],
        at=best.at,
        clean=bool(best["clean"]),
        complete=bool(best["complete"]),
        critical=best["critical"],
        high=best["high"],
        suppressed=best["suppressed"],
    )


def scan_record(read: GovernanceReads, commit: str) -> VouchedRow | None:
    """Return the record of the newest scan that we made of a commit ourselves.

    A scan of a changed working tree, or one that did not see everything, says nothing about the commit as long as
    there is one that did.
    """
    return max(vouched(read, "scan_record", {"commit_id": commit}).rows, key=_worth, default=None)


def _worth(row: VouchedRow) -> tuple[bool, int]:
    return bool(row["clean"] and row["complete"]), row.event
