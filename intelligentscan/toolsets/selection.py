"""Which tools a server offers: toolsets chosen, single tools added or excluded, writes switched off."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from intelligentscan.domain.errors import IntelligentScanError, InvalidArgument, ReadOnly, UnknownTool
from intelligentscan.domain.text import untrusted
from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.toolset import Toolset, tools_of


@dataclass(frozen=True, slots=True)
class Selection:
    """The switches of a server; the stricter of two always wins.

    Attributes:
        toolsets: names of the toolsets in force.
        excluded: tools left out, whatever the toolsets say.
        read_only: tools that write are left out, whatever the rest says.
        added: tools that are off by default and were named; their toolset must be in force too.
    """

    toolsets: tuple[str, ...]
    excluded: frozenset[str]
    read_only: bool
    added: frozenset[str] = frozenset()

    @property
    def classes(self) -> list[type[Toolset]]:
        """The toolset classes in force."""
        return [BUILT_IN[name] for name in self.toolsets]

    def offers(self, toolset: type[Toolset]) -> list[str]:
        """Return the names of the toolset's tools that are offered."""
        if toolset.name not in self.toolsets:
            return []
        return [
            name
            for name, facts in tools_of(toolset).items()
            if name not in self.excluded
            and (facts.read_only or not self.read_only)
            and (facts.by_default or name in self.added)
        ]

    def why_not(self, tool: str) -> IntelligentScanError:
        """Return the error for a tool that is not offered: the switch that leaves it out, or tools of a near name."""
        for toolset in BUILT_IN.values():
            if (facts := tools_of(toolset).get(tool)) is None:
                continue
            if self.read_only and not facts.read_only:
                return ReadOnly(
                    f"{tool} writes, and this server is read-only.",
                    next="ask the person who runs it to start it without --read-only (INTELLIGENTSCAN_READ_ONLY).",
                )
            if tool in self.excluded:
                switch = "--exclude-tools (INTELLIGENTSCAN_EXCLUDE_TOOLS) leaves it out"
            elif toolset.name not in self.toolsets:
                switch = f"its toolset '{toolset.name}' is not among --toolsets (INTELLIGENTSCAN_TOOLSETS)"
            else:
                switch = "it is off unless --tools (INTELLIGENTSCAN_TOOLS) names it"
            return UnknownTool(
                f"{tool} is not offered by this server: {switch}.",
                next="use the tools of tools/list, or ask the person who runs the server to change that setting.",
            )
        offered = [name for toolset in self.classes for name in self.offers(toolset)]
        near = difflib.get_close_matches(tool[:60].lower(), offered, n=3)
        return UnknownTool(
            f"There is no tool '{untrusted(tool, 60)}'.",
            next=f"use {' or '.join(near)}." if near else f"choose from: {', '.join(offered) or 'none here'}.",
            details={"tools": near or offered},
        )


def select(
    toolsets: Sequence[str] | None, exclude: Iterable[str], read_only: bool, add: Iterable[str] = ()
) -> Selection:
    """Return the selection for the given switches.

    Args:
        toolsets: names of toolsets; None means all built-in ones.
        exclude: names of tools to leave out.
        read_only: leave out every tool that writes.
        add: names of tools to offer although they are off by default.

    Raises:
        InvalidArgument: a toolset or a tool does not exist, or no toolset is named.
    """
    named = tuple(BUILT_IN) if toolsets is None else tuple(dict.fromkeys(toolsets))
    if not named:
        raise InvalidArgument("No toolset is chosen.", next=f"name some of: {', '.join(BUILT_IN)}.")
    _known(named, list(BUILT_IN), "toolset")
    excluded, added = frozenset(exclude), frozenset(add)
    _known(excluded | added, [tool for toolset in BUILT_IN.values() for tool in tools_of(toolset)], "tool")
    return Selection(named, excluded, read_only, added)


def stricter(one: Sequence[str] | None, other: Sequence[str] | None, what: str = "toolsets") -> Sequence[str] | None:
    """Return what two settings both allow; None says nothing.

    Args:
        one: of the option.
        other: of the environment.
        what: the option's name.

    Raises:
        InvalidArgument: they have none in common.
    """
    if one is None or other is None:
        return other if one is None else one
    both = [name for name in one if name in other]
    if not both and one and other:
        raise InvalidArgument(
            f"--{what} {','.join(one)} and INTELLIGENTSCAN_{what.upper()}={','.join(other)} have no "
            f"{what.removesuffix('s')} in common.",
            next=f"name {what} that both allow; the stricter setting always wins.",
        )
    return both


def _known(names: Iterable[str], known: list[str], kind: str) -> None:
    for name in sorted(names):
        if name not in known:
            raise InvalidArgument(
                f"There is no {kind} '{untrusted(name, 60)}'.", next=f"choose from: {', '.join(known)}."
            )
