"""Which rules of an engine a configuration asks for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.scanners.config import EngineConfig

_CODE = re.compile(r"([A-Z]+)([0-9]*)")
_JOINTS = "-_./"


@dataclass(frozen=True, slots=True)
class Selection:
    """The rules to run.

    Attributes:
        rules: their ids; empty if the engine does not tell which it has.
        warnings: selectors that select nothing.
    """

    rules: tuple[str, ...]
    options: EngineConfig
    warnings: tuple[str, ...] = ()

    def wants(self, rule: str) -> bool:
        """Tell whether results of a rule were asked for, also when the engine does not tell which rules it has."""
        if self.rules:
            return rule in self.rules
        if any(selects(selector, rule) for selector in self.options.ignore):
            return False
        return not self.options.select or any(selects(selector, rule) for selector in self.options.select)


def select_rules(
    engine: str, version: str, known: Sequence[str], options: EngineConfig, default: Sequence[str]
) -> Selection:
    """Return the rules that the options ask for.

    Args:
        engine: name of the engine.
        version: its release.
        known: ids of its rules; empty if it does not tell.
        options: select and ignore of the configuration.
        default: selectors when none are given; empty means all rules.

    Raises:
        InvalidArgument: no rule remains.
    """
    if not known:
        return Selection((), options)
    select = options.select or default
    chosen = [rule for rule in known if not select or any(selects(selector, rule) for selector in select)]
    rules = tuple(rule for rule in chosen if not any(selects(selector, rule) for selector in options.ignore))
    if not rules:
        raise InvalidArgument(
            f"The configuration selects no rule of {engine} {version}.",
            next=f"change engines.{engine}.select and ignore in the configuration, or leave {engine} out.",
        )
    unknown = [s for s in (*select, *options.ignore) if not any(selects(s, rule) for rule in known)]
    said = (f"{engine} {version} has no stable rule {selector}; nothing was run for it." for selector in unknown)
    return Selection(rules, options, tuple(said))


def selects(selector: str, rule: str) -> bool:
    """Tell whether a selector takes a rule: the rule itself, or its beginning up to a joint.

    In codes the joint is between letters and digits and among the digits: S3 takes S301, and S does not take SIM101.
    """
    wanted, given = _CODE.fullmatch(selector), _CODE.fullmatch(rule)
    if wanted is not None and given is not None:
        return wanted[1] == given[1] and given[2].startswith(wanted[2])
    if rule == selector or not rule.startswith(selector):
        return rule == selector
    return selector[-1] in _JOINTS or rule[len(selector)] in _JOINTS
