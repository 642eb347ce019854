"""The policy that combines the gates: which apply to a tier and stage, what each is told, and the policies that ship.

Whatever the policy does not provide for fails: a tier without rules, a stage without rules.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.people import Tier
from intelligentscan.domain.policy import BUILT_IN_POLICIES, GateName, GateSettings, ModelRules, PromotionPolicy
from intelligentscan.domain.registry import GateResult, Stage
from intelligentscan.domain.text import untrusted
from intelligentscan.gates import BUILT_IN
from intelligentscan.gates.interface import Evidence, Rules
from intelligentscan.gates.outcome import MEASURED, version_of
from intelligentscan.gates.policy_yaml import from_yaml

DEFAULT_POLICY = "solo"
_REVIEWED: GateName = "reviewed"


@cache
def built_in(name: str) -> PromotionPolicy:
    """Return a policy that ships.

    Raises:
        KeyError: there is none of this name.
    """
    if name not in BUILT_IN_POLICIES:
        raise KeyError(name)
    text = files("intelligentscan.gates").joinpath("policies", f"{name}.yaml").read_text(encoding="utf-8")
    return from_yaml(text)


def canonical(policy: PromotionPolicy) -> str:
    """Return a policy as canonical JSON (RFC 8785): the one form of it that is kept and whose digest names it.

    Raises:
        InvalidArgument: it holds a number or text that JSON cannot keep.
    """
    try:
        return rfc8785.dumps(policy.model_dump(mode="json")).decode()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as exc:
        raise InvalidArgument(
            "The policy holds a number or a text that JSON cannot keep.",
            next="use finite numbers and whole characters.",
        ) from exc


def from_canonical(document: str) -> PromotionPolicy:
    """Return the policy of a document that `canonical` has made.

    Raises:
        ValueError: it is none that this release can read.
    """
    return PromotionPolicy.model_validate_json(document)


def digest_of(policy: PromotionPolicy) -> str:
    """Return the sha256 of a policy's canonical JSON, in hex."""
    return sha256_hex(canonical(policy).encode())


def rules_for(
    policy: PromotionPolicy,
    gate_name: GateName,
    model_name: str,
    *,
    tier: Tier = "standard",
    stage: Stage = "Production",
) -> Rules:
    """Return what a policy says to one gate for one model; the first of its `models` whose name matches counts.

    Args:
        policy: the policy.
        gate_name: the gate.
        model_name: the registered model.
        tier: the tier whose settings of the gate count.
        stage: the stage whose settings of the gate count; where it does not ask for the gate, the defaults count.
    """
    asked = _asked(policy, tier, stage) or {}
    model = next((m for m in policy.models if fnmatchcase(model_name, m.name)), ModelRules())
    return Rules(asked.get(gate_name, GateSettings()), policy.review, model)


def weigh(policy: PromotionPolicy, evidence: Evidence) -> list[GateResult]:
    """Return the outcome of every gate that the policy asks for, in the order of `BUILT_IN`.

    A demotion asks none. A rollback to what was in Production right before asks only what the policy lists for it,
    unless the committee has taken its approval back or rejected the version since.
    """
    if evidence.stage not in ("Staging", "Production"):
        return []
    if evidence.rollback and evidence.stage == "Production":
        refused = _withdrawn(evidence)
        results = _outcomes(policy, evidence, [g for g in policy.rollback if refused is None or g != _REVIEWED])
        return _ordered([*results, refused]) if refused else results
    asked = _asked(policy, evidence.tier, evidence.stage)
    if asked is None:
        return [_unprovided(policy, evidence)]
    return _outcomes(policy, evidence, asked)


def _asked(policy: PromotionPolicy, tier: Tier, stage: Stage) -> dict[GateName, GateSettings] | None:
    stages = policy.tiers.get(tier)
    if stages is None or (stage != "Staging" and stage != "Production"):
        return None
    return stages.get(stage)


def _outcomes(policy: PromotionPolicy, evidence: Evidence, asked: Iterable[GateName]) -> list[GateResult]:
    wanted = set(asked)
    return [
        gate.check(evidence, rules_for(policy, gate.name, evidence.name, tier=evidence.tier, stage=evidence.stage))
        for gate in BUILT_IN
        if gate.name in wanted
    ]


def _withdrawn(evidence: Evidence) -> GateResult | None:
    """Return the refusal of a version that the committee no longer wants, None if it never said so."""
    review = evidence.review
    if review is None or not review.withdrawn:
        return None
    return GateResult(
        gate=_REVIEWED,
        outcome="fail",
        detail="it was rejected, or its approval was taken back, so a rollback too needs a new approval; call "
        f"request_review {version_of(evidence)} with other evidence, then a reviewer decides",
        origin=MEASURED,
    )


def _ordered(results: list[GateResult]) -> list[GateResult]:
    places = {gate.name: place for place, gate in enumerate(BUILT_IN)}
    return sorted(results, key=lambda result: places[result.gate])  # type: ignore[index]


def _unprovided(policy: PromotionPolicy, evidence: Evidence) -> GateResult:
    return GateResult(
        gate="policy",
        outcome="fail",
        detail=f"the policy '{policy.policy}' says nothing about {evidence.stage} of the tier "
        f"'{untrusted(evidence.tier, 40)}'; an administrator adds it and runs "
        "'intelligentscan policy activate FILE --reason …'",
        origin=MEASURED,
    )


__all__ = [
    "DEFAULT_POLICY",
    "built_in",
    "canonical",
    "digest_of",
    "from_canonical",
    "from_yaml",
    "rules_for",
    "weigh",
]
