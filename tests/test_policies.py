"""Policies: read from YAML without surprises, named by a digest, and in force only by an administrator's signed act."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc8785
import yaml
from command_line import CommandLine
from conftest import look_at
from hypothesis import given, settings
from hypothesis import strategies as st
from people_world import ME, PeopleWorld, postgres_people, sqlite_people

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import (
    GovernanceUnready,
    InvalidArgument,
    NotFound,
    NotPermitted,
    Refused,
    TooLarge,
)
from intelligentscan.domain.policy import BUILT_IN_POLICIES, PolicyInForce, PolicyList, PromotionPolicy
from intelligentscan.gates.policy import built_in, canonical, digest_of, from_canonical, from_yaml
from intelligentscan.services.policies import POLICY_ACTIVATED
from intelligentscan.services.principal import person
from intelligentscan.stores.governance.records import Act

MINIMAL = """\
policy: ours
version: 3
tiers:
  standard:
    Staging: {intact: {}, not_drifted: {}}
    Production:
      sealed: {}
      intact: {}
      not_drifted: {}
      reviewed: {}
models:
  - name: fraud-*
    thresholds:
      roc_auc: {min: 0.85}
"""


def test_the_policies_that_ship_are_what_was_decided() -> None:
    solo, team, regulated = (built_in(name) for name in BUILT_IN_POLICIES)
    assert [p.policy for p in (solo, team, regulated)] == list(BUILT_IN_POLICIES)
    assert [p.confirmation for p in (solo, team, regulated)] == ["asked", "required", "required"]
    assert [p.review.quorum for p in (solo, team, regulated)] == [1, 1, 2]
    assert [p.review.four_eyes for p in (solo, team, regulated)] == [False, True, True]
    assert [p.review.authenticated for p in (solo, team, regulated)] == [False, True, True]
    assert [p.review.separate_accounts for p in (solo, team, regulated)] == [False, False, True]
    assert [p.review.complete for p in (solo, team, regulated)] == [False, True, True]
    assert regulated.review.valid_days < team.review.valid_days
    assert all({"standard", "scan-config"} == set(p.tiers) for p in (solo, team, regulated))
    with pytest.raises(KeyError):
        built_in("../solo")


@pytest.mark.parametrize("name", BUILT_IN_POLICIES)
def test_a_policy_survives_its_canonical_form_and_its_json_and_keeps_its_digest(name: str) -> None:
    policy = built_in(name)
    assert canonical(policy).encode() == rfc8785.dumps(policy.model_dump(mode="json"))
    assert digest_of(policy) == sha256_hex(canonical(policy).encode())
    for again in (from_canonical(canonical(policy)), from_yaml(canonical(policy)), from_yaml(policy.model_dump_json())):
        assert again == policy
        assert digest_of(again) == digest_of(policy)


def test_the_digest_names_what_a_policy_says_and_not_how_it_is_written() -> None:
    policy = from_yaml(MINIMAL)
    rewritten = yaml.safe_dump(yaml.safe_load(MINIMAL), sort_keys=True, default_flow_style=True)
    assert digest_of(from_yaml(f"# a comment\n{rewritten}")) == digest_of(policy)
    assert digest_of(from_yaml(MINIMAL.replace("0.85", "8.5e-1"))) == digest_of(policy)
    whole = [digest_of(from_yaml(MINIMAL.replace("0.85", number))) for number in ("1", "1.0", "+1", "1e0")]
    assert len(set(whole)) == 1
    others = [("0.85", "0.86"), ("version: 3", "version: 4"), ("ours", "theirs"), ("fraud-*", "fraud*")]
    assert len({digest_of(from_yaml(MINIMAL.replace(*other))) for other in others} | {digest_of(policy)}) == 5


WRONG: list[tuple[str, str, int | None, str]] = [
    ("", "it is empty", 1, ""),
    ("just text", "should be a valid dictionary", 1, "the document"),
    ("a: [", "expected the node content", 1, ""),
    ("a:\n\tb: 1", "cannot start any token", 2, ""),
    ("policy: a\x00b", "it is not YAML", None, ""),
    (f"{MINIMAL}---\nmore: 1\n", "but found another document", 15, ""),
    (MINIMAL.replace("reviewed", "reviewd"), "Input should be 'sealed'", 10, "tiers.standard.Production.reviewd"),
    (MINIMAL.replace("Production", "Prodution"), "Input should be 'Staging'", 6, "tiers.standard.Prodution"),
    (MINIMAL.replace("  standard", "  usual"), "Input should be 'standard'", 4, "tiers.usual"),
    (f"{MINIMAL}reviews: {{}}\n", "there is no such field", 15, "reviews"),
    (MINIMAL.replace("{min: 0.85}", "{least: 0.85}"), "there is no such field", 14,
     "models.0.thresholds.roc_auc.least"),
    (MINIMAL.replace("version: 3", "version: soon"), "should be a valid integer", 2, "version"),
    (MINIMAL.replace("version: 3\n", ""), "Field required", 1, "version"),
    (MINIMAL.replace("policy: ours", "policy: Our Policy"), "should match pattern", 1, "policy"),
    (f"{MINIMAL}review: {{quorum: 0}}\n", "greater than or equal to 1", 15, "review.quorum"),
    # a value of another kind is not what it seems, whatever could be made of it
    (f"{MINIMAL}review: {{quorum: true}}\n", "should be a valid integer", 15, "review.quorum"),
    (f"{MINIMAL}review: {{quorum: '2'}}\n", "should be a valid integer", 15, "review.quorum"),
    (f"{MINIMAL}review: {{quorum: 010}}\n", "should be a valid integer", 15, "review.quorum"),
    (f"{MINIMAL}review: {{valid_days: 1:30}}\n", "should be a valid integer", 15, "review.valid_days"),
    (f"{MINIMAL}review: {{valid_days: !!int '1:30'}}\n", "tags are not read", 15, ""),
    (f"{MINIMAL}review: {{four_eyes: 0}}\n", "should be a valid boolean", 15, "review.four_eyes"),
    (f"{MINIMAL}review: {{four_eyes: 'off'}}\n", "should be a valid boolean", 15, "review.four_eyes"),
    (MINIMAL.replace("0.85", "true"), "should be a valid number", 14, "models.0.thresholds.roc_auc.min"),
    (MINIMAL.replace("0.85", "'0.85'"), "should be a valid number", 14, "models.0.thresholds.roc_auc.min"),
    (f"{MINIMAL}policy: twice\n", "'policy' is there twice", 15, ""),
    (MINIMAL.replace("reviewed: {}", "sealed: {}"), "'sealed' is there twice", 10, ""),
    (MINIMAL.replace("{min: 0.85}", "{min: 0.85, min: 0.1}"), "'min' is there twice", 14, ""),
    (f"{MINIMAL}rollback: &all [sealed]\n", "anchors and aliases are not read", 15, ""),
    (f"{MINIMAL}<<: {{version: 9}}\n", "a key is a plain text", 15, ""),
    (f"{MINIMAL}? [a]\n: b\n", "a key is a plain text", 15, ""),
    (f"{MINIMAL}rollback: {'[' * 40}{']' * 40}\n", "nested deeper than 12 levels", 15, ""),
    (f"{MINIMAL}rollback: !!python/object/apply:os.system ['true']\n", "tags are not read", 15, ""),
    (MINIMAL.replace("0.85", f"1{'0' * 5000}"), "it is not YAML", None, ""),
    (MINIMAL.replace("0.85", f"1{'0' * 400}"), "", 14, "models.0.thresholds.roc_auc.min"),
    (MINIMAL.replace("version: 3", f"version: {2**60}"), "JSON cannot keep", None, ""),
    # what each field allows, and cannot be meant
    (MINIMAL.replace("    Staging: {intact: {}, not_drifted: {}}\n", ""), "says nothing about Staging", 4,
     "tiers.standard"),
    (MINIMAL.replace("      sealed: {}\n", ""), "it lacks sealed, which no policy switches off", 6,
     "tiers.standard.Production"),
    (MINIMAL.replace("intact: {}, not", "not"), "it lacks intact", 5, "tiers.standard.Staging"),
    (f"{MINIMAL}rollback: [sealed]\n", "it lacks intact, not_drifted", 15, "rollback"),
    ("policy: p\nversion: 1\ntiers: {}\n", "it names no tier", 3, "tiers"),
    (f"{MINIMAL}review: {{four_eyes: true}}\n", "beside reviewed it needs segregation_of_duties", 6,
     "tiers.standard.Production"),
    (f"{MINIMAL}review: {{separate_accounts: true}}\n", "unless four_eyes is true", 15, "review.separate_accounts"),
    (MINIMAL.replace("reviewed", "segregation_of_duties"), "it needs reviewed beside it", 10,
     "tiers.standard.Production.segregation_of_duties"),
    (MINIMAL.replace("reviewed: {}", "reviewed: {}\n      segregation_of_duties: {}"), "asks nothing unless", 11,
     "tiers.standard.Production.segregation_of_duties"),
    (MINIMAL.replace("reviewed: {}", "reviewed: {max_age_days: 3}"), "does not look at max_age_days", 10,
     "tiers.standard.Production.reviewed.max_age_days"),
    (MINIMAL.replace("reviewed: {}", "fresh: {}"), "it needs max_age_days", 10, "tiers.standard.Production.fresh"),
    (MINIMAL.replace("reviewed: {}", "documented: {}"), "it needs fields", 10, "tiers.standard.Production.documented"),
    (MINIMAL.replace("{min: 0.85}", "{}"), "it needs min or max", 14, "models.0.thresholds.roc_auc"),
    (MINIMAL.replace("{min: 0.85}", "{min: 2, max: 1}"), "its min is more than its max", 14,
     "models.0.thresholds.roc_auc"),
    (MINIMAL.replace("0.85", ".nan"), "must be finite", 14, "models.0.thresholds.roc_auc"),
    (MINIMAL.replace("0.85", "-.inf"), "must be finite", 14, "models.0.thresholds.roc_auc"),
    (f"{MINIMAL}    tolerance: .inf\n", "no finite number", 15, "models.0.tolerance"),
    (f"{MINIMAL}  - name: fraud-*\n", "so it never counts", 15, "models.1.name"),
    (f"{MINIMAL}  - name: '*'\n  - name: fraud-eu\n", "so it never counts", 16, "models.2.name"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says", "line", "field"), WRONG, ids=[f"{i} {w[1][:40]}" for i, w in enumerate(WRONG)]
)
def test_a_mistake_in_a_policy_is_named_with_its_line_and_field(
    text: str, says: str, line: int | None, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        digest_of(from_yaml(text))
    assert says in refused.value.message
    assert refused.value.details.get("line") == line
    assert refused.value.details.get("field", "") == field
    assert refused.value.next


def test_a_policy_has_at_most_64_kib_and_references_are_not_followed() -> None:
    from_yaml(f"{MINIMAL}# {'x' * (64 * 1024 - len(MINIMAL) - 2)}")
    with pytest.raises(TooLarge):
        from_yaml(f"{MINIMAL}# {'x' * (64 * 1024 - len(MINIMAL) - 1)}")
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(InvalidArgument, match="anchors and aliases are not read"):
        from_yaml(bomb)
    with pytest.raises(InvalidArgument, match="nested deeper"):
        from_yaml("[" * 60_000)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=200), st.integers(0, len(MINIMAL)))
def test_whatever_stands_in_a_policy_it_is_read_or_refused_as_a_whole(piece: str, at: int) -> None:
    for text in (piece, MINIMAL[:at] + piece + MINIMAL[at:]):
        try:
            policy = from_yaml(text)
        except InvalidArgument as refused:
            assert refused.next
        else:
            assert isinstance(policy, PromotionPolicy)


# In force


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> Iterator[PeopleWorld]:
    """A governed store on which nobody is administrator yet."""
    if request.param == "sqlite":
        yield sqlite_people(template, tmp_path)
    else:
        postgres, migrated = (request.getfixturevalue(name) for name in ("postgres", "migrated"))
        yield from postgres_people(postgres, migrated, tmp_path)


@pytest.fixture
def sqlite_world(tmp_path: Path, template: Path) -> PeopleWorld:
    return sqlite_people(template, tmp_path)


def listed(found: PolicyList) -> list[tuple[str, bool, bool]]:
    return [(row.policy, row.in_force, row.built_in) for row in found.policies]


async def activations(world: PeopleWorld) -> list[Any]:
    events = (await world.services.history.get(limit=100)).events
    return [e for e in events if e.action == "policy.activated"]


async def test_until_one_is_activated_solo_decides_and_looking_changes_nothing(sqlite_world: PeopleWorld) -> None:
    policies = sqlite_world.services.policies
    await policies.in_force()  # opens the store
    before = look_at(sqlite_world.home)
    found = await policies.in_force()
    solo = built_in("solo")
    assert found == PolicyInForce(policy=solo, digest=digest_of(solo), activated=False, since=None, by=None, event=None)
    assert listed(await policies.list()) == [("solo", True, True), ("team", False, True), ("regulated", False, True)]
    assert await policies.show() == solo
    assert await policies.show("regulated") == built_in("regulated")
    assert look_at(sqlite_world.home) == before


async def test_an_administrator_activates_a_policy_and_the_trail_tells(world: PeopleWorld) -> None:
    policies = world.services.policies
    await world.services.people.grant("administrator", ME)
    made = await policies.activate("team", "four eyes from today")
    team = built_in("team")
    assert (made.policy, made.digest, made.activated, made.by) == (team, digest_of(team), True, ME)
    assert await policies.in_force() == made
    ((event),) = await activations(world)
    assert (event.seq, event.actor, event.reason) == (made.event, ME, "four eyes from today")
    assert event.facts["policy"] == made.digest
    assert event.facts["replaces"] == digest_of(built_in("solo"))
    table = world.table("policy")
    assert world.sql(f"SELECT policy, digest, document FROM {table}") == [("team", made.digest, canonical(team))]  # noqa: S608
    assert (await world.services.trail.verify()).problems == []


async def test_activating_the_policy_in_force_changes_nothing_and_an_earlier_one_comes_back(
    sqlite_world: PeopleWorld,
) -> None:
    policies = sqlite_world.services.policies
    await sqlite_world.services.people.grant("administrator", ME)
    ours = await policies.activate(MINIMAL, "own limits")
    before = look_at(sqlite_world.home)
    assert await policies.activate(f"# the same\n{MINIMAL}", "again") == ours
    assert await policies.activate("ours", "by name") == ours
    assert await policies.activate(ours.digest[:12], "by digest") == ours
    assert look_at(sqlite_world.home) == before
    assert listed(await policies.list())[-1] == ("ours", True, False)
    changed = await policies.activate(MINIMAL.replace("0.85", "0.9"), "stricter")
    assert (await policies.show("ours")).models[0].thresholds["roc_auc"].min == 0.9
    assert (await policies.show(ours.digest)).models[0].thresholds["roc_auc"].min == 0.85
    back = await policies.activate(ours.digest, "too strict")
    assert (back.digest, back.policy) == (ours.digest, ours.policy)
    assert [row.digest for row in (await policies.list()).policies[3:]] == [ours.digest, changed.digest]
    assert len(await activations(sqlite_world)) == 3


async def test_solo_can_be_activated_too_and_then_stays_as_it_was(sqlite_world: PeopleWorld) -> None:
    made = await sqlite_world.services.policies.activate("solo", "on purpose")
    assert (made.activated, made.policy) == (True, built_in("solo"))
    assert await sqlite_world.services.policies.activate("solo", "again") == made


@pytest.mark.parametrize("policy", ["team", "regulated"])
async def test_four_eyes_need_an_administrator_first(sqlite_world: PeopleWorld, policy: str) -> None:
    with pytest.raises(Refused) as refused:
        await sqlite_world.services.policies.activate(policy, "r")
    assert f"'intelligentscan role grant administrator {ME}'" in refused.value.next
    assert (await sqlite_world.services.policies.in_force()).activated is False
    await sqlite_world.services.people.grant("administrator", ME)
    assert (await sqlite_world.services.policies.activate(policy, "r")).policy.policy == policy


async def test_who_is_no_administrator_activates_nothing_and_the_attempt_is_noted(world: PeopleWorld) -> None:
    policies = world.services.policies
    await world.services.people.grant("administrator", ME)
    team = await policies.activate("team", "r")
    await world.hand_over()
    with pytest.raises(NotPermitted):
        await policies.activate("solo", "easier")
    assert await policies.in_force() == team
    newest = (await world.services.history.get(limit=1)).events[0]
    assert (newest.action, newest.facts["tool"]) == ("act.denied", "policy activate")


@pytest.mark.parametrize(
    ("policy", "reason", "error"),
    [
        ("nobody", "r", NotFound),
        ("Team", "r", NotFound),
        ("", "r", NotFound),
        ("solo", "", InvalidArgument),
        ("solo", " ", InvalidArgument),
        ("solo", "x" * 1001, InvalidArgument),
        (MINIMAL.replace("reviewed", "reviewd"), "r", InvalidArgument),
        (MINIMAL.replace("ours", "team"), "r", InvalidArgument),
        (MINIMAL.replace("ours", "solo"), "r", InvalidArgument),
    ],
)
async def test_what_is_no_policy_is_not_activated(
    sqlite_world: PeopleWorld, policy: str, reason: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await sqlite_world.services.policies.activate(policy, reason)
    assert await activations(sqlite_world) == []


async def test_a_policy_that_ships_may_be_given_as_a_file_too(sqlite_world: PeopleWorld) -> None:
    made = await sqlite_world.services.policies.activate(built_in("solo").model_dump_json(indent=2), "r")
    assert made.digest == digest_of(built_in("solo"))


async def test_a_row_that_no_signed_event_made_puts_no_policy_in_force(world: PeopleWorld) -> None:
    policies = world.services.policies
    await world.services.people.grant("administrator", ME)
    team = await policies.activate("team", "r")
    easy = from_yaml(MINIMAL)
    table = world.unguarded("policy")
    head = world.sql(f"SELECT max(seq) FROM {world.table('event')}")[0][0] - 1  # noqa: S608
    row = (head, "ours", digest_of(easy), canonical(easy))
    world.sql(f"INSERT INTO {table} (event, policy, digest, document) VALUES (?, ?, ?, ?)", *row)  # noqa: S608
    assert await policies.in_force() == team
    world.sql(f"UPDATE {table} SET digest = ?, document = ? WHERE policy = 'team'", *row[2:])  # noqa: S608
    assert await policies.in_force() == team
    world.sql(f"DELETE FROM {table}")  # noqa: S608
    assert await policies.in_force() == team
    assert [r.policy for r in (await policies.list()).policies] == list(BUILT_IN_POLICIES)
    assert "RECORD" in {p.code for p in (await world.services.integrity.verify()).problems}


@pytest.mark.parametrize(
    ("document", "digest"),
    [
        ('{"policy":"ours","gate":"of a later release"}', None),
        (canonical(from_yaml(MINIMAL)), "0" * 64),
    ],
)
async def test_a_policy_that_this_release_cannot_read_decides_nothing_until_another_is_activated(
    sqlite_world: PeopleWorld, document: str, digest: str | None
) -> None:
    policies = sqlite_world.services.policies
    row = {"policy": "ours", "digest": digest or sha256_hex(document.encode()), "document": document}

    def of_another_release(stores: Any) -> None:
        with stores.governance.unit() as unit:
            unit.append(Act(POLICY_ACTIVATED, person(), rows={"policy": [row]}))

    await sqlite_world.services.store.write(of_another_release)
    for asked in (policies.in_force(), policies.show(), policies.activate("ours", "r")):
        with pytest.raises(GovernanceUnready, match="event 2 brought into force cannot be read"):
            await asked
    assert listed(await policies.list())[-1] == ("ours", True, False)
    assert (await policies.activate("solo", "readable")).policy == built_in("solo")


# The command line


@pytest.fixture
def command(home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    monkeypatch.chdir(project)
    return CommandLine(home)


def test_the_command_shows_gates_by_tier_and_stage_and_its_json_can_be_changed_and_activated(
    command: CommandLine, project: Path
) -> None:
    shown = command("policy", "show", "regulated").out
    assert "quorum 2, four eyes: yes" in shown
    assert "at most 30 days" in shown
    assert "rollback" in shown
    ours = command.json("policy", "show", "regulated") | {"policy": "ours"}
    ours["models"] = [{"name": "fraud-*", "thresholds": {"roc_auc": {"min": 0.85}}, "compare": ["roc_auc"]}]
    (project / "ours.json").write_text(json.dumps(ours))
    assert command("role", "grant", "administrator", ME).code == 0
    done = command.json("policy", "activate", "ours.json", "--reason", "limits agreed")
    assert (done["policy"]["policy"], done["activated"], done["by"]) == ("ours", True, ME)
    assert "roc_auc at least 0.85" in command("policy", "show").out
    rows = command.json("policy", "list")["policies"]
    assert [(r["policy"], r["in_force"]) for r in rows] == [
        ("solo", False), ("team", False), ("regulated", False), ("ours", True),
    ]  # fmt: skip
    assert done["digest"][:12] in command("policy", "list").out
    assert "solo version 1 is in force" in command("policy", "activate", "solo", "--reason", "back").out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("show", "nobody"), "NOT_FOUND", "no policy 'nobody'"),
        (
            ("activate", "wrong.yaml", "--reason", "r"),
            "INVALID_ARGUMENT",
            "line 10, at tiers.standard.Production.reviewd",
        ),
        (("activate", "missing.yaml", "--reason", "r"), "PATH_NOT_FOUND", "missing.yaml"),
        (("activate", "large.yaml", "--reason", "r"), "TOO_LARGE", "65,536"),
        (("activate", "name.yaml", "--reason", "r"), "INVALID_ARGUMENT", "should be a valid dictionary"),
        (("activate", "team", "--reason", "r"), "REFUSED", "nobody is administrator"),
    ],
)
def test_the_command_refuses_what_is_no_policy(
    command: CommandLine, project: Path, arguments: tuple[str, ...], code: str, says: str
) -> None:
    (project / "wrong.yaml").write_text(MINIMAL.replace("reviewed", "reviewd"))
    (project / "large.yaml").write_text("#" * 70_000)
    (project / "name.yaml").write_text("solo")
    refused = command.json("policy", *arguments, code=2)
    assert refused["code"] == code
    assert says in refused["message"]
