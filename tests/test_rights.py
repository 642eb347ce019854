"""Who may do what: every act with every role, and what does not move a right."""

import pwd
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import anyio
import pytest
from command_line import CommandLine
from people_world import ME, OTHER, PeopleWorld, account, postgres_people, sqlite_people

from intelligentscan.domain.errors import NotPermitted
from intelligentscan.domain.people import MATRIX, ROLES, Right, Role
from intelligentscan.services import rights
from intelligentscan.services.principal import person
from intelligentscan.stores.interface import Stores

MAY = """
                administrator  owner  developer  reviewer  auditor  nobody
read            yes            yes    yes        yes       yes      no
register        no             yes    yes        no        no       no
stage           no             yes    yes        no        no       no
release         no             yes    no         no        no       no
withdraw        no             yes    no         yes       no       no
request_review  no             yes    yes        no        no       no
attest          no             yes    yes        yes       no       no
decide          no             no     no         yes       no       no
revoke          no             no     no         yes       no       no
administer      yes            no     no         no        no       no
"""
ROWS = [line.split() for line in MAY.strip().splitlines()]
TABLE = {row[0]: dict(zip(ROWS[0], row[1:], strict=True)) for row in ROWS[1:]}
BACKENDS = ("sqlite", "postgresql")


def name_of(role: str) -> str:
    return f"the-{role}"


@pytest.fixture(scope="module", params=BACKENDS)
def staffed(
    request: pytest.FixtureRequest, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PeopleWorld]:
    """A store with the product `cards`, one account per role in it, and some for every product; only read."""
    folder = tmp_path_factory.mktemp(f"staffed-{request.param}")
    if request.param == "sqlite":
        world = sqlite_people(template, folder)
        anyio.run(staff, world)
        yield world
        return
    for world in postgres_people(request.getfixturevalue("postgres"), request.getfixturevalue("migrated"), folder):
        anyio.run(staff, world)
        yield world


async def staff(world: PeopleWorld) -> None:
    people = world.services.people
    await people.grant("administrator", ME)
    await people.onboard("cards")
    await people.onboard("loans")
    await people.grant("administrator", name_of("administrator"), known_as="account")
    for role in ROLES[1:]:
        await people.grant(role, name_of(role), "cards", known_as="account")
        await people.grant(role, f"every-{role}", known_as="account")


@pytest.fixture(params=BACKENDS)
def empty(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[PeopleWorld]:
    """A governed store of the test's own, in which nobody has a role."""
    if request.param == "sqlite":
        yield sqlite_people(template, tmp_path)
        return
    yield from postgres_people(request.getfixturevalue("postgres"), request.getfixturevalue("migrated"), tmp_path)


def test_the_table_of_this_test_names_every_act_and_every_role() -> None:
    assert TABLE.keys() == MATRIX.keys()
    assert all(set(row) == {*ROLES, "nobody"} for row in TABLE.values())


@pytest.mark.parametrize("right", TABLE)
async def test_each_role_may_do_what_the_table_says_in_its_product_and_only_the_everywhere_roles_elsewhere(
    staffed: PeopleWorld, right: Right
) -> None:
    said = {role: answer == "yes" for role, answer in TABLE[right].items()}
    here = {role: await staffed.allowed(right, "cards", account(name_of(role))) for role in said}
    assert here == said
    elsewhere = {role: await staffed.allowed(right, "loans", account(name_of(role))) for role in said}
    assert elsewhere == {role: may and role == "administrator" for role, may in said.items()}
    no_product = {role: await staffed.allowed(right, None, account(name_of(role))) for role in said}
    assert no_product == elsewhere
    every = {r: await staffed.allowed(right, p, account(f"every-{r}")) for r in ROLES[1:] for p in ("loans", None)}
    assert every == {role: may for role, may in said.items() if role in ROLES[1:]}


async def test_as_long_as_nobody_is_administrator_nobody_is_refused(empty: PeopleWorld) -> None:
    await empty.services.people.onboard("cards")
    for right in MATRIX:
        assert await empty.allowed(right, "cards", account("anybody"))
        assert await empty.allowed(right, None)


async def test_who_is_asking_is_the_real_user_whatever_the_environment_says(
    empty: PeopleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = empty.services.people
    for variable in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(variable, OTHER)
    with pytest.raises(NotPermitted, match="only make themself"):
        await people.grant("administrator", OTHER)
    assert (await people.grant("administrator", ME)).event is not None
    await empty.hand_over()
    assert person() == account(ME)
    assert not await empty.allowed("administer", None)
    assert await empty.allowed("administer", None, account(OTHER))
    with pytest.raises(NotPermitted):
        await people.grant("auditor", ME)


def test_a_refusal_names_a_command_that_gives_the_right(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sqlite_people(template, tmp_path)
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(world.home))
    command = CommandLine(world.home)
    assert command("role", "grant", "administrator", ME).code == 0
    assert command("product", "onboard", "our cards").code == 0
    others = [name for name in (entry.pw_name for entry in pwd.getpwall()) if name != ME]
    for right, name in zip(MATRIX, others, strict=False):

        def ask(stores: Stores, right: Right = right, name: str = name) -> None:
            with stores.governance.reading() as read:
                rights.require(read, right, "our cards", account(name))

        with pytest.raises(NotPermitted) as refused:
            anyio.run(world.services.store.read, ask)
        assert name in refused.value.message
        assert refused.value.details["right"] == right
        (said,) = re.findall(r"'(intelligentscan role grant .*)'\.", refused.value.next)
        done = command(*shlex.split(said)[1:])
        assert done.code == 0, done
        anyio.run(world.services.store.read, ask)


@pytest.mark.parametrize(("has", "right"), [("developer", "decide"), ("reviewer", "register"), ("owner", "revoke")])
async def test_who_stands_on_the_other_side_is_not_told_to_change_sides(
    staffed: PeopleWorld, has: str, right: Right
) -> None:
    def ask(stores: Stores) -> None:
        with stores.governance.reading() as read:
            rights.require(read, right, "cards", account(name_of(has)))

    with pytest.raises(NotPermitted, match="needs that role") as refused:
        await staffed.services.store.read(ask)
    assert refused.value.next.startswith("somebody else does it")
    assert name_of(has) not in refused.value.next


# What does not move a right


ROLE_COLUMNS = "event, workspace, product, role, person, granted"


@pytest.mark.parametrize("event", ["that of another grant", "that of something else"])
async def test_a_row_that_no_signed_event_made_grants_nothing(empty: PeopleWorld, event: str) -> None:
    people = empty.services.people
    await people.onboard("cards")
    made = await people.grant("administrator", ME)
    await people.grant("auditor", "mallory", known_as="account")
    mallory = await empty.id_of(account("mallory"))
    number = made.event if event == "that of another grant" else 1
    for role, product in (("administrator", ""), ("owner", "cards"), ("reviewer", "cards")):
        empty.sql(
            f"INSERT INTO {empty.table('role')} ({ROLE_COLUMNS}) VALUES (?, 'default', ?, ?, ?, 1)",  # noqa: S608
            number, product, role, mallory,
        )  # fmt: skip
    for right in ("administer", "release", "decide"):
        assert not await empty.allowed(cast("Right", right), "cards", account("mallory")), right
    assert {(g.person, g.role) for g in (await people.roles()).grants} == {
        (ME, "administrator"), (ME, "owner"), ("mallory", "auditor"),
    }  # fmt: skip
    assert not (await empty.services.integrity.verify()).ok


async def test_a_revocation_whose_row_was_removed_still_counts_and_so_does_a_grant(empty: PeopleWorld) -> None:
    people = empty.services.people
    await people.onboard("cards")
    await people.grant("administrator", ME)
    await people.grant("reviewer", "bob", "cards", known_as="account")
    kept = await people.grant("reviewer", "carol", "cards", known_as="account")
    gone = await people.revoke("reviewer", "bob", "cards")
    table = empty.unguarded("role")
    empty.sql(f"DELETE FROM {table} WHERE event = ? OR event = ?", gone.event, kept.event)  # noqa: S608
    assert not await empty.allowed("decide", "cards", account("bob"))
    assert await empty.allowed("decide", "cards", account("carol"))
    empty.sql(f"DELETE FROM {table}")  # noqa: S608
    assert await empty.allowed("administer", None, account(ME))
    assert not await empty.allowed("administer", None, account("bob"))


async def test_exchanging_names_in_the_table_that_may_be_erased_moves_no_role(empty: PeopleWorld) -> None:
    people = empty.services.people
    await people.onboard("cards")
    await people.grant("administrator", ME)
    for role, name in (("reviewer", "bob"), ("developer", "mallory")):
        await people.grant(cast("Role", role), name, "cards", known_as="account")
    bob, mallory = [await empty.id_of(account(name)) for name in ("bob", "mallory")]
    names = empty.unguarded("principal_name")
    empty.sql(f"DELETE FROM {names} WHERE name IN ('bob', 'mallory')")  # noqa: S608
    for principal, name in ((bob, "mallory"), (mallory, "bob")):
        values = "(principal_id, kind, name, salt) VALUES (?, 'os-user', ?, ?)"
        empty.sql(f"INSERT INTO {names} {values}", principal, name, "ab" * 16)
    for name in ("bob", "mallory"):
        assert not await empty.allowed("decide", "cards", account(name))
        assert not await empty.allowed("register", "cards", account(name))
    found = await people.roles("cards")
    assert [g.person for g in found.grants if g.role in ("reviewer", "developer")] == [bob, mallory]
    assert any("erased or changed" in note for note in found.notes)


async def test_an_erased_name_loses_its_roles_which_can_be_taken_by_id_and_given_again(empty: PeopleWorld) -> None:
    people = empty.services.people
    await people.grant("administrator", ME)
    await people.grant("auditor", "bob", known_as="account")
    bob = str(await empty.id_of(account("bob")))
    empty.sql(f"DELETE FROM {empty.table('principal_name')} WHERE name = 'bob'")  # noqa: S608
    assert not await empty.allowed("read", None, account("bob"))
    again = await people.grant("auditor", "bob", known_as="account")
    assert again.changed
    assert await empty.allowed("read", None, account("bob"))
    taken = await people.revoke("auditor", bob)
    assert (taken.changed, taken.granted) == (True, False)
    assert await empty.allowed("read", None, account("bob"))
    assert [g.person for g in (await people.roles()).grants] == [ME, "bob"]
