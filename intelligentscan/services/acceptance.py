"""Whether what came to Production past promote may be accepted: only what promote would have let through."""

import time
from dataclasses import replace

from intelligentscan.domain.errors import GatesFailed
from intelligentscan.domain.registry import ALIAS_OF_STAGE, PREVIOUS
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.policy import weigh
from intelligentscan.services.drift import all_versions, drift_of
from intelligentscan.services.evidence import EvidenceGatherer
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE
from intelligentscan.stores.interface import Stores, VersionRecord

_CHAMPION = ALIAS_OF_STAGE["Production"]


async def refuse_entered(store: StoreAccess, gatherer: EvidenceGatherer, name: str) -> None:
    """Refuse to accept that a version came to Production past the gates, unless it would have passed them.

    Raises:
        GatesFailed: it would not.
    """
    entered, moved = await store.read(lambda s: (_entered(s, name), _moved(s, name)))
    shown = untrusted(name, 80)
    for version in entered:
        gathered = await gatherer.gather(version, "Production", int(time.time() * 1000), record=False)
        drift = tuple(each for each in gathered.evidence.drift if each not in moved)
        weighed = weigh(gathered.policy.policy, replace(gathered.evidence, drift=drift))
        failed = [gate for gate in weighed if gate.outcome == "fail"]
        if failed:
            named = "; ".join(f"{gate.gate}: {gate.detail}" for gate in failed)
            raise GatesFailed(
                f"Version {version.version} of '{shown}' has come to Production, or to an alias that stands for it, "
                f"past promote; accepting that would be a promotion, and {len(failed)} gates fail.",
                next=f"put it back with 'intelligentscan reconcile {shown} --reason …', then call promote with version "
                f"{version.version}; {named}.",
                details={"gates": [gate.model_dump() for gate in failed]},
            )


def _entered(stores: Stores, name: str) -> list[VersionRecord]:
    """Return the versions that stand in Production, or under an alias that says so, and not by the record."""
    with stores.governance.reading() as read:
        stages, aliases = read.stages(DEFAULT_WORKSPACE, name), read.aliases(DEFAULT_WORKSPACE, name)
        were_live = read.ever_live(DEFAULT_WORKSPACE, name)
    model = stores.registry.get_model(name)
    actual = model.aliases if model else {}
    there = all_versions(stores, name)
    entered = {v.version for v in there if v.stage == "Production" and stages.get(v.version) != "Production"}
    if actual.get(_CHAMPION) != aliases.get(_CHAMPION):
        entered.add(actual.get(_CHAMPION, 0))
    if actual.get(PREVIOUS) != aliases.get(PREVIOUS) and actual.get(PREVIOUS) not in were_live:
        entered.add(actual.get(PREVIOUS, 0))
    return [v for v in there if v.version in entered]


def _moved(stores: Stores, name: str) -> set[str]:
    return {problem.what for problem in drift_of(stores, name) if problem.code in ("ALIAS", "STAGE")}
