"""Gates: each passes, fails or does not apply on evidence alone, and the policies combine them.

Every case starts from evidence that passes everything that `team` asks, and changes what the case is about.
"""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from typer.main import get_command

from intelligentscan.cli.app import app
from intelligentscan.domain.policy import GateName, GateSettings, ModelRules, PromotionPolicy, ReviewRules, Threshold
from intelligentscan.domain.registry import GateResult
from intelligentscan.gates import BUILT_IN
from intelligentscan.gates.interface import Approval, Champion, Evidence, ReviewFacts, Rules, ScanFacts
from intelligentscan.gates.policy import BUILT_IN_POLICIES, built_in, rules_for, weigh

NOW = 1_800_000_000_000
DAY = 86_400_000
GATES = {gate.name: gate for gate in BUILT_IN}
TEAM = built_in("team")
SOLO = built_in("solo")
REGULATED = built_in("regulated")


def approval(person: str = "rae", **changes: Any) -> Approval:
    """Return an approval by a reviewer with an enrolled key."""
    facts = {"person": person, "name": person, "proof": "authenticated", "account": "desk", "until": NOW + DAY}
    return Approval(**facts | changes)


def review(*approvals: Approval, **changes: Any) -> ReviewFacts:
    """Return an approved review of the sealed bytes under the policy in force."""
    facts = {
        "review_id": "r1", "status": "approved", "same_bytes": True, "same_policy": True, "requester": "dev",
        "missing": (), "approvals": approvals or (approval(),),
    }  # fmt: skip
    return ReviewFacts(**facts | changes)


def scan(**changes: Any) -> ScanFacts:
    """Return a clean and complete scan without findings."""
    facts = {"run_id": "s1", "at": NOW - DAY, "clean": True, "complete": True, "critical": 0, "high": 0}
    return ScanFacts(**facts | changes)


GOOD = Evidence(
    name="fm",
    version=2,
    stage="Production",
    sealed=True,
    legacy=False,
    verified=True,
    quarantined=False,
    drift=(),
    now=NOW,
    metrics={"roc_auc": 0.9, "rmse": 2.0},
    champion=Champion(1, {"roc_auc": 0.88, "rmse": 2.5}),
    review=review(),
    requesters=("dev",),
    run_author="dana",
    scan=scan(),
    code_version="c0ffee",
    data=("d1", "d2"),
    signature=True,
    input_example=True,
    card=("description", "use_case"),
    ended=NOW - 2 * DAY,
)


def rules(*, review: ReviewRules | None = None, model: ModelRules | None = None, **asked: Any) -> Rules:
    """Return rules: of `team` for the review, and settings of the gate."""
    return Rules(GateSettings(**asked), review or TEAM.review, model or ModelRules())


def outcome(gate: GateName, evidence: Evidence = GOOD, given: Rules | None = None, **changes: Any) -> GateResult:
    """Return what a gate says about the good evidence, changed."""
    return GATES[gate].check(replace(evidence, **changes), given or rules())


FOUR_EYES = ReviewRules(authenticated=True, four_eyes=True)
APART = ReviewRules(quorum=2, authenticated=True, four_eyes=True, separate_accounts=True)


@pytest.mark.parametrize(
    ("changes", "expected", "says"),
    [
        ({}, "pass", "sealed copy"),
        ({"sealed": False}, "fail", "never sealed; register its run with register_model name='fm'"),
        ({"sealed": False, "legacy": True}, "fail", "legacy, unreviewed"),
        ({"sealed": False, "stage": "Staging"}, "fail", "never sealed"),
    ],
)
def test_sealed_passes_what_was_registered_through_the_service(
    changes: dict[str, Any], expected: str, says: str
) -> None:
    result = outcome("sealed", **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


@pytest.mark.parametrize(
    ("gate", "changes", "expected", "says"),
    [
        ("intact", {}, "pass", "nothing changed"),
        ("intact", {"quarantined": True}, "fail", "in quarantine"),
        ("intact", {"verified": False}, "fail", "call verify_integrity"),
        ("intact", {"sealed": False}, "not_applicable", "not sealed"),
        ("not_drifted", {}, "pass", "matches the record"),
        ("not_drifted", {"drift": ("a", "b", "c", "d", "e")}, "fail", "a; b; c and 2 more; look with verify_integrity"),
    ],
)
def test_bytes_and_record_must_be_as_they_were(
    gate: GateName, changes: dict[str, Any], expected: str, says: str
) -> None:
    result = outcome(gate, **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


REVIEWED: list[tuple[str, ReviewFacts | None, ReviewRules, str, str]] = [
    ("approved", review(), FOUR_EYES, "pass", "review r1: 1 of 1 approvals by different people count, authenticated"),
    ("none", None, FOUR_EYES, "fail", "call request_review name='fm' version=2"),
    ("open", review(status="open", approvals=()), FOUR_EYES, "fail", "review approve r1 --reason … --key …'"),
    ("open but enough", review(status="open"), FOUR_EYES, "fail", "review approve r1 --reason … --key …'"),
    ("rejected", review(status="rejected"), FOUR_EYES, "fail", "was rejected"),
    ("revoked", review(status="revoked"), FOUR_EYES, "fail", "that was revoked; call request_review"),
    ("expired", review(status="expired"), FOUR_EYES, "fail", "has expired; call request_review"),
    ("superseded", review(status="superseded"), FOUR_EYES, "fail", "replaced by a newer one"),
    ("of other bytes", review(same_bytes=False), FOUR_EYES, "fail", "is of other bytes"),
    ("under another policy", review(same_policy=False), FOUR_EYES, "fail", "under another policy"),
    ("a millisecond left", review(approval(until=NOW + 1)), FOUR_EYES, "pass", "1 of 1"),
    ("expired now", review(approval(until=NOW)), FOUR_EYES, "fail", "0 of 1 approvals by different people count (1"),
    ("expired before", review(approval(until=NOW - 1)), FOUR_EYES, "fail", "(1 expired); call request_review"),
    ("one of two expired", review(approval(until=NOW), approval("bo")), FOUR_EYES, "pass", "1 of 1"),
    ("not signed", review(approval(proof="self-asserted")), FOUR_EYES, "fail", "1 without the signature of an"),
    ("not signed, allowed", review(approval(proof="self-asserted")), ReviewRules(), "pass", "self-asserted"),
    ("two people", review(approval(), approval("bo")), APART, "pass", "2 of 2"),
    ("one person twice", review(approval(), approval(account="other")), APART, "fail", "1 of 2"),
    ("one name, two ids", review(approval(), approval("x", name=" RAE")), APART, "fail", "1 of 2"),
    ("two people, names erased", review(approval(name=""), approval("bo", name="")), APART, "pass", "2 of 2"),
    ("one signed of two", review(approval(), approval("bo", proof="self-asserted")), APART, "fail", "1 of 2"),
    ("incomplete", review(missing=("bias", "risks")), TEAM.review, "fail", "no evidence for bias, risks; call"),
    ("open, incomplete", review(status="open", missing=("bias",)), TEAM.review, "fail", "attest r1 bias --text …',"),
    ("incomplete, allowed", review(missing=("bias",)), FOUR_EYES, "pass", "1 of 1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "asked", "expected", "says"), [c[1:] for c in REVIEWED], ids=[c[0] for c in REVIEWED]
)
def test_reviewed_counts_valid_approvals_by_different_people_for_these_bytes_under_this_policy(
    facts: ReviewFacts | None, asked: ReviewRules, expected: str, says: str
) -> None:
    result = outcome("reviewed", given=rules(review=asked), review=facts)
    assert (result.outcome, says in result.detail) == (expected, True), result


DUTIES: list[tuple[str, dict[str, Any], ReviewRules, str, str]] = [
    ("independent", {}, FOUR_EYES, "pass", "neither asked for it nor made its run"),
    ("not asked", {"review": None}, ReviewRules(), "not_applicable", "policy does not ask for four eyes"),
    ("no review", {"review": None}, FOUR_EYES, "fail", "call request_review name='fm' version=2"),
    ("no approval yet", {"review": review(status="open", approvals=())}, FOUR_EYES, "fail", "approve r1 --reason …'"),
    ("no approval counts", {"review": review(approval(until=NOW))}, FOUR_EYES, "fail", "no approval counts"),
    ("by who registered", {"review": review(approval("dev"), requester="al")}, FOUR_EYES, "fail", "had asked for it"),
    ("by who asked for review", {"review": review(approval("al"), requester="al")}, FOUR_EYES, "fail", "had asked"),
    ("one of several", {"review": review(approval(), approval("dev"))}, FOUR_EYES, "fail", "dev approved"),
    ("expired one by who asked", {"review": review(approval(), approval("dev", until=NOW))}, FOUR_EYES, "pass", "by 1"),
    ("unsigned one by who asked", {"review": review(approval(), approval("dev", proof="self-asserted"))}, FOUR_EYES,
     "pass", "by 1"),
    ("by the run's author", {"review": review(approval(name="dana"))}, FOUR_EYES, "fail", "named as author"),
    ("in other letters", {"review": review(approval(name=" DANA "))}, FOUR_EYES, "fail", "named as author"),
    ("author unknown", {"run_author": None}, FOUR_EYES, "pass", "by 1"),
    ("at the asking account", {"review": review(approval(account="dev"))}, FOUR_EYES, "pass", "by 1"),
    ("at the asking account, strict", {"review": review(approval(account="dev"))}, APART, "fail", "at an account that"),
    ("at another account, strict", {}, APART, "pass", "by 1"),
    ("requester unknown", {"requesters": ()}, FOUR_EYES, "fail", "not known who asked for the registration"),
    ("review's requester unknown", {"review": review(requester="")}, FOUR_EYES, "fail", "who asked for the review"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "asked", "expected", "says"), [c[1:] for c in DUTIES], ids=[c[0] for c in DUTIES])
def test_duties_are_segregated_if_nobody_who_approved_had_a_part_in_it(
    changes: dict[str, Any], asked: ReviewRules, expected: str, says: str
) -> None:
    result = outcome("segregation_of_duties", given=rules(review=asked), **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


AUC = {"roc_auc": Threshold(min=0.85)}
THRESHOLDS: list[tuple[str, dict[str, Any], dict[str, Threshold], dict[str, Any], str, str]] = [
    ("within", {}, AUC, {}, "pass", "within bounds: 'roc_auc' 0.9"),
    ("at the least", {"metrics": {"roc_auc": 0.85}}, AUC, {}, "pass", "0.85"),
    ("just below", {"metrics": {"roc_auc": 0.8499999999999999}}, AUC, {}, "fail", "0.8499999999999999, less than 0.85"),
    ("at the most", {"metrics": {"m": 2.0}}, {"m": Threshold(max=2)}, {}, "pass", "2.0"),
    ("just above", {"metrics": {"m": 2.0000000000000004}}, {"m": Threshold(max=2)}, {}, "fail", "more than 2.0"),
    ("missing", {"metrics": {}}, AUC, {}, "fail", "the run has no metric 'roc_auc'"),
    ("no number", {"metrics": {"roc_auc": math.nan}}, AUC, {}, "fail", "'roc_auc' is nan"),
    ("endless", {"metrics": {"roc_auc": math.inf}}, AUC, {}, "fail", "'roc_auc' is inf"),
    ("one of two", {}, AUC | {"rmse": Threshold(max=1)}, {}, "fail", "register that with register_model name='fm'"),
    ("none named", {}, {}, {}, "not_applicable", "names no thresholds"),
    ("none named, required", {}, {}, {"required": True}, "fail", "'intelligentscan policy activate FILE --reason …'"),
    ("origin too weak", {}, AUC, {"origin": "imported"}, "fail", "are self-reported, the policy asks for 'imported'"),
    ("origin as asked", {"metrics_origin": "imported"}, AUC, {"origin": "imported"}, "pass", "0.9"),
    ("origin stronger", {"metrics_origin": "measured by us"}, AUC, {"origin": "imported"}, "pass", "0.9"),
]


@pytest.mark.parametrize(
    ("changes", "thresholds", "asked", "expected", "says"), [c[1:] for c in THRESHOLDS], ids=[c[0] for c in THRESHOLDS]
)
def test_metrics_must_be_within_the_bounds_that_the_policy_names(
    changes: dict[str, Any], thresholds: dict[str, Threshold], asked: dict[str, Any], expected: str, says: str
) -> None:
    given = rules(model=ModelRules(thresholds=thresholds), **asked)
    result = outcome("metric_thresholds", given=given, **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


def against(theirs: dict[str, float], ours: dict[str, float]) -> dict[str, Any]:
    return {"champion": Champion(1, theirs), "metrics": ours}


COMPARISONS: list[tuple[str, dict[str, Any], ModelRules, dict[str, Any], str, str]] = [
    ("no champion", {"champion": None}, ModelRules(), {}, "not_applicable", "no other version"),
    ("better", {}, ModelRules(), {}, "pass", "version 1: 'roc_auc' 0.9 against 0.88"),
    ("the same", against({"auc": 0.5}, {"auc": 0.5}), ModelRules(), {}, "pass", "0.5 against 0.5"),
    ("worse", against({"auc": 0.5}, {"auc": 0.4}), ModelRules(), {}, "fail", "'auc' is 0.4, version 1 in Production"),
    ("worse within tolerance", against({"auc": 0.5}, {"auc": 0.25}), ModelRules(tolerance=0.25), {}, "pass", "0.25"),
    ("worse beyond tolerance", against({"auc": 0.5}, {"auc": 0.24}), ModelRules(tolerance=0.25), {}, "fail", "0.24"),
    ("less is better", against({"rmse": 2.0}, {"rmse": 1.0}), ModelRules(), {}, "pass", "1.0 against 2.0"),
    ("more is worse", against({"rmse": 2.0}, {"rmse": 2.1}), ModelRules(), {}, "fail", "2.1"),
    ("more within tolerance", against({"rmse": 2.0}, {"rmse": 2.5}), ModelRules(tolerance=0.5), {}, "pass", "2.5"),
    ("the named one", {}, ModelRules(compare=["rmse"]), {}, "pass", "'rmse' 2.0 against 2.5"),
    ("a named one is worse", against({"a": 1.0, "auc": 0.1}, {"a": 0.0, "auc": 0.9}), ModelRules(compare=["a"]), {},
     "fail", "'a' is 0.0"),
    ("those with thresholds", against({"a": 1.0, "auc": 0.1}, {"a": 0.0, "auc": 0.9}),
     ModelRules(thresholds={"a": Threshold(min=0)}), {}, "fail", "'a' is 0.0"),
    ("held-out before bare", against({"auc": 0.9, "test_auc": 0.8}, {"auc": 0.95, "test_auc": 0.7}), ModelRules(), {},
     "fail", "'test_auc' is 0.7"),
    ("in other spellings", against({"AUC-val": 0.8}, {"AUC-val": 0.9}), ModelRules(), {}, "pass", "'AUC-val'"),
    ("usual ones differ", against({"auc": 0.8}, {"f1": 0.9}), ModelRules(), {}, "fail", "the run has no metric 'auc'"),
    ("none of ours", against({"auc": 0.8}, {}), ModelRules(), {}, "fail", "the run has no metric 'auc'"),
    ("not a number", against({"auc": 0.8, "f1": 0.1}, {"auc": math.nan, "f1": 0.9}), ModelRules(), {}, "fail",
     "is nan"),
    ("their number is none", against({"auc": math.nan, "f1": 0.1}, {"auc": 0.1, "f1": 0.9}), ModelRules(), {}, "pass",
     "'f1'"),
    ("named, ours is missing", {}, ModelRules(compare=["f1"]), {}, "fail", "the run has no metric 'f1'"),
    ("named, theirs is missing", against({}, {"f1": 0.9}), ModelRules(compare=["f1"]), {}, "fail",
     "policy activate"),
    ("nothing usual", against({"a": 1.0}, {"a": 0.0}), ModelRules(), {}, "not_applicable", "no usual one"),
    ("nothing usual, required", against({"a": 1.0}, {"a": 0.0}), ModelRules(), {"required": True}, "fail", "activate"),
    ("origin too weak", {}, ModelRules(), {"origin": "measured by us"}, "fail", "are self-reported"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "model", "asked", "expected", "says"), [c[1:] for c in COMPARISONS], ids=[c[0] for c in COMPARISONS]
)
def test_a_version_must_not_be_worse_than_the_one_that_it_replaces(
    changes: dict[str, Any], model: ModelRules, asked: dict[str, Any], expected: str, says: str
) -> None:
    result = outcome("not_worse_than_champion", given=rules(model=model, **asked), **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


@pytest.mark.parametrize(
    ("changes", "asked", "expected", "says"),
    [
        ({}, {}, "pass", "our scan s1 of commit c0ffee is complete"),
        ({}, {"origin": "measured by us"}, "pass", "complete"),
        ({"scan": None}, {}, "fail", "call scan_vulnerabilities on a clean checkout of c0ffee"),
        ({"code_version": None}, {}, "fail", "the run names no commit"),
        ({"code_version": ""}, {}, "fail", "the run names no commit"),
        ({"scan": scan(clean=False)}, {}, "fail", "not committed; call scan_vulnerabilities"),
        ({"scan": scan(complete=False)}, {}, "fail", "is not complete"),
        ({"scan": scan(critical=1)}, {}, "fail", "1 critical and 0 high findings open; list_findings run_id='s1'"),
        ({"scan": scan(high=3)}, {}, "fail", "0 critical and 3 high"),
        ({"scan": scan(high=-1)}, {}, "fail", "-1 high"),
    ],
)
def test_only_our_complete_scan_of_the_clean_commit_without_serious_findings_passes(
    changes: dict[str, Any], asked: dict[str, Any], expected: str, says: str
) -> None:
    result = outcome("no_open_findings", given=rules(**asked), **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


@pytest.mark.parametrize(
    ("changes", "asked", "expected", "says"),
    [
        ({}, {"max_age_days": 30}, "pass", "not older than 30 days"),
        ({}, {}, "not_applicable", "names no age"),
        ({"ended": NOW - 30 * DAY}, {"max_age_days": 30}, "pass", "30 days"),
        ({"ended": NOW - 30 * DAY - 1}, {"max_age_days": 30}, "fail", "the run is more than 30 days old"),
        ({"ended": None}, {"max_age_days": 30}, "fail", "not known when the run ended"),
        ({"ended": NOW + DAY + 1}, {"max_age_days": 30}, "fail", "the run is dated in the future"),
        ({"scan": scan(at=NOW - 30 * DAY)}, {"max_age_days": 30}, "pass", "30 days"),
        ({"scan": scan(at=NOW - 30 * DAY - 1)}, {"max_age_days": 30}, "fail", "the scan is more than 30 days old"),
        ({"scan": None}, {"max_age_days": 30}, "fail", "call scan_vulnerabilities"),
        ({}, {"max_age_days": 30, "origin": "imported"}, "fail", "are self-reported"),
        ({"lineage_origin": "imported"}, {"max_age_days": 30, "origin": "imported"}, "pass", "30 days"),
    ],
)
def test_run_and_scan_must_be_recent(changes: dict[str, Any], asked: dict[str, Any], expected: str, says: str) -> None:
    result = outcome("fresh", given=rules(**asked), **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


@pytest.mark.parametrize(
    ("gate", "changes", "asked", "expected", "says"),
    [
        ("lineage", {}, {}, "pass", "commit c0ffee, 2 datasets"),
        ("lineage", {"code_version": None}, {}, "fail", "names no commit"),
        ("lineage", {"data": ()}, {}, "fail", "no dataset (mlflow.log_input)"),
        ("lineage", {"data": ("",)}, {}, "fail", "no dataset"),
        ("lineage", {}, {"origin": "imported"}, "fail", "are self-reported"),
        ("lineage", {"lineage_origin": "measured by us"}, {"origin": "imported"}, "pass", "commit"),
        ("signature", {}, {}, "pass", "declared"),
        ("signature", {"signature": False}, {}, "fail", "the model has no signature (log_model"),
        ("signature", {"input_example": False}, {}, "fail", "the model has no input example ("),
        ("signature", {"signature": False, "input_example": False}, {}, "fail", "no signature and no input example"),
        ("documented", {}, {"fields": ["description"]}, "pass", "the card fills 'description'"),
        ("documented", {}, {}, "not_applicable", "names no fields"),
        (
            "documented",
            {"card": ()},
            {"fields": ["description"]},
            "fail",
            "name='fm' description=…",
        ),
        ("documented", {}, {"fields": ["use_case", "limits"]}, "fail", "tags={'card.limits': …}"),
        ("documented", {}, {"fields": ["description"], "origin": "imported"}, "fail", "are self-reported"),
        ("evaluated", {}, {}, "fail", "evaluate_scan_configs, which comes with a later release; Staging is open"),
        ("evaluated", {"evaluation": "e1"}, {}, "pass", "evaluation e1"),
    ],
)
def test_what_a_model_must_tell_about_itself(
    gate: GateName, changes: dict[str, Any], asked: dict[str, Any], expected: str, says: str
) -> None:
    result = outcome(gate, given=rules(**asked), **changes)
    assert (result.outcome, says in result.detail) == (expected, True), result


# Policies


def weighed(policy: PromotionPolicy, **changes: Any) -> dict[str, str]:
    """Return what a policy says about the good evidence, changed: gate to outcome, in order."""
    return {result.gate: result.outcome for result in weigh(policy, replace(GOOD, **changes))}


INTEGRITY = ["sealed", "intact", "not_drifted"]
EVERYTHING = [gate.name for gate in BUILT_IN if gate.name != "evaluated"]


@pytest.mark.parametrize(
    ("policy", "tier", "stage", "gates"),
    [
        (SOLO, "standard", "Staging", INTEGRITY[1:]),
        (SOLO, "standard", "Production", [*INTEGRITY, "reviewed"]),
        (SOLO, "scan-config", "Staging", INTEGRITY[1:]),
        (SOLO, "scan-config", "Production", [*INTEGRITY, "evaluated"]),
        (TEAM, "standard", "Staging", INTEGRITY),
        (TEAM, "standard", "Production", EVERYTHING),
        (TEAM, "scan-config", "Production", [*INTEGRITY, "evaluated"]),
        (REGULATED, "standard", "Staging", [*INTEGRITY, "lineage", "signature"]),
        (REGULATED, "standard", "Production", EVERYTHING),
        (REGULATED, "scan-config", "Production", [*INTEGRITY, "evaluated"]),
        *((policy, "standard", stage, []) for policy in (SOLO, TEAM, REGULATED) for stage in ("Archived", "None")),
    ],
)
def test_tier_and_stage_decide_which_gates_a_policy_asks(
    policy: PromotionPolicy, tier: str, stage: str, gates: list[str]
) -> None:
    assert list(weighed(policy, tier=tier, stage=stage)) == gates


def test_the_good_evidence_passes_solo_and_team_and_lacks_limits_and_a_second_approval_for_regulated() -> None:
    assert set(weighed(SOLO).values()) == {"pass"}
    assert {g for g, o in weighed(TEAM).items() if o != "pass"} == {"metric_thresholds"}
    assert weighed(TEAM)["metric_thresholds"] == "not_applicable"
    failed = {gate for gate, said in weighed(REGULATED).items() if said == "fail"}
    assert failed == {"metric_thresholds", "reviewed", "documented"}


def test_with_limits_and_two_people_at_other_accounts_regulated_passes() -> None:
    limits = [ModelRules(name="f*", thresholds={"roc_auc": Threshold(min=0.85)})]
    ours = REGULATED.model_copy(update={"models": limits})
    both = review(approval(), approval("bo", account="bo"))
    card = ("description", "limitations", "use_case")
    assert set(weighed(ours, review=both, card=card).values()) == {"pass"}
    at_the_desk = review(approval(), approval("bo", account="dev"))
    assert weighed(ours, review=at_the_desk, card=card)["segregation_of_duties"] == "fail"


@pytest.mark.parametrize("policy", [SOLO, TEAM, REGULATED])
def test_a_rollback_asks_only_what_the_policy_lists_for_it(policy: PromotionPolicy) -> None:
    bare = {"review": None, "scan": None, "metrics": {}, "ended": None, "rollback": True}
    assert weighed(policy, **bare) == dict.fromkeys(INTEGRITY, "pass")
    assert weighed(policy, **bare, quarantined=True)["intact"] == "fail"
    assert list(weighed(policy, **bare, stage="Staging")) == list(weighed(policy, stage="Staging"))


@pytest.mark.parametrize(
    ("facts", "refused"),
    [
        (review(status="revoked", withdrawn=True), True),
        (review(status="rejected", withdrawn=True), True),
        (review(status="open", withdrawn=True), True),
        (review(status="expired"), False),
        (review(status="open"), False),
        (review(same_policy=False), False),
    ],
)
def test_what_the_committee_took_back_is_no_rollback(facts: ReviewFacts, refused: bool) -> None:
    found = weighed(TEAM, review=facts, rollback=True)
    assert list(found) == [*INTEGRITY, *(["reviewed"] if refused else [])]
    assert found.get("reviewed", "fail") == "fail"
    strict = TEAM.model_copy(update={"rollback": [*INTEGRITY, "reviewed"]})
    assert list(weighed(strict, review=facts, rollback=True)) == [*INTEGRITY, "reviewed"]


@pytest.mark.parametrize(
    ("tiers", "tier"),
    [({"standard": TEAM.tiers["standard"]}, "scan-config"), ({}, "standard"), (TEAM.tiers, "unheard-of"),
     ({"standard": {"Staging": {}}}, "standard")],
)  # fmt: skip
def test_what_the_policy_does_not_provide_for_fails(tiers: dict[str, Any], tier: str) -> None:
    (only,) = weigh(TEAM.model_copy(update={"tiers": tiers}), replace(GOOD, tier=tier))  # type: ignore[arg-type]
    assert (only.gate, only.outcome) == ("policy", "fail")
    assert "'intelligentscan policy activate FILE --reason …'" in only.detail


def test_the_first_rules_whose_name_matches_count_and_letters_count_in_their_case() -> None:
    def named(pattern: str, least: float) -> ModelRules:
        return ModelRules(name=pattern, thresholds={"m": Threshold(min=least)})

    policy = TEAM.model_copy(update={"models": [named("fraud-eu", 1), named("fraud-*", 2), named("*", 3)]})

    def least(name: str) -> float | None:
        return rules_for(policy, "metric_thresholds", name).model.thresholds["m"].min

    assert [least(n) for n in ("fraud-eu", "fraud-us", "Fraud-us", "fraud-")] == [1, 2, 3, 2]
    assert rules_for(TEAM, "metric_thresholds", "x").model == ModelRules()
    assert rules_for(TEAM, "fresh", "x").settings.max_age_days == 90
    assert rules_for(TEAM, "fresh", "x", stage="Staging").settings == GateSettings()
    assert rules_for(REGULATED, "metric_thresholds", "x").settings.required is True


# What a refusal says


HOSTILE = "x\n](http://evil) <script>`\u202e'; 'intelligentscan unlock x'"


def every_refusal(name: str) -> list[GateResult]:
    """Return the gates' refusals of evidence that lacks everything, or is wrong everywhere, with texts of strangers."""
    limits = ModelRules(name="*", thresholds={name: Threshold(min=0)}, compare=[name])
    policy = REGULATED.model_copy(update={"models": [limits]})
    bad = replace(
        GOOD, name=name, run_author=name, code_version=name, review=review(approval("dev", name=name), review_id=name),
        scan=scan(run_id=name, high=1), metrics={name: -1.0}, champion=Champion(1, {name: 1.0}), card=(),
        signature=False, data=(), ended=0, drift=("d",), sealed=False,
    )  # fmt: skip
    empty = Evidence(name, 1, "Production", False, False, False, True, ("d",), now=NOW)
    found = [r for evidence in (bad, empty) for r in weigh(policy, evidence)]
    changed = [
        replace(bad, scan=None), replace(bad, scan=scan(run_id=name, clean=False)),
        replace(bad, champion=Champion(1, {})),
        replace(bad, review=review(status="open", approvals=(), review_id=name)),
        replace(bad, review=review(missing=("bias",), status="open", review_id=name)),
        replace(bad, review=review(status="revoked", review_id=name)),
        replace(bad, tier="scan-config"), replace(bad, rollback=True, review=review(withdrawn=True)),
    ]  # fmt: skip
    found += [r for evidence in changed for r in weigh(policy, evidence)]
    return [r for r in found if r.outcome == "fail"]


def test_texts_of_strangers_are_bounded_and_escaped_in_refusals() -> None:
    refusals = every_refusal(HOSTILE * 20)
    assert {r.gate for r in refusals} >= {g.name for g in BUILT_IN}
    for result in refusals:
        assert len(result.detail) < 900, result.gate
        assert not re.search(r"[\n\u202e]|\]\(|<script", result.detail), result


def test_every_refusal_names_a_call_that_exists() -> None:
    from intelligentscan.toolsets import BUILT_IN as TOOLSETS
    from intelligentscan.toolsets.toolset import tools_of

    later = {"evaluate_scan_configs"}
    calls = {tool for toolset in TOOLSETS.values() for tool in tools_of(toolset)} | later
    groups: Any = get_command(app)
    for result in every_refusal("fm"):
        commands = re.findall(r"'intelligentscan ([a-z]+) ?([a-z]*)", result.detail)
        assert commands or any(call in result.detail for call in calls), result
        for group, verb in commands:
            found = groups.commands[group]
            assert not hasattr(found, "commands") or verb in found.commands, result


# What holds for all evidence


def people() -> SearchStrategy[str]:
    return st.sampled_from(["dev", "rae", "bo", "al", ""])


def mostly(good: Any, other: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return the good value nearly always, so that much of what is drawn passes."""
    return st.integers(0, 19).flatmap(lambda n: other if n == 13 else st.just(good))


approvals = st.builds(
    Approval,
    person=people(),
    name=st.sampled_from(["dev", "rae", "bo", "dana", "", " Rae"]),
    proof=st.sampled_from(["authenticated"] * 3 + ["self-asserted"]),
    account=people(),
    until=st.sampled_from([NOW - 1, NOW, *[NOW + 1] * 6]),
)
reviews = st.builds(
    ReviewFacts,
    review_id=st.just("r"),
    status=mostly("approved", st.sampled_from(["open", "rejected", "revoked", "expired", "superseded"])),
    same_bytes=mostly(True, st.booleans()),
    same_policy=mostly(True, st.booleans()),
    requester=people(),
    missing=mostly((), st.just(("bias",))),
    approvals=st.lists(approvals, max_size=4).map(tuple),
    withdrawn=st.booleans(),
)
numbers = st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf, -math.inf])
metrics = st.dictionaries(st.sampled_from(["roc_auc", "loss", "m"]), numbers, max_size=3)


evidence = st.builds(
    replace,
    st.just(GOOD),
    review=st.integers(0, 19).flatmap(lambda n: st.none() if n == 13 else reviews),
    requesters=st.lists(people().filter(bool), max_size=2).map(tuple),
    run_author=st.sampled_from([None, "dana", "dev"]),
    scan=mostly(scan(), st.one_of(st.none(), st.builds(scan, high=st.integers(0, 2), clean=st.booleans()))),
    metrics=mostly(GOOD.metrics, metrics),
    champion=mostly(None, st.builds(Champion, st.just(1), metrics)),
    sealed=mostly(True, st.booleans()),
    verified=mostly(True, st.booleans()),
    quarantined=mostly(False, st.booleans()),
    drift=mostly((), st.just(("d",))),
    ended=mostly(NOW, st.one_of(st.none(), st.integers(0, 2 * NOW))),
    code_version=mostly("c", st.none()),
    data=mostly(("d",), st.just(())),
    signature=mostly(True, st.booleans()),
)


def independent(found: Evidence, approval: Approval) -> bool:
    """Tell whether an approval is by an authenticated person who asked for nothing, and counts now."""
    assert found.review is not None
    asked = {*found.requesters, found.review.requester}
    return approval.proof == "authenticated" and found.now < approval.until and approval.person not in asked


def test_nothing_reaches_production_under_team_or_regulated_without_independent_signed_approvals() -> None:
    """Whatever the evidence: who asked cannot be the one who lets it through."""
    limits = [ModelRules(thresholds={"roc_auc": Threshold(min=0.1)}, compare=["roc_auc"])]
    regulated = REGULATED.model_copy(update={"models": limits})
    passes = {"team": 0, "regulated": 0}

    @settings(max_examples=600, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(evidence)
    def holds(found: Evidence) -> None:
        full = replace(found, card=("description", "limitations", "use_case"))
        for policy in (TEAM, regulated):
            results = weigh(policy, full)
            assert results == weigh(policy, full)
            if any(r.outcome == "fail" for r in results):
                continue
            passes[policy.policy] += 1
            review = found.review
            assert review is not None
            assert (review.status, review.same_bytes, review.same_policy) == ("approved", True, True)
            assert found.sealed
            assert not found.quarantined
            by = {a.person for a in review.approvals if independent(found, a)}
            assert len(by) >= policy.review.quorum

    holds()
    assert passes["team"] > 20
    assert passes["regulated"] > 3


@pytest.mark.parametrize("name", BUILT_IN_POLICIES)
def test_evidence_of_nothing_passes_no_gate_of_production(name: str) -> None:
    nothing = Evidence("fm", 1, "Production", False, False, False, False, ("unknown",), now=NOW)
    passing = [r for r in weigh(built_in(name), nothing) if r.outcome == "pass"]
    assert passing == []


def test_every_gate_that_a_policy_can_name_is_built_in_once() -> None:
    from typing import get_args

    assert sorted(gate.name for gate in BUILT_IN) == sorted(get_args(GateName))
