"""Rule aliases: which ids mean one rule to the same engine, so that a renamed rule makes nothing new and nothing fixed.

Engines change the ids they write: ruff uses names in preview mode and moves rules between prefixes, bandit splits a
check when Python changes, semgrep puts the path of its configuration before the id. Rules of two engines are never one
rule here; what bandit and ruff both report stays two findings, which share a cluster.
"""

from collections.abc import Iterable

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.severity_map import canonical_rule, shared_rule

_RENAMED = {
    # MD5 and SHA-1 of hashlib: reported as B303 before Python 3.9, as B324 since then.
    ("bandit", "B303"): "B324",
    # The check for eval, before ruff took over the numbers of bandit.
    ("ruff", "PGH001"): "S307",
}
_PREFIXED = ("semgrep", "opengrep")


def matching_rule(engine: str, rule: str) -> str:
    """Return the id that all names of a rule of this engine share.

    Semgrep's id is the dotted path of the file that holds the rule, as it was named on the command line, and the id
    given in that file; only the latter stays. Rules of equal ids in two files of a configuration become one here,
    which costs nothing: findings are still matched one to one by place and text.

    Args:
        engine: the engine's name, such as ruff, semgrep or semgrep-oss.
        rule: the id as it was reported.
    """
    rule = canonical_rule(engine, rule)
    if engine.startswith(_PREFIXED):
        return rule.rpartition(".")[2] or rule
    return _RENAMED.get((engine, rule), rule)


def cluster_of(finding: Finding) -> str:
    """Return an id that findings of one scan share if bandit and ruff mean the same defect on the same line."""
    rule = shared_rule(finding.engine, finding.rule)
    return sha256_hex("\0".join((rule, finding.path or "", str(finding.line or 0))).encode("utf-8", "replace"))[:16]


def clusters(findings: Iterable[Finding]) -> int:
    """Return how many defects the open findings are: each cluster counts as often as its most frequent rule does."""
    count: dict[tuple[str, str], int] = {}
    most: dict[str, int] = {}
    for finding in findings:
        if finding.counts:
            cluster = cluster_of(finding)
            number = count[cluster, finding.engine] = count.get((cluster, finding.engine), 0) + 1
            most[cluster] = max(most.get(cluster, 0), number)
    return sum(most.values())
