"""Gates on metrics: are they good enough, and no worse than those of the version that is live?"""

import re
from collections.abc import Iterable, Iterator, Mapping

from intelligentscan.domain.metrics import higher_is_better
from intelligentscan.domain.policy import GateName, Threshold
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.interface import Champion, Evidence, Rules
from intelligentscan.gates.outcome import (
    another_run,
    does_not_apply,
    failed,
    finite,
    missing,
    passed,
    shortened,
    too_weak,
)

_ACTIVATE = "an administrator names others under 'models' and runs 'intelligentscan policy activate FILE --reason …'"
_MAX_METRIC = 60
# fmt: off
_USUAL = (
    "roc_auc", "auc", "f1", "f1_score", "accuracy", "accuracy_score", "average_precision", "r2", "r2_score", "rmse",
    "root_mean_squared_error", "mae", "mean_absolute_error", "mse", "mean_squared_error", "mape", "log_loss", "logloss",
    "loss",
)
# fmt: on
_HELD_OUT = ("test", "eval", "val", "valid", "validation")


class MetricThresholds:
    """Is every metric that the policy names within its bounds?"""

    name: GateName = "metric_thresholds"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Fail what is outside, missing or no number; a bound itself is inside."""
        thresholds = rules.model.thresholds
        if not thresholds:
            return _nothing_named(self.name, rules, "the policy names no thresholds for this model")
        wrong = [w for key, bounds in thresholds.items() if (w := _outside(key, evidence.metrics.get(key), bounds))]
        if wrong:
            origin = evidence.metrics_origin if any(key in evidence.metrics for key in thresholds) else ""
            return failed(
                self.name, f"{shortened(wrong)}; {another_run(evidence, 'a run that keeps the bounds')}", origin
            )
        if weak := too_weak(self.name, evidence.metrics_origin, rules, "metrics"):
            return weak
        within = [f"{_named(key)} {_number(evidence.metrics[key])}" for key in thresholds]
        return passed(self.name, f"within bounds: {shortened(within)}", evidence.metrics_origin)


class NotWorseThanChampion:
    """Does the version do at least as well as the one that is in Production, or was there last?"""

    name: GateName = "not_worse_than_champion"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Compare the metrics that the policy names, or else the first usual one that both have."""
        champion = evidence.champion
        if champion is None:
            return does_not_apply(self.name, "no other version is in Production")
        keys = rules.model.compare or list(rules.model.thresholds)
        if not keys:
            key = _first_usual(champion.metrics, evidence.metrics)
            if key is None:
                return _nothing_named(self.name, rules, "the policy names no metrics and there is no usual one")
            keys = [key]
        worse = [w for key in dict.fromkeys(keys) if (w := _worse(key, evidence, champion, rules.model.tolerance))]
        if worse:
            unknown = [key for key in keys if not finite(champion.metrics.get(key))]
            way_out = _ACTIVATE if unknown else another_run(evidence, "a run that has them and is as good")
            return failed(self.name, f"{shortened(worse)}; {way_out}", evidence.metrics_origin)
        if weak := too_weak(self.name, evidence.metrics_origin, rules, "metrics"):
            return weak
        told = [f"{_named(k)} {_number(evidence.metrics[k])} against {_number(champion.metrics[k])}" for k in keys]
        return passed(self.name, f"version {champion.version}: {shortened(told)}", evidence.metrics_origin)


def _nothing_named(gate: GateName, rules: Rules, why: str) -> GateResult:
    return missing(gate, f"{why}; {_ACTIVATE}") if rules.settings.required else does_not_apply(gate, why)


def _outside(key: str, value: float | None, bounds: Threshold) -> str | None:
    if value is None:
        return f"the run has no metric {_named(key)}"
    if not finite(value):
        return f"{_named(key)} is {_number(value)}"
    if bounds.min is not None and value < bounds.min:
        return f"{_named(key)} is {_number(value)}, less than {_number(bounds.min)}"
    if bounds.max is not None and value > bounds.max:
        return f"{_named(key)} is {_number(value)}, more than {_number(bounds.max)}"
    return None


def _worse(key: str, evidence: Evidence, champion: Champion, tolerance: float) -> str | None:
    ours, theirs = evidence.metrics.get(key), champion.metrics.get(key)
    if ours is None or not finite(ours):
        return f"the run has no metric {_named(key)}" if ours is None else f"{_named(key)} is {_number(ours)}"
    if theirs is None or not finite(theirs):
        return f"{_place(champion)} has no number for {_named(key)}"
    as_good = ours >= theirs - tolerance if higher_is_better(key) else ours <= theirs + tolerance
    if as_good:
        return None
    return f"{_named(key)} is {_number(ours)}, {_place(champion)} has {_number(theirs)}"


def _place(champion: Champion) -> str:
    return f"version {champion.version} in Production" if champion.live else f"version {champion.version}, there last,"


def _first_usual(theirs: Mapping[str, float], ours: Mapping[str, float]) -> str | None:
    """Return the first usual metric that both have; failing that the champion's own first one, which ours then lacks.

    A number on held-out data goes before a bare one.
    """
    first: str | None = None
    known = {_plain(key): key for key in sorted(theirs, reverse=True) if finite(theirs[key])}
    for form in _forms(_USUAL):
        key = known.get(form)
        if key is None:
            continue
        if key in ours:
            return key
        first = first or key
    return first


def _forms(usual: Iterable[str]) -> Iterator[str]:
    for base in usual:
        for part in _HELD_OUT:
            yield f"{part}_{base}"
            yield f"{base}_{part}"
        yield base


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", key.lower())


def _named(key: str) -> str:
    return f"'{untrusted(key, _MAX_METRIC)}'"


def _number(value: float) -> str:
    return str(value)
