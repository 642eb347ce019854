"""People: the first administrator, roles given and taken, products, and keys whose signatures count."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from command_line import CommandLine, child, child_environment
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from mcp_client import answered, connected, refused
from people_world import ME, OTHER, PeopleWorld, account, postgres_people, sqlite_people

from intelligentscan._ssh_signature import (
    as_openssh_shows,
    fingerprint,
    load_private_key,
    public_key,
    public_of,
    sign_sshsig,
)
from intelligentscan.domain.errors import (
    InvalidArgument,
    InvalidName,
    NotFound,
    NotPermitted,
    Refused,
    SignatureInvalid,
    TooLarge,
)
from intelligentscan.domain.people import KnownAs, Product, ReviewerKey, Role, RoleChange, RoleList
from intelligentscan.services.people import ActiveKey, active_key
from intelligentscan.services.principal import person
from intelligentscan.services.reviewer_keys import NAMESPACE, statement
from intelligentscan.services.rights import ROLE_REVOKED
from intelligentscan.stores.governance.records import Act, Principal
from intelligentscan.stores.interface import Stores
from intelligentscan.toolsets.selection import select

SSH_KEYGEN = shutil.which("ssh-keygen")
needs_ssh_keygen = pytest.mark.skipif(SSH_KEYGEN is None, reason="ssh-keygen is not installed")


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[PeopleWorld]:
    """A governed store of the test's own, on either database."""
    if request.param == "sqlite":
        yield sqlite_people(template, tmp_path)
        return
    yield from postgres_people(request.getfixturevalue("postgres"), request.getfixturevalue("migrated"), tmp_path)


@pytest.fixture
def world(template: Path, tmp_path: Path) -> PeopleWorld:
    """A governed store of the test's own in a file."""
    return sqlite_people(template, tmp_path)


@pytest.fixture
def command(world: PeopleWorld, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line on that store."""
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(world.home))
    monkeypatch.chdir(world.home.parent)
    return CommandLine(world.home)


def new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


async def events(world: PeopleWorld, *actions: str) -> list[Any]:
    """Return the events of these actions, the oldest first."""
    found = (await world.services.history.get(limit=100)).events
    return [event for event in reversed(found) if event.action in actions]


# The first administrator


async def test_the_first_administrator_makes_themself_once_and_the_trail_says_so(both: PeopleWorld) -> None:
    people = both.services.people
    with pytest.raises(NotPermitted, match="only make themself"):
        await people.grant("administrator", OTHER)
    assert not (await people.roles()).enforced
    made = await people.grant("administrator", ME, reason="the beginning")
    again = await people.grant("administrator", ME)
    second = await people.grant("administrator", OTHER)
    assert (made.changed, again.changed, again.event) == (True, False, made.event)
    assert made.notes
    assert (await people.roles()).enforced
    granted = await events(both, "role.granted")
    assert [e.facts.get("first") for e in granted] == [True, None]
    assert [(e.seq, e.facts["person"], e.actor) for e in granted] == [(made.event, ME, ME), (second.event, OTHER, ME)]
    assert granted[0].reason == "the beginning"
    assert [e.facts["code"] for e in await events(both, "act.denied")] == ["NOT_PERMITTED"]
    assert (await both.services.integrity.verify()).ok


async def test_of_many_who_want_to_be_the_first_administrator_at_once_one_event_makes_one(both: PeopleWorld) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(both.services.people.grant, "administrator", ME)
    assert [e.facts.get("first") for e in await events(both, "role.granted")] == [True]


async def test_no_second_first_administrator_is_made_even_if_none_were_left(world: PeopleWorld) -> None:
    made = await world.services.people.grant("administrator", ME)
    mine = await world.id_of(account(ME))

    def revoke_past_the_service(stores: Stores) -> None:
        row = {"workspace": "default", "product": "", "role": "administrator", "person": mine, "granted": 0}
        with stores.governance.unit() as unit:
            unit.append(Act(ROLE_REVOKED, person(), rows={"role": [row]}))

    await world.services.store.write(revoke_past_the_service)
    with pytest.raises(NotPermitted, match=f"made before .event {made.event}."):
        await world.services.people.grant("administrator", ME)


async def test_the_last_administrator_stays_and_any_other_can_go(both: PeopleWorld) -> None:
    people = both.services.people
    await people.grant("administrator", ME)
    with pytest.raises(Refused, match="last administrator"):
        await people.revoke("administrator", ME)
    await both.hand_over()
    assert [(g.person, g.role) for g in (await people.roles()).grants] == [(OTHER, "administrator")]
    with pytest.raises(NotPermitted, match="not administrator"):
        await people.revoke("administrator", OTHER)


# Roles


async def test_before_there_is_an_administrator_only_products_give_roles(world: PeopleWorld) -> None:
    people = world.services.people
    await people.onboard("cards")
    for role in ("owner", "reviewer", "auditor"):
        with pytest.raises(NotPermitted, match="no administrator yet") as told:
            await people.grant(role, OTHER, "cards")
        assert f"role grant administrator {ME}" in told.value.next
    assert (await people.grant("developer", OTHER, "cards")).changed
    assert (await people.revoke("developer", OTHER, "cards")).changed


async def test_only_administrators_give_roles_and_owners_their_own_developers(world: PeopleWorld) -> None:
    people = world.services.people
    await people.grant("administrator", ME)
    await people.onboard("cards")
    await people.grant("owner", OTHER, "cards")
    await people.onboard("loans")
    await people.revoke("owner", ME, "loans")
    await world.hand_over()
    assert (await people.grant("developer", OTHER, "cards")).changed
    assert (await people.revoke("developer", OTHER, "cards")).changed
    for role, product in (("developer", "loans"), ("developer", None), ("owner", "cards"), ("reviewer", "cards")):
        with pytest.raises(NotPermitted) as told:
            await people.grant(role, OTHER, product)  # type: ignore[arg-type]
        assert f"role grant administrator {ME}" in told.value.next
    with pytest.raises(NotPermitted):
        await people.revoke("owner", OTHER, "cards")
    denied = await events(world, "act.denied")
    assert len(denied) == 5
    assert {e.facts["tool"] for e in denied} == {"role grant", "role revoke"}


@pytest.mark.parametrize(
    ("has", "its_product", "wants", "wanted_for"),
    [
        ("owner", "cards", "reviewer", "cards"),
        ("developer", "cards", "reviewer", "cards"),
        ("developer", "cards", "reviewer", None),
        ("developer", None, "reviewer", "cards"),
        ("reviewer", "cards", "developer", "cards"),
        ("reviewer", "cards", "owner", None),
        ("reviewer", None, "developer", "cards"),
        ("reviewer", None, "owner", None),
    ],
)
async def test_nobody_builds_and_reviews_the_same_product(
    world: PeopleWorld, has: Role, its_product: str | None, wants: Role, wanted_for: str | None
) -> None:
    people = world.services.people
    await people.grant("administrator", ME)
    for product in ("cards", "loans"):
        await people.onboard(product)
    held = await people.grant(has, OTHER, its_product)
    with pytest.raises(Refused, match=f"{OTHER} is {has} of") as told:
        await people.grant(wants, OTHER, wanted_for)
    assert told.value.details["event"] == held.event
    assert f"role revoke {has} {OTHER}" in told.value.next
    if its_product == wanted_for == "cards":
        assert (await people.grant(wants, OTHER, "loans")).changed
    await people.revoke(has, OTHER, its_product)
    assert (await people.grant(wants, OTHER, wanted_for)).changed


async def test_an_administrator_is_no_exception_and_a_key_of_the_same_name_is_the_same_person(
    world: PeopleWorld,
) -> None:
    people = world.services.people
    await people.grant("administrator", ME)
    await people.onboard("cards")
    with pytest.raises(Refused, match="cannot be its reviewer"):
        await people.grant("reviewer", ME, "cards")
    await world.enrol(ME, new_key(), known_as="key holder")
    with pytest.raises(Refused, match="cannot be its reviewer"):
        await people.grant("reviewer", ME, "cards", known_as="key holder")
    with pytest.raises(Refused, match=f"{ME} is owner of 'cards'") as told:
        await people.grant("reviewer", ME.upper(), "cards", known_as="account")
    assert f"role revoke owner {ME} --product cards" in told.value.next
    await people.grant("reviewer", OTHER)
    with pytest.raises(Refused, match=f"{OTHER} is reviewer of every product"):
        await people.onboard("loans", developers=[OTHER])
    assert [p.name for p in await people.products()] == ["cards"]


async def test_a_name_means_an_account_or_a_key_holder_and_if_both_the_caller_chooses(world: PeopleWorld) -> None:
    people = world.services.people
    await people.grant("administrator", ME)
    with pytest.raises(NotFound, match="Nobody is known as 'ann'"):
        await people.grant("auditor", "ann")
    with pytest.raises(NotFound):
        await people.grant("auditor", OTHER, known_as="key holder")
    await world.enrol("ann", new_key())
    await world.enrol(OTHER, new_key(), known_as="key holder")
    await people.grant("auditor", "ann")
    with pytest.raises(InvalidArgument, match="also somebody known by an enrolled key") as told:
        await people.grant("auditor", OTHER)
    assert "--key-holder" in told.value.next
    for known_as in ("account", "key holder"):
        await people.grant("auditor", OTHER, known_as=known_as)
    with pytest.raises(InvalidArgument, match="also somebody known"):
        await people.revoke("auditor", OTHER)
    await people.revoke("auditor", OTHER, known_as="account")
    await people.revoke("auditor", OTHER)  # only one of them has it now
    await people.grant("auditor", "elsewhere", known_as="account")
    known = [(g.person, g.known_as) for g in (await people.roles()).grants if g.role == "auditor"]
    assert known == [("ann", "key holder"), ("elsewhere", "account")]


@pytest.mark.parametrize(
    ("role", "who", "product", "reason", "error"),
    [
        ("owner", "", "cards", None, InvalidName),
        ("owner", " bob", "cards", None, InvalidName),
        ("owner", "b\u202eob", "cards", None, InvalidName),
        ("owner", "b" * 101, "cards", None, InvalidName),
        ("owner", OTHER, "no such", None, NotFound),
        ("owner", OTHER, "a/b", None, InvalidName),
        ("administrator", OTHER, "cards", None, InvalidArgument),
        ("owner", OTHER, "cards", "x" * 1_001, InvalidArgument),
    ],
)
async def test_a_grant_that_cannot_be_meant_changes_nothing(
    world: PeopleWorld, role: Role, who: str, product: str, reason: str | None, error: type[Exception]
) -> None:
    people = world.services.people
    await people.grant("administrator", ME)
    await people.onboard("cards")
    before = await people.roles()
    with pytest.raises(error):
        await people.grant(role, who, product, reason)
    assert await people.roles() == before


async def test_roles_of_a_product_that_is_not_there_are_refused_with_those_that_are(world: PeopleWorld) -> None:
    people = world.services.people
    with pytest.raises(NotFound, match="There is no product 'nope'") as told:
        await people.roles("nope")
    assert "none is onboarded yet" in told.value.next
    await people.onboard("cards")
    for ask in (people.roles("nope"), people.product("nope")):
        with pytest.raises(NotFound) as told:
            await ask
        assert told.value.next == "there are 'cards'; 'intelligentscan product onboard nope' makes it."
    assert [g.product for g in (await people.roles("cards")).grants] == ["cards"]


async def test_taking_a_role_that_somebody_does_not_have_changes_nothing(world: PeopleWorld) -> None:
    await world.services.people.grant("administrator", ME)
    done = await world.services.people.revoke("auditor", OTHER)
    assert (done.changed, done.granted, done.event) == (False, False, None)


async def test_names_of_people_and_reasons_stay_out_of_the_chain(both: PeopleWorld) -> None:
    people = both.services.people
    await people.grant("administrator", ME)
    await both.enrol("ann-of-accounting", new_key())
    await people.grant("auditor", "ann-of-accounting", reason="she asked nicely")
    await people.onboard("cards", "a secret plan")
    bodies = "".join(body for (body,) in both.sql(f"SELECT body FROM {both.table('event')}"))  # noqa: S608
    for said in ("ann-of-accounting", "asked nicely", "secret plan"):
        assert said not in bodies
    assert '"product":"cards"' in bodies


# Products


async def test_onboarding_makes_the_caller_owner_and_repeating_changes_nothing(both: PeopleWorld) -> None:
    people = both.services.people
    made = await people.onboard("cards", "stops card fraud", [OTHER])
    again = await people.onboard("cards", "stops card fraud", [OTHER])
    bare = await people.onboard("cards")
    assert made.created
    assert again == bare == made.model_copy(update={"created": False})
    assert made.roles == {"owner": [ME], "developer": [OTHER]}
    assert (made.tier, made.workspace, made.description) == ("standard", "default", "stops card fraud")
    assert len(made.product_id) == 12
    assert await people.products() == [again]
    assert await people.product("cards") == again
    assert [e.action for e in await events(both, "product.onboarded", "product.changed", "role.granted")] == [
        "product.onboarded", "role.granted", "role.granted",
    ]  # fmt: skip
    assert (await both.services.integrity.verify()).ok


async def test_an_owner_describes_anew_and_adds_developers_and_nobody_else_does(world: PeopleWorld) -> None:
    people = world.services.people
    await people.grant("administrator", ME)
    first = await people.onboard("cards", "old")
    changed = await people.onboard("cards", "new", [OTHER])
    assert (changed.created, changed.description, changed.event) == (False, "new", first.event)
    assert changed.roles["developer"] == [OTHER]
    await people.grant("owner", OTHER, "cards")
    await people.revoke("owner", ME, "cards")
    await world.hand_over()
    assert (await people.onboard("cards")).roles["owner"] == [OTHER]
    assert (await people.onboard("cards", "new", [OTHER])).description == "new"
    for changes in ({"description": "mine now"}, {"developers": [ME]}):
        with pytest.raises(NotPermitted, match="belongs to somebody else") as told:
            await people.onboard("cards", **changes)  # type: ignore[arg-type]
        assert f"role grant owner {ME} --product cards" in told.value.next
    assert (await people.onboard("loans")).roles == {"owner": [ME]}  # a new one is anybody's to make


async def test_a_lower_tier_is_an_administrators_act(world: PeopleWorld) -> None:
    people = world.services.people
    with pytest.raises(NotPermitted, match="no administrator yet"):
        await people.onboard("configs", tier="scan-config")
    assert await people.products() == []
    await people.grant("administrator", ME)
    assert (await people.onboard("configs", tier="scan-config")).tier == "scan-config"
    assert (await people.onboard("configs")).tier == "scan-config"
    assert (await people.onboard("configs", tier="standard")).tier == "standard"
    await world.hand_over()
    with pytest.raises(NotPermitted, match="not administrator"):
        await people.onboard("configs", tier="scan-config")
    assert (await people.product("configs")).tier == "standard"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Cards", Refused),
        ("ｃａｒｄｓ", Refused),
        ("", InvalidName),
        ("a/b", InvalidName),
        ("ca\u200brds", InvalidName),
        ("x" * 251, InvalidName),
    ],
)
async def test_a_product_whose_name_cannot_be_told_from_another_is_not_made(
    world: PeopleWorld, name: str, error: type[Exception]
) -> None:
    await world.services.people.onboard("cards")
    with pytest.raises(error):
        await world.services.people.onboard(name)
    assert [p.name for p in await world.services.people.products()] == ["cards"]


async def test_a_product_with_an_unknown_developer_is_not_made_at_all(world: PeopleWorld) -> None:
    people = world.services.people
    for developers, error in ((["nobody-at-all"], NotFound), ([OTHER] * 101, TooLarge)):
        with pytest.raises(error):
            await people.onboard("cards", developers=developers)
    with pytest.raises(NotFound, match="no product 'cards'"):
        await people.product("cards")
    assert (await people.roles()).grants == []


async def test_forged_rows_make_no_product_and_lower_no_tier(both: PeopleWorld) -> None:
    made = await both.services.people.onboard("cards")
    columns = "event, workspace, product, tier"
    for event, name in ((made.event + 1 if made.event else 0, "cards"), (1, "ghosts")):
        both.sql(
            f"INSERT INTO {both.table('product')} ({columns}) VALUES (?, 'default', ?, 'scan-config')",  # noqa: S608
            event, name,
        )  # fmt: skip
    assert [(p.name, p.tier) for p in await both.services.people.products()] == [("cards", "standard")]


# Keys


async def look_up(world: PeopleWorld, digest: str) -> ActiveKey | None:
    def look(stores: Stores) -> ActiveKey | None:
        with stores.governance.reading() as read:
            return active_key(read, digest)

    return await world.services.store.read(look)


async def test_a_key_is_enrolled_used_and_retired_for_good(both: PeopleWorld) -> None:
    people, key = both.services.people, new_key()
    await people.grant("administrator", ME)
    made = await both.enrol("ann", key)
    again = await both.enrol("ann", key)
    assert made == again
    assert (made.person, made.known_as, made.active) == ("ann", "key holder", True)
    ann = await both.id_of(Principal("person", "ann"))
    assert await look_up(both, made.fingerprint) == ActiveKey(str(ann), made.public)
    assert await look_up(both, "0" * 64) is None
    retired = await people.retire(as_openssh_shows(made.fingerprint), "lost the laptop")
    assert await people.retire(made.fingerprint, "again") == retired
    assert not retired.active
    assert await look_up(both, made.fingerprint) is None
    with pytest.raises(Refused, match="was retired"):
        await both.enrol("ann", key)
    second = await both.enrol("ann", new_key())
    assert [(k.fingerprint, k.active) for k in await people.keys()] == [
        (made.fingerprint, False), (second.fingerprint, True),
    ]  # fmt: skip
    told = await events(both, "reviewer_key.enrolled", "reviewer_key.retired")
    assert [(e.action, e.facts["person"]) for e in told] == [
        ("reviewer_key.enrolled", "ann"), ("reviewer_key.retired", "ann"), ("reviewer_key.enrolled", "ann"),
    ]  # fmt: skip
    assert told[1].reason == "lost the laptop"
    assert (await both.services.integrity.verify()).ok


async def test_one_key_is_one_persons_whatever_accounts_they_have(world: PeopleWorld) -> None:
    await world.services.people.grant("administrator", ME)
    key = new_key()
    await world.enrol(ME, key)
    others: tuple[tuple[str, KnownAs | None], ...] = ((OTHER, None), ("ann", None), (ME, "key holder"))
    for who, known_as in others:
        with pytest.raises(Refused, match="enrolled for somebody else"):
            await world.enrol(who, key, known_as)
    assert len(await world.services.people.keys()) == 1


async def test_without_an_administrator_everybody_enrols_their_own_and_then_only_administrators(
    world: PeopleWorld,
) -> None:
    people = world.services.people
    mine = await world.enrol(ME, new_key())
    for who in (OTHER, "ann"):
        with pytest.raises(NotPermitted, match="own account"):
            await world.enrol(who, new_key())
    await people.grant("administrator", ME)
    others = await world.enrol(OTHER, new_key())
    await world.hand_over()
    with pytest.raises(NotPermitted, match="not administrator"):
        await world.enrol(ME, new_key())
    with pytest.raises(NotPermitted, match="not administrator"):
        await people.retire(others.fingerprint, "I want to")
    assert not (await people.retire(mine.fingerprint, "mine was stolen")).active


def proofs() -> dict[str, tuple[str, str, bytes]]:
    """Return who signed which statement for which namespace, in ways that prove nothing."""
    key = load_private_key(KEY)
    digest = fingerprint(public_of(key))
    return {
        "for another name": (NAMESPACE, "good", statement("mallory", digest)),
        "for another key": (NAMESPACE, "good", statement("ann", "0" * 64)),
        "for another purpose": ("intelligentscan.review", "good", statement("ann", digest)),
        "as a file": ("file", "good", statement("ann", digest)),
        "by another key": (NAMESPACE, "other", statement("ann", digest)),
        "with a line end": (NAMESPACE, "good", statement("ann", digest) + b"\n"),
    }


KEY, ANOTHER = new_key(), new_key()


@pytest.mark.parametrize("what", proofs())
async def test_a_key_without_proof_of_its_owner_is_not_enrolled(world: PeopleWorld, what: str) -> None:
    namespace, signer, said = proofs()[what]
    proof = sign_sshsig(load_private_key(KEY if signer == "good" else ANOTHER), namespace, said)
    public = public_of(load_private_key(KEY))
    await world.services.people.grant("administrator", ME)
    for offered in (proof, None, "", "garbage"):
        with pytest.raises(SignatureInvalid) as told:
            await world.services.people.enrol("ann", public, offered)
        assert "--key" in told.value.next
    assert await world.services.people.keys() == []


async def test_forged_exchanged_and_removed_rows_of_keys_change_nothing(both: PeopleWorld) -> None:
    await both.services.people.grant("administrator", ME)
    ann, ben = await both.enrol("ann", new_key()), await both.enrol("ben", new_key())
    public = public_of(load_private_key(new_key()))
    forged, columns = fingerprint(public), "event, fingerprint, person, public, active"
    person_of_ann = await both.id_of(Principal("person", "ann"))
    gone = await both.services.people.retire(ben.fingerprint, "gone")
    table = both.unguarded("reviewer_key")
    insert = f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, 1)"  # noqa: S608
    both.sql(insert, ann.event, forged, person_of_ann, public)
    both.sql(insert, 1, ben.fingerprint, person_of_ann, ben.public)
    both.sql(f"DELETE FROM {table} WHERE event = ?", gone.event)  # noqa: S608
    both.sql(f"UPDATE {table} SET public = ? WHERE event = ?", public, ann.event)  # noqa: S608
    assert await look_up(both, forged) is None
    assert await look_up(both, ben.fingerprint) is None
    assert await look_up(both, ann.fingerprint) == ActiveKey(str(person_of_ann), ann.public)
    assert [(k.person, k.active) for k in await both.services.people.keys()] == [("ann", True), ("ben", False)]
    names = both.unguarded("principal_name")
    both.sql(f"UPDATE {names} SET name = 'mallory' WHERE name = 'ann'")  # noqa: S608
    assert await look_up(both, ann.fingerprint) is None


# The command line


def test_the_commands_tell_one_story_in_json(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(new_key())
    assert RoleList.model_validate(command.json("role", "list")).enforced is False
    first = RoleChange.model_validate(command.json("role", "grant", "administrator", ME, "--yes"))
    product = Product.model_validate(
        command.json("product", "onboard", "cards", "--description", "stops fraud", "--developer", OTHER)
    )
    key = ReviewerKey.model_validate(command.json("review", "enrol", "ann", "--key", str(tmp_path / "key")))
    given = RoleChange.model_validate(
        command.json("role", "grant", "reviewer", "ann", "--product", "cards", "--reason", "she knows cards")
    )
    assert (first.changed, product.created, key.person, given.person) == (True, True, "ann", "ann")
    assert command.json("role", "grant", "developer", "ann", "--product", "cards", code=2)["code"] == "REFUSED"
    assert [g["role"] for g in command.json("role", "list", "--product", "cards")["grants"]] == [
        "administrator", "owner", "developer", "reviewer",
    ]  # fmt: skip
    assert [p["name"] for p in command.json("product", "list")["products"]] == ["cards"]
    assert command.json("product", "show", "cards")["roles"] == {
        "owner": [ME], "developer": [OTHER], "reviewer": ["ann"],
    }  # fmt: skip
    assert command.json("role", "revoke", "reviewer", "ann", "--product", "cards")["changed"]
    assert command.json("review", "keys")["keys"][0]["active"]
    assert not command.json("review", "retire-key", key.fingerprint, "--reason", "lost")["active"]
    assert command.json("role", "grant", "owner", OTHER, "--account", "--key-holder", code=2)["code"] == (
        "INVALID_ARGUMENT"
    )


def test_the_commands_tell_it_to_people(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(new_key())
    assert "nobody has a role" in command("role", "list").out
    assert "no product is onboarded" in command("product", "list").out
    assert "no key is enrolled" in command("review", "keys").out
    said = command("role", "grant", "administrator", ME).out
    assert f"✓ {ME} is administrator" in said
    assert "From now on roles decide" in said
    assert "has that role already" in command("role", "grant", "administrator", ME).out
    assert "does not have that role" in command("role", "revoke", "auditor", OTHER).out
    made = command("product", "onboard", "cards", "--description", "[red]stops[/red] fraud").out
    assert "[red]stops[/red] fraud" in made
    assert "was there before" in command("product", "onboard", "cards").out
    enrolled = command("review", "enrol", "ann", "--key", str(tmp_path / "key")).out
    assert "is the key of ann (key holder)" in enrolled
    shown = enrolled.split()[1]
    assert shown in command("review", "keys").out
    assert "is retired" in command("review", "retire-key", shown, "--reason", "lost").out
    assert "key holder" not in command("role", "list").out
    assert ME in command("product", "show", "cards").out
    refusal = command("role", "revoke", "administrator", ME)
    assert refusal.code == 2
    assert "last administrator" in refusal.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either the private key or the public one"),
        (["--key", "key", "--public", "key.pub"], "either the private key or the public one"),
        (["--key", "key", "--proof", "key.sig"], "either the private key or the public one"),
        (["--key", "missing"], "There is no"),
        (["--key", "key.pub"], "private key cannot be used"),
        (["--public", "key"], "This is a private key"),
        (["--key", "hidden"], "kept under a passphrase"),
        (["--key", "binary"], "is not text"),
        (["--key", "long"], "/long' has more than 65,536 bytes"),
        (["--key", "pipe"], "is a named pipe, not a regular file"),
        (["--public", "pipe"], "is a named pipe"),
        (["--public", "key.pub", "--proof", "pipe"], "is a named pipe"),
    ],
)
def test_a_key_that_cannot_be_taken_is_refused_in_words(
    command: CommandLine, tmp_path: Path, arguments: list[str], said: str
) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    (tmp_path / "key.sig").write_text("x")
    hidden = BestAvailableEncryption(b"secret")
    (tmp_path / "hidden").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b"x" * 70_000)
    os.mkfifo(tmp_path / "pipe")
    given = [str(tmp_path / a) if not a.startswith("--") else a for a in arguments]
    refusal = command("review", "enrol", ME, *given)
    assert refusal.code == 2
    assert said in refusal.err
    assert command.json("review", "keys")["keys"] == []


@needs_ssh_keygen
def test_the_owner_of_a_key_signs_with_openssh_what_the_command_prints(world: PeopleWorld, tmp_path: Path) -> None:
    subprocess.run(
        [str(SSH_KEYGEN), "-q", "-t", "ed25519", "-N", "", "-C", "me at work", "-f", tmp_path / "key"], check=True
    )
    public = str(tmp_path / "key.pub")
    asked = child(["review", "enrol", ME, "--public", public], home=world.home)
    assert asked.code == 0
    assert asked.out.encode() == statement(ME, fingerprint(public_key(Path(public).read_text())))
    steps = [line.removeprefix("→ ") for line in asked.err.splitlines() if line.startswith("→ ")]
    assert len(steps) == 2
    for step in steps:  # as a person pastes them
        done = subprocess.run(
            ["sh", "-ec", step], env=child_environment(world.home), cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    (key,) = child(["review", "keys", "--json"], home=world.home).json["keys"]
    assert (key["person"], key["active"]) == (ME, True)


# Agents


async def test_an_agent_onboards_a_product_where_the_tool_was_named(world: PeopleWorld) -> None:
    async with connected(world.services) as agent:
        assert (await refused(agent, "onboard_product", name="cards"))["code"] == "UNKNOWN_TOOL"
    named = select(None, (), False, ["onboard_product"])
    async with connected(world.services, selection=named) as agent:
        made = await answered(agent, "onboard_product", name="cards", description="stops fraud", developers=OTHER)
        again = await answered(agent, "onboard_product", name="cards")
        look_alike = await refused(agent, "onboard_product", name="CARDS")
    assert made["created"]
    assert not again["created"]
    assert made["roles"] == {"owner": [ME], "developer": [OTHER]}
    assert {"product_id", "workspace"} <= made.keys()
    assert look_alike["code"] == "REFUSED"
