"""`review`: the committee's side. People look at the evidence here and decide; no tool of an agent can."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

from intelligentscan._paths import read_own
from intelligentscan.cli import people
from intelligentscan.cli.confirmation import Reason, Yes, asks, confirm
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import (
    Json,
    answer,
    aside,
    clock,
    counted,
    facts_table,
    plain_table,
    print_json,
    print_next,
)
from intelligentscan.cli.wording import for_people
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.review import (
    CRITERIA,
    DecisionMade,
    ReviewDetails,
    ReviewRequest,
    ReviewStatus,
    Verdict,
)

if TYPE_CHECKING:
    from intelligentscan._ssh_signature import PrivateKey

review = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
review.command("enrol")(people.enrol)
review.command("keys")(people.keys)
review.command("retire-key")(people.retire_key)
_MAX_FILE = 20 * 2**20
_SHOWN_ID = 12
_SHOWN_VALUE = 160
_STYLE: dict[ReviewStatus, str] = {"approved": "bold green", "open": "bold yellow", "superseded": "dim"}

ReviewId = Annotated[str, typer.Argument(metavar="ID", help="Id of the review, or at least 6 characters of it.")]
Key = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Your private key, enrolled before; it signs at once.")
]
Signature = Annotated[
    Path | None, typer.Option("--signature", metavar="FILE", help="What ssh-keygen -Y sign wrote for --statement.")
]


@review.command("list")
@reported
def review_list(
    status: Annotated[
        str | None, typer.Option(help="open, approved, rejected, revoked, expired or superseded.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only this registered model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most rows.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the last list ended.")] = None,
    json: Json = False,
) -> None:
    """List reviews, the newest first."""
    wanted = _status(status)
    found = on_services(lambda services: services.reviews.list(wanted, name, limit, cursor))
    if json:
        print_json(found)
        return
    table = plain_table("review", "state", "model", "approvals", "asked by", "at")
    for row in found.reviews:
        table.add_row(
            row.review_id[:_SHOWN_ID],
            Text(row.status, style=_STYLE.get(row.status, "bold red")),
            f"{row.name} {row.version}",
            f"{row.approvals} of {row.quorum}",
            row.requester,
            clock(row.at),
        )
    answer().print(table if found.reviews else Text("no reviews", style="dim"))
    if found.next_cursor:
        print_next(f"the next page: --cursor {found.next_cursor}")


@review.command("show")
@reported
def review_show(
    review_id: ReviewId,
    statement: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICT", help="Print the bytes to sign for approve, reject or revoke, and nothing else."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show a review: evidence per criterion, what is missing, decisions."""
    if statement is not None:
        verdict = _verdict(statement)
        data = on_services(lambda services: services.reviews.statement(review_id, verdict))
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    found = on_services(lambda services: services.reviews.show(review_id))
    if json:
        print_json(found)
    else:
        _print_review(found)


@review.command("request")
@reported
def review_request(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered model.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number of the version.")],
    evidence: Annotated[
        list[str] | None,
        typer.Option("--evidence", metavar="CRITERION=TEXT", help="Evidence for a criterion; repeat it for more."),
    ] = None,
    json: Json = False,
) -> None:
    """Ask for a review of a sealed version."""
    given = _evidence(evidence or [])
    made = on_services(lambda services: services.reviews.request(name, version, given), doing="Putting together")
    if json:
        print_json(made)
    else:
        _print_request(made)


@review.command("approve")
@reported
def review_approve(
    review_id: ReviewId,
    reason: Reason,
    key: Key = None,
    signature: Signature = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Approve: these bytes, on this evidence, under this policy."""
    _decide(review_id, "approve", reason, key, signature, yes, json)


@review.command("reject")
@reported
def review_reject(
    review_id: ReviewId,
    reason: Reason,
    key: Key = None,
    signature: Signature = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Reject: the version needs another review, with other evidence."""
    _decide(review_id, "reject", reason, key, signature, yes, json)


@review.command("revoke")
@reported
def review_revoke(
    decision: Annotated[str, typer.Argument(metavar="ID", help="Id of the review, or of one decision.")],
    reason: Reason,
    key: Key = None,
    signature: Signature = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take approvals back; the version is no longer approved."""
    confirm(["What is taken back no longer counts; the version stays where it is until somebody moves it."], yes=yes)
    own, brought = _key(key), _signature(signature)
    made = on_services(
        lambda services: services.reviews.revoke(decision, reason, key=own, signature=brought), doing="Recording"
    )
    _print_decision(made, json)


@review.command("attest")
@reported
def review_attest(
    review_id: ReviewId,
    criterion: Annotated[str, typer.Argument(metavar="CRITERION", help=", ".join(CRITERIA))],
    text: Annotated[str | None, typer.Option("--text", help="What you vouch for.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A document; kept in the archive.")
    ] = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Vouch for a criterion of an open review."""
    own, document = _key(key), _bytes(file, "--file") if file is not None else None
    found = on_services(
        lambda services: services.reviews.attest(review_id, criterion, text=text, file=document, key=own),
        doing="Recording",
    )
    if json:
        print_json(found)
        return
    line = f"✓ attested {criterion} of {found.name} version {found.version}"
    answer().print(Text(line, style="bold green"), soft_wrap=True)
    _print_missing(found.missing)


def _decide(
    review_id: str, verdict: Verdict, reason: str, key: Path | None, signature: Path | None, yes: bool, json: bool
) -> None:
    if asks(yes=yes):
        found = on_services(lambda services: services.reviews.show(review_id))
        lacking = [f"Missing: {for_people(missing)}." for missing in found.missing]
        confirm([f"You {verdict} {found.name} version {found.version} (review {found.review_id}).", *lacking], yes=yes)
    own, brought = _key(key), _signature(signature)
    made = on_services(
        lambda services: services.reviews.decide(review_id, verdict, reason, key=own, signature=brought),
        doing="Recording",
    )
    _print_decision(made, json)


def _key(path: Path | None) -> "PrivateKey | None":
    return people.private_key_of(path) if path is not None else None


def _signature(path: Path | None) -> str | None:
    return _bytes(path, "--signature").decode("utf-8", "replace") if path is not None else None


def _bytes(path: Path, option: str) -> bytes:
    return read_own(str(path), _MAX_FILE, argument=option)


def _status(text: str | None) -> ReviewStatus | None:
    known = ("open", "approved", "rejected", "revoked", "expired", "superseded")
    if text is None or text in known:
        return cast("ReviewStatus | None", text)
    raise InvalidArgument("There is no such state of a review.", next=f"choose from: {', '.join(known)}.")


def _verdict(text: str) -> Verdict:
    if text in ("approve", "reject", "revoke"):
        return cast("Verdict", text)
    raise InvalidArgument("There is no such verdict.", next="call again with --statement approve, reject or revoke.")


def _evidence(given: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in given:
        criterion, mark, text = each.partition("=")
        if not mark or criterion not in CRITERIA:
            raise InvalidArgument(
                "Evidence is given as CRITERION=TEXT.", next=f"name one of: {', '.join(CRITERIA)}; bias='…' for one."
            )
        if criterion in found:
            raise InvalidArgument(
                f"There are two texts for {criterion}, and one of them would be lost.",
                next=f"put them into one: --evidence {criterion}='…'.",
            )
        found[criterion] = text
    return found


def _print_review(found: ReviewDetails) -> None:
    console = answer()
    style = _STYLE.get(found.status, "bold red")
    console.print(Text(f"{found.name} version {found.version}: {found.status}", style=style), soft_wrap=True)
    facts = [
        ("review", f"{found.review_id} (event {found.event})"),
        ("asked by", found.requester),
        ("run made by", f"{found.run_author}, as the run says" if found.run_author else "not said"),
        ("policy", f"{found.policy}: {found.approvals} of {found.quorum} approvals"),
        ("four eyes", "not yet decided" if found.four_eyes is None else "yes" if found.four_eyes else "no"),
        ("counts until", clock(found.valid_until)),
        ("sealed bytes", found.manifest_digest),
        ("evidence", found.dossier_digest),
    ]
    console.print(facts_table(facts))
    for criterion in CRITERIA:
        items = [item for item in found.evidence if item.criterion == criterion]
        console.print(Text(f"\n{criterion}", style="bold"), Text(counted(len(items), "fact"), style="dim"))
        for item in items:
            value = str(item.value)
            shown = value if len(value) <= _SHOWN_VALUE else f"{value[:_SHOWN_VALUE]}…"
            line = Text(f"  {item.what}: {shown}").append(f"  [{item.origin}]", style="dim")
            console.print(line, soft_wrap=True)
    _print_missing(found.missing)
    if found.decisions:
        console.print(Text("\ndecisions", style="bold"))
    for row in found.decisions:
        counts = "" if row.counts else ", does not count"
        why = f": {row.reason}" if row.reason else ""
        said = f"  {clock(row.at)}  {row.person} ({row.proof}{counts})  {row.verdict}{why}"
        console.print(Text(said, style="default" if row.counts else "dim"), soft_wrap=True)
    for note in found.notes:
        console.print(Text(for_people(note), style="dim"), soft_wrap=True)


def _print_request(made: ReviewRequest) -> None:
    console = answer()
    what = "requested" if made.created else "was requested before"
    console.print(Text(f"✓ review {made.review_id} {what}: {made.status}", style="bold green"), soft_wrap=True)
    console.print(
        facts_table([(criterion, counted(made.evidence.get(criterion, 0), "fact")) for criterion in CRITERIA])
    )
    _print_missing(made.missing)
    print_next(made.next)


def _print_missing(missing: list[str]) -> None:
    if missing:
        aside().print(Text("missing", style="bold yellow"))
    for each in missing:
        aside().print(Text(f"  {for_people(each)}"), soft_wrap=True)


def _print_decision(made: DecisionMade, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    console = answer()
    done = {"approve": "approved", "reject": "rejected", "revoke": "took back"}[made.verdict]
    line = f"✓ {made.person} {done} {made.name} version {made.version} ({made.proof}, event {made.event})"
    console.print(Text(line, style="bold green"), soft_wrap=True)
    console.print(facts_table([("review", made.review_status), ("four eyes", "yes" if made.four_eyes else "no")]))
    for note in made.notes:
        console.print(Text(for_people(note), style="dim"), soft_wrap=True)
    if made.review_status == "approved":
        print_next(f"intelligentscan promote {made.name} {made.version} --to Production --reason …")


__all__ = ["review"]
