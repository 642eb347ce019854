"""How similar two lines are: by the pairs of characters they share (Dice's coefficient on bigrams), which is cheap."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.fingerprint import normalised

LEAST_SIMILARITY = 0.6
NEIGHBOURS = 8
"""Of more findings than this, only those of about the same rank in the changed place are compared."""
MAX_COMPARED = 100_000
"""Comparisons of one matching; places with more candidates than are left are not looked at."""
_SILENCED = re.compile(r"\s*(?:#|//|/\*|--|<!--)[^#\n]*?\b(?:nosec|noqa|nosemgrep|nolint|nosonar)\b.*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """The text by which a finding is recognised.

    Attributes:
        whole: the redacted line without white space; the message if no line is known.
        code: the line without a comment that silences a rule; empty if no line is known.
    """

    whole: str
    code: str

    @staticmethod
    def of(finding: Finding) -> "Text":
        """Return the text of a finding."""
        line = finding.snippet
        return Text(normalised(finding.message if line is None else line), normalised(_SILENCED.sub("", line or "")))

    @cached_property
    def bigrams(self) -> Counter[str]:
        """The pairs of neighbouring characters, with how often each occurs."""
        return Counter(map("".join, zip(self.code, self.code[1:], strict=False)))

    def similarity(self, other: "Text") -> float:
        """Return how similar the two lines are, from 0 to 1."""
        if self.code == other.code:
            return 1.0 if self.code else 0.0
        total = self.bigrams.total() + other.bigrams.total()
        least = min(self.bigrams.total(), other.bigrams.total())
        if not total or 2 * least < LEAST_SIMILARITY * total:
            return 0.0
        return 2 * (self.bigrams & other.bigrams).total() / total
