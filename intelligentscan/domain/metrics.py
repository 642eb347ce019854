"""Metrics by their names: for which of them more is better."""

import re

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
# fmt: off
_LOWER_IS_BETTER = frozenset({
    "loss", "losses", "logloss", "mlogloss", "error", "errors", "merror", "err", "rmse", "mse", "mae", "mape", "smape",
    "rmsle", "msle", "perplexity", "nll", "l1", "l2", "hinge", "brier", "divergence", "drift", "cost", "wer", "cer",
    "duration", "time", "latency", "seconds", "elapsed", "memory", "mem", "rss", "fpr", "fnr", "fp", "fn",
    "findings", "vulnerabilities", "vulnerability", "failed", "failures", "skipped", "density",
})
# fmt: on
_ENDINGS = ("loss", "deviance")
_UNITS = re.compile(r"(?<!_per)(_s|_ms|_mb|_gb|_bytes)$|critical_count$")


def higher_is_better(metric: str) -> bool:
    """Tell whether more of a metric is better; durations, losses, errors, memory and finding counts are not.

    A leading `neg`, as in scikit-learn's scorer names, turns a loss around.
    """
    words = [word.lower() for word in _WORDS.findall(metric)]
    lower = any(word in _LOWER_IS_BETTER or word.endswith(_ENDINGS) for word in words)
    if lower and "neg" in words:
        return True
    return not (lower or _UNITS.search(metric.lower()))
