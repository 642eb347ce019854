"""Which tools the switches leave: the stricter always wins."""

from collections.abc import Sequence

import pytest

from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.selection import Selection, select, stricter


def offered(selection: Selection) -> set[str]:
    return {name for toolset in BUILT_IN.values() for name in selection.offers(toolset)}


@pytest.mark.parametrize(
    ("toolsets", "exclude", "read_only", "left"),
    [
        (["registry"], [], False, {"register_model", "get_model", "promote"}),
        (["registry", "registry"], ["promote"], False, {"register_model", "get_model"}),
        (["registry"], [], True, {"get_model"}),
        (["registry"], ["get_model"], True, set()),
        (["governance"], [], True, {"get_history", "verify_integrity"}),
        (["scan"], ["promote"], False, {"scan_vulnerabilities", "log_scan_run", "list_findings"}),
    ],
)
def test_a_tool_is_offered_if_no_switch_leaves_it_out(
    toolsets: list[str], exclude: list[str], read_only: bool, left: set[str]
) -> None:
    assert offered(select(toolsets, exclude, read_only)) == left


def test_without_switches_everything_is_offered() -> None:
    assert len(offered(select(None, (), False))) == 14


@pytest.mark.parametrize(
    ("toolsets", "exclude", "known"),
    [
        ([], [], "tracking, scan, registry, governance"),
        (["trackin"], [], "tracking, scan"),
        (None, ["promot"], "promote"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    toolsets: list[str] | None, exclude: list[str], known: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        select(toolsets, exclude, False)
    assert known in caught.value.next


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, None),
        (["scan"], None, ["scan"]),
        (None, ("tracking",), ["tracking"]),
        (["registry", "scan"], ("tracking", "registry"), ["registry"]),
    ],
)
def test_of_two_choices_of_toolsets_what_both_allow_is_left(
    one: Sequence[str] | None, other: Sequence[str] | None, both: list[str] | None
) -> None:
    left = stricter(one, other)
    assert (left if left is None else list(left)) == both


def test_two_choices_without_a_common_toolset_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="no toolset in common"):
        stricter(["scan"], ["tracking"])
