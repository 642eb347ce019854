"""`role`, `product` and the keys under `review`: who may do what, on which product, and whose signatures count."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from intelligentscan._paths import read_own
from intelligentscan.cli.confirmation import Reason, Yes, confirm
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, aside, clock, facts_table, plain_table, print_json
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.people import KnownAs, Product, ReviewerKey, Role, RoleChange, Tier
from intelligentscan.domain.text import visible

if TYPE_CHECKING:
    from intelligentscan._ssh_signature import PrivateKey

role = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
product = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
_MAX_FILE = 64 * 1024

RoleName = Annotated[Role, typer.Argument(metavar="ROLE", help="administrator, owner, developer, reviewer or auditor.")]
Who = Annotated[str, typer.Argument(metavar="WHO", help="An account of this machine, or the name of a key's holder.")]
OfProduct = Annotated[
    str | None, typer.Option("--product", metavar="PRODUCT", help="For this product; for every one if not given.")
]
Why = Annotated[str | None, typer.Option("--reason", help="Why; it is kept in the audit trail.")]
Account = Annotated[bool, typer.Option("--account", metavar="", help="WHO is an account, also of another machine.")]
KeyHolder = Annotated[bool, typer.Option("--key-holder", metavar="", help="WHO is known by an enrolled key alone.")]
ProductName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the product.")]


@role.command("grant")
@reported
def role_grant(
    role: RoleName,
    who: Who,
    product: OfProduct = None,
    reason: Why = None,
    account: Account = False,
    key_holder: KeyHolder = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Give a role; the first administrator makes themself."""
    known_as = _known_as(account, key_holder)
    will = [f"'{who}' becomes {role} of {_of(product)}."]
    if role == "administrator":
        will = [
            f"'{who}' becomes administrator, who gives and takes roles.",
            "As soon as there is one, roles decide on this store who may do what.",
        ]
    confirm(will, yes=yes)
    done = on_services(lambda s: s.people.grant(role, who, product, reason, known_as), doing="Recording")
    _print_change(done, json)


@role.command("revoke")
@reported
def role_revoke(
    role: RoleName,
    who: Who,
    product: OfProduct = None,
    reason: Why = None,
    account: Account = False,
    key_holder: KeyHolder = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take a role away."""
    known_as = _known_as(account, key_holder)
    confirm([f"'{who}' is no longer {role} of {_of(product)}."], yes=yes)
    done = on_services(lambda s: s.people.revoke(role, who, product, reason, known_as), doing="Recording")
    _print_change(done, json)


@role.command("list")
@reported
def role_list(
    product: Annotated[
        str | None, typer.Option("--product", metavar="PRODUCT", help="Only those that hold in this product.")
    ] = None,
    json: Json = False,
) -> None:
    """List who has which role."""
    found = on_services(lambda services: services.people.roles(product), doing="Reading")
    if json:
        print_json(found)
        return
    console = answer()
    table = plain_table("who", "known as", "role", "product", "since (UTC)", "event")
    for row in found.grants:
        known = row.known_as or "–"
        table.add_row(row.person, known, row.role, row.product or "every one", clock(row.since), str(row.event))
    console.print(table if found.grants else "nobody has a role")
    for note in found.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)


@product.command("onboard")
@reported
def product_onboard(
    name: ProductName,
    description: Annotated[str | None, typer.Option(help="Text for people.")] = None,
    developer: Annotated[
        list[str] | None, typer.Option("--developer", metavar="WHO", help="Somebody who builds it; may be repeated.")
    ] = None,
    tier: Annotated[
        Tier | None, typer.Option(metavar="TIER", help="standard or scan-config; an administrator's act.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a product, owned by you; call it again to add to it."""
    made = on_services(
        lambda services: services.people.onboard(name, description, developer or (), tier), doing="Recording"
    )
    if json:
        print_json(made)
        return
    done = f"is onboarded (event {made.event})" if made.created else "was there before"
    answer().print(Text(f"✓ the product {made.name} {done}", style="bold green"), soft_wrap=True)
    _print_product(made)


@product.command("list")
@reported
def product_list(json: Json = False) -> None:
    """List products and their owners."""
    found = on_services(lambda services: services.people.products(), doing="Reading")
    if json:
        print_json({"products": [row.model_dump(mode="json") for row in found]})
        return
    table = plain_table("product", "id", "tier", "owners", "developers", "reviewers")
    for row in found:
        people = [", ".join(row.roles.get(r, ())) or "–" for r in ("owner", "developer", "reviewer")]
        table.add_row(row.name, row.product_id, row.tier, *people)
    answer().print(table if found else "no product is onboarded")


@product.command("show")
@reported
def product_show(name: ProductName, json: Json = False) -> None:
    """Show a product and its people."""
    found = on_services(lambda services: services.people.product(name), doing="Reading")
    if json:
        print_json(found)
        return
    answer().print(Text(found.name, style="bold"))
    _print_product(found)


@reported
def enrol(
    who: Annotated[
        str, typer.Argument(metavar="WHO", help="An account, or a name for somebody known by this key alone.")
    ],
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The private key; it only signs here, once.")
    ] = None,
    public: Annotated[
        Path | None, typer.Option("--public", metavar="FILE.pub", help="The public key; alone, prints what to sign.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", metavar="FILE.sig", help="What 'ssh-keygen -Y sign' made of it.")
    ] = None,
    account: Account = False,
    key_holder: KeyHolder = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Enrol a reviewer's key: what it signs counts as theirs.

    With the private key at hand: --key. Otherwise its owner signs:
    enrol WHO --public K.pub | ssh-keygen -Y sign -n intelligentscan.enrol -f K > K.sig
    and then: enrol WHO --public K.pub --proof K.sig
    """
    from intelligentscan._ssh_signature import as_openssh_shows, fingerprint, public_key

    known_as = _known_as(account, key_holder)
    if (key is None) == (public is None) or (key is not None and proof is not None):
        raise InvalidArgument(
            "Give either the private key or the public one.", next="call again with --key or --public."
        )
    if key is not None:
        text, signed = _proved(who, key)
    else:
        text = public_key(_read(public, "--public"))
        if proof is None:
            _print_statement(who, text, public, json)
            return
        signed = _read(proof, "--proof")
    shown = as_openssh_shows(fingerprint(text))
    confirm([f"What the key {shown} signs counts as said by '{who}' from now on."], yes=yes)
    done = on_services(lambda services: services.people.enrol(who, text, signed, known_as), doing="Recording")
    _print_key(done, json, f"is the key of {done.person} ({done.known_as})")


@reported
def keys(json: Json = False) -> None:
    """List the keys of reviewers."""
    from intelligentscan._ssh_signature import as_openssh_shows

    found = on_services(lambda services: services.people.keys(), doing="Reading")
    if json:
        print_json({"keys": [row.model_dump(mode="json") for row in found]})
        return
    table = plain_table("who", "known as", "key", "kind", "state", "since (UTC)", "event")
    for row in found:
        state = Text("active") if row.active else Text("retired", style="dim")
        kind, known = row.public.split(" ")[0], row.known_as or "–"
        table.add_row(
            row.person, known, as_openssh_shows(row.fingerprint), kind, state, clock(row.since), str(row.event)
        )
    answer().print(table if found else "no key is enrolled")


@reported
def retire_key(
    fingerprint: Annotated[str, typer.Argument(metavar="KEY", help="Fingerprint, as 'review keys' shows it.")],
    reason: Reason,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Somebody else may have had it: what it approved counts no more.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Retire a reviewer's key for good: what it signs from now on does not count."""
    approved = "Its approvals count no more either." if compromised else "What it approved before goes on counting."
    confirm([f"What this key signs from now on counts for nothing; it cannot be enrolled again. {approved}"], yes=yes)
    done = on_services(
        lambda services: services.people.retire(fingerprint, reason, compromised=compromised), doing="Recording"
    )
    _print_key(done, json, f"of {done.person} is retired{'; its approvals count no more' if done.compromised else ''}")


def private_key_of(path: Path) -> "PrivateKey":
    """Return a private key from its file; a passphrase is asked for at a terminal.

    Raises:
        InvalidArgument: it cannot be read or used.
    """
    from intelligentscan._ssh_signature import PassphraseNeeded, load_private_key

    data = _read(path, "--key").encode()
    try:
        return load_private_key(data)
    except PassphraseNeeded:
        if sys.stdin is None or not sys.stdin.isatty():
            raise
        secret = typer.prompt(f"Passphrase of {visible(path.name)}", hide_input=True, err=True)
        return load_private_key(data, secret)


def _proved(who: str, path: Path) -> tuple[str, str]:
    from intelligentscan._ssh_signature import fingerprint, public_of, sign_sshsig
    from intelligentscan.services.reviewer_keys import NAMESPACE, statement

    private = private_key_of(path)
    public = public_of(private)
    return public, sign_sshsig(private, NAMESPACE, statement(who, fingerprint(public)))


def _print_statement(who: str, public: str, path: Path | None, as_json: bool) -> None:
    from intelligentscan._ssh_signature import fingerprint
    from intelligentscan.services.reviewer_keys import NAMESPACE, statement

    said = statement(who, fingerprint(public)).decode()
    name = shlex.quote(visible(str(path)))
    private = shlex.quote(visible(str(path).removesuffix(".pub")))
    same = f"intelligentscan review enrol {shlex.quote(who)} --public {name}"
    steps = [
        f"{same} | ssh-keygen -Y sign -n {NAMESPACE} -f {private} > enrol.sig",
        f"{same} --proof enrol.sig",
    ]
    if as_json:
        print_json({"statement": said, "namespace": NAMESPACE, "next": steps})
        return
    sys.stdout.write(said)  # the exact bytes to sign: no line end
    sys.stdout.flush()
    console = aside()
    console.print("nothing is enrolled yet; the owner of the key signs, then call again:", style="dim")
    for step in steps:
        console.print(Text(f"→ {step}"), soft_wrap=True)


def _known_as(account: bool, key_holder: bool) -> KnownAs | None:
    if account and key_holder:
        raise InvalidArgument("Somebody is an account or a key's holder, not both.", next="leave one of them out.")
    return "account" if account else "key holder" if key_holder else None


def _of(product: str | None) -> str:
    return f"'{product}'" if product is not None else "every product"


def _read(path: Path | None, option: str) -> str:
    if path is None:
        raise InvalidArgument("No file is named.", next=f"call again with {option}.")
    try:
        return read_own(str(path), _MAX_FILE, argument=option).decode()
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"The file {visible(path.name)} is not text.", next="name the right file.") from exc


def _print_change(done: RoleChange, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    what = f"{done.role} of {_of(done.product)}" if done.role != "administrator" else "administrator"
    if not done.changed:
        state = "has that role already" if done.granted else "does not have that role"
        answer().print(Text(f"nothing was changed: {done.person} {state}"), soft_wrap=True)
    else:
        is_now = "is" if done.granted else "is no longer"
        line = f"✓ {done.person} {is_now} {what} (event {done.event})"
        answer().print(Text(line, style="bold green"), soft_wrap=True)
    _print_notes(done.notes)


def _print_product(found: Product) -> None:
    facts: list[tuple[str, str | Text]] = [
        ("id", found.product_id),
        ("workspace", found.workspace),
        ("tier", found.tier),
        *((role, Text(", ".join(who))) for role, who in found.roles.items()),
    ]
    if found.description:
        facts.append(("description", Text(found.description)))
    answer().print(facts_table(facts))


def _print_key(done: ReviewerKey, as_json: bool, what: str) -> None:
    from intelligentscan._ssh_signature import as_openssh_shows

    if as_json:
        print_json(done)
        return
    line = f"✓ {as_openssh_shows(done.fingerprint)} {what} (event {done.event})"
    answer().print(Text(line, style="bold green"), soft_wrap=True)


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        answer().print(Text(note, style="dim"), soft_wrap=True)
