"""A policy read from YAML: data only, bounded, and every mistake named with its line and field.

A policy decides what reaches Production, so nothing in it may mean something else than it seems to: a field that
does not exist, a key that is there twice, a value of another kind, a setting that its gate does not read and rules
that no model can reach are mistakes.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from intelligentscan.domain.errors import InvalidArgument, TooLarge
from intelligentscan.domain.policy import MAX_POLICY_BYTES, GateName, GateSettings, ModelRules, PromotionPolicy
from intelligentscan.domain.text import untrusted

_MAX_DEPTH = 12
_MERGE = "tag:yaml.org,2002:merge"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NUMBERS = {
    _INT: re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"),
    _FLOAT: re.compile(r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)\Z"),
}
"""Numbers as JSON and people write them; YAML 1.1 also takes 1:30 for 90, and 010 for 8."""

_NEXT = "mend it and activate it again; 'intelligentscan policy show solo --json' prints one that is right."
_INTEGRITY: dict[str, tuple[GateName, ...]] = {
    "Staging": ("intact", "not_drifted"),
    "Production": ("sealed", "intact", "not_drifted"),
}
_READS: dict[GateName, frozenset[str]] = {
    "metric_thresholds": frozenset({"origin", "required"}),
    "not_worse_than_champion": frozenset({"origin", "required"}),
    "no_open_findings": frozenset({"origin", "refuse_suppressed"}),
    "fresh": frozenset({"origin", "max_age_days"}),
    "lineage": frozenset({"origin"}),
    "documented": frozenset({"fields"}),
}
"""The settings that each gate looks at; the others look at none."""

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Mistake:
    place: Place
    what: str


class _Refused(Exception):
    """A document that is not read any further."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class _Loader(yaml.SafeLoader):
    """Plain data without references: a few lines of them can stand for gigabytes."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None):
            raise _Refused(line, "anchors and aliases are not read; write it out")
        if getattr(event, "tag", None):
            raise _Refused(line, "tags are not read; write the value as it is")
        if self._depth >= _MAX_DEPTH:
            raise _Refused(line, f"it is nested deeper than {_MAX_DEPTH} levels")
        self._depth += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        if isinstance(node, yaml.MappingNode):
            _distinct(node)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag not in _NUMBERS]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _form in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _form, list("-+.0123456789"))


def from_yaml(text: str) -> PromotionPolicy:
    """Read a policy from YAML, or from JSON, which is YAML too.

    Raises:
        InvalidArgument: it is no policy; the message names line and field.
        TooLarge: it has more than 64 KiB.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_POLICY_BYTES:
        raise TooLarge(
            f"The policy has more than {MAX_POLICY_BYTES // 1024} KiB.", next="shorten it and activate it again."
        )
    root, data = _parsed(text)
    try:
        policy = PromotionPolicy.model_validate(data, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        raise _wrong(root, _Mistake(first["loc"], _told(first["type"], first["msg"]))) from exc
    if (mistake := next(_mistakes(policy), None)) is not None:
        raise _wrong(root, mistake)
    return policy


def _parsed(text: str) -> tuple[yaml.Node, Any]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise _Refused(1, "it is empty")
        return node, loader.construct_document(node)
    except _Refused as exc:
        raise _unreadable(exc.line, exc.what) from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise _unreadable(mark.line + 1 if mark else 1, exc.problem or exc.context or "it is not YAML") from exc
    except (yaml.YAMLError, ValueError, OverflowError) as exc:  # characters YAML does not have; endless numbers
        raise _unreadable(None, "it is not YAML") from exc


def _distinct(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            raise _Refused(line, "a key is a plain text")
        if key.value in seen:
            raise _Refused(line, f"'{untrusted(key.value, 60)}' is there twice")
        seen.add(key.value)


def _told(kind: str, message: str) -> str:
    return "there is no such field" if kind == "extra_forbidden" else untrusted(message, 300)


def _mistakes(policy: PromotionPolicy) -> Iterator[_Mistake]:
    """Yield what a policy says that cannot be meant, though each field of it is allowed."""
    for tier, stages in policy.tiers.items():
        for stage, always in _INTEGRITY.items():
            place: Place = ("tiers", tier, stage)
            gates = next((g for s, g in stages.items() if s == stage), None)
            if gates is None:
                yield _Mistake(("tiers", tier), f"it says nothing about {stage}; name its gates")
                continue
            if lacking := [gate for gate in always if gate not in gates]:
                yield _Mistake(place, f"it lacks {', '.join(lacking)}, which no policy switches off")
            if policy.review.four_eyes and "reviewed" in gates and "segregation_of_duties" not in gates:
                yield _Mistake(place, "review.four_eyes is true, so beside reviewed it needs segregation_of_duties")
            if "segregation_of_duties" in gates and "reviewed" not in gates:
                yield _Mistake((*place, "segregation_of_duties"), "it needs reviewed beside it")
            elif "segregation_of_duties" in gates and not policy.review.four_eyes:
                yield _Mistake((*place, "segregation_of_duties"), "it asks nothing unless review.four_eyes is true")
            for name, settings in gates.items():
                yield from _misread((*place, name), name, settings)
    if not policy.tiers:
        yield _Mistake(("tiers",), "it names no tier; name 'standard'")
    if lacking := [gate for gate in _INTEGRITY["Production"] if gate not in policy.rollback]:
        yield _Mistake(("rollback",), f"it lacks {', '.join(lacking)}, which no policy switches off")
    if policy.review.separate_accounts and not policy.review.four_eyes:
        yield _Mistake(("review", "separate_accounts"), "it means nothing unless four_eyes is true")
    yield from _about_models(policy.models)


def _misread(place: Place, name: GateName, settings: GateSettings) -> Iterator[_Mistake]:
    usual = GateSettings()
    for field in GateSettings.model_fields:
        if getattr(settings, field) != getattr(usual, field) and field not in _READS.get(name, ()):
            yield _Mistake((*place, field), f"the gate {name} does not look at {field}")
    if name == "fresh" and settings.max_age_days is None:
        yield _Mistake(place, "it needs max_age_days")
    if name == "documented" and not settings.fields:
        yield _Mistake(place, "it needs fields")


def _about_models(models: list[ModelRules]) -> Iterator[_Mistake]:
    earlier: set[str] = set()
    for number, model in enumerate(models):
        place: Place = ("models", number)
        if model.name in earlier or "*" in earlier:
            yield _Mistake((*place, "name"), "an earlier entry matches all of its models, so it never counts")
        earlier.add(model.name)
        if not math.isfinite(model.tolerance):
            yield _Mistake((*place, "tolerance"), "it is no finite number")
        for metric, bounds in model.thresholds.items():
            at: Place = (*place, "thresholds", metric)
            given = [bound for bound in (bounds.min, bounds.max) if bound is not None]
            if not given:
                yield _Mistake(at, "it needs min or max")
            elif not all(map(math.isfinite, given)):
                yield _Mistake(at, "its bounds must be finite numbers")
            elif bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
                yield _Mistake(at, "its min is more than its max")


def _wrong(root: yaml.Node, mistake: _Mistake) -> InvalidArgument:
    where = ".".join(untrusted(str(part), 60) for part in mistake.place if part != "[key]") or "the document"
    line = _line(root, mistake.place)
    return InvalidArgument(
        f"The policy is wrong in line {line}, at {where}: {mistake.what}.",
        next=_NEXT,
        details={"line": line, "field": where},
    )


def _unreadable(line: int | None, what: str) -> InvalidArgument:
    where = f" in line {line}" if line is not None else ""
    return InvalidArgument(
        f"The policy cannot be read{where}: {untrusted(what, 200)}.",
        next=_NEXT,
        details={"line": line} if line is not None else {},
    )


def _line(node: yaml.Node, place: Place) -> int:
    """Return the line of a field, or of the last part of its place that is there."""
    line = node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        else:
            break
    return line
