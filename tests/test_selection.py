"""Which tools the switches leave: the stricter always wins."""

from collections.abc import Sequence

import pytest

from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.selection import Selection, select, stricter
from intelligentscan.toolsets.toolset import tools_of


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


def test_without_switches_everything_is_offered_that_is_on_by_default() -> None:
    on = {name for toolset in BUILT_IN.values() for name, facts in tools_of(toolset).items() if facts.by_default}
    assert offered(select(None, (), False)) == on
    assert len(on) <= 16
    assert "onboard_product" not in on


@pytest.mark.parametrize(
    ("toolsets", "exclude", "read_only", "is_offered"),
    [
        (None, [], False, True),
        (["governance"], [], False, True),
        (["registry"], [], False, False),
        (None, ["onboard_product"], False, False),
        (None, [], True, False),
    ],
)
def test_a_tool_that_is_off_is_offered_if_it_is_named_and_no_other_switch_leaves_it_out(
    toolsets: list[str] | None, exclude: list[str], read_only: bool, is_offered: bool
) -> None:
    selection = select(toolsets, exclude, read_only, ["onboard_product"])
    assert ("onboard_product" in offered(selection)) == is_offered
    without = select(toolsets, exclude, read_only)
    assert offered(without) == offered(selection) - {"onboard_product"}


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (select(None, (), False), "--tools (INTELLIGENTSCAN_TOOLS)"),
        (select(["registry"], (), False, ["onboard_product"]), "--toolsets"),
        (select(None, ["onboard_product"], False, ["onboard_product"]), "--exclude-tools"),
        (select(None, (), True, ["onboard_product"]), "read-only"),
    ],
)
def test_asked_for_a_tool_that_is_off_the_server_names_the_switch(selection: Selection, said: str) -> None:
    assert said in str(selection.why_not("onboard_product"))


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
    with pytest.raises(InvalidArgument, match="INTELLIGENTSCAN_TOOLS=promote have no tool in common"):
        stricter(["onboard_product"], ["promote"], "tools")


def test_a_tool_to_add_that_does_not_exist_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="There is no tool 'onboard'") as caught:
        select(None, (), False, ["onboard"])
    assert "onboard_product" in caught.value.next
