"""The rules of one SARIF run: which rule a result means, and what the rule says about it.

Producers link a result to its rule by id, by index, by a reference object, into the driver or into an
extension, or not at all. Everything is looked up in tables made once per run.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from intelligentscan.scanners.interface import Sarif

UNKNOWN_RULE = "unknown"
MAX_RULE_ID = 250
MAX_CWES = 20
_MAX_TAXONOMIES = 100
_CWE = re.compile(r"\bcwe[-_ :/]?0*([1-9][0-9]{0,4})\b", re.IGNORECASE)
_CWE_PROPERTIES = ("cwe", "CWE", "cwes", "cwe_id")
_NUMBER = re.compile(r"0*([1-9][0-9]{0,4})")
_SECRET_WORDS = re.compile(
    r"secret|credential|passw(?:or)?d|(?:api|private|access)[-_. ]?key|(?:access|auth)[-_. ]?token"
    r"|hard-?coded[-_. ]?(?:key|token)",
    re.IGNORECASE,
)
_SECRET_CWES = frozenset({"CWE-259", "CWE-321", "CWE-798"})
_Link = tuple[Any, ...]
_SECRET_CODES = frozenset({"B105", "B106", "B107", "S105", "S106", "S107"})
_SECRET_SCANNERS = re.compile(
    r"gitleaks|trufflehog|detect-?secrets|betterleaks|kingfisher|ggshield|gitguardian|nosey-?parker|secret",
    re.IGNORECASE,
)


class Taxonomies:
    """The taxonomies of one run, in which a reference may name a taxon by its place alone."""

    def __init__(self, run: Sarif) -> None:
        self._components = as_list(run.get("taxonomies"))[:_MAX_TAXONOMIES]

    def cwes(self, reference: Sarif) -> list[str]:
        """Return the CWE that a reference to a taxon means, if it means one."""
        pointer = as_object(reference.get("toolComponent"))
        component = self._component(pointer)
        taxon = _at(component.get("taxa"), reference.get("index"))
        identifier = text_of(reference.get("id")) or text_of(taxon.get("id"))
        name = text_of(pointer.get("name")) or text_of(component.get("name"))
        if "cwe" in name.lower() and (match := _NUMBER.fullmatch(identifier.strip())):
            return [f"CWE-{match[1]}"]
        return _in_text(identifier)

    def _component(self, pointer: Sarif) -> Sarif:
        for key in ("guid", "name"):
            if wanted := text_of(pointer.get(key)).lower():
                for component in objects(self._components):
                    if text_of(component.get(key)).lower() == wanted:
                        return component
        return _at(self._components, pointer.get("index"))


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """What a run says about one rule."""

    id: str
    descriptor: Sarif = field(default_factory=dict)
    level: str | None = None
    cwes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    secret: bool = False
    strings: Sarif = field(default_factory=dict)
    taxonomies: Taxonomies = field(default_factory=lambda: Taxonomies({}))


class RuleBook:
    """Finds the rule of a result in constant time."""

    def __init__(self, run: Sarif) -> None:
        tool = as_object(run.get("tool"))
        driver = as_object(tool.get("driver"))
        self.scanner = text_of(driver.get("name"))
        self.only_secrets = bool(_SECRET_SCANNERS.search(self.scanner))
        self._components = [driver, *objects(tool.get("extensions"))]
        self._rules = [as_list(component.get("rules")) for component in self._components]
        self._by_id: dict[str, tuple[int, Sarif]] = {}
        self._by_guid: dict[str, tuple[int, Sarif]] = {}
        for number, rules in enumerate(self._rules):
            for descriptor in rules:
                if isinstance(descriptor, dict):
                    self._register(number, descriptor)
        self._facts: dict[tuple[int, int, str], RuleFacts] = {}
        self._linked: dict[_Link, RuleFacts] = {}
        self._taxonomies = Taxonomies(run)
        self._overrides = [_overrides(invocation) for invocation in objects(run.get("invocations"))]

    def _register(self, component: int, descriptor: Sarif) -> None:
        if rule := text_of(descriptor.get("id")):
            self._by_id.setdefault(rule, (component, descriptor))
        if guid := text_of(descriptor.get("guid")):
            self._by_guid.setdefault(guid.lower(), (component, descriptor))

    def listed(self) -> tuple[str, ...]:
        """Return the ids of all rules the run lists, each once."""
        return tuple(self._by_id)

    def of(self, result: Sarif) -> RuleFacts:
        """Return the rule a result means; an unlinked result gets the placeholder id `unknown`."""
        link = _link(result)
        known = self._linked.get(link) if link is not None else None
        if known is None:
            known = self._find(result)
            if link is not None:
                self._linked[link] = known
        return known

    def _find(self, result: Sarif) -> RuleFacts:
        reference = as_object(result.get("rule"))
        named = text_of(result.get("ruleId")) or text_of(reference.get("id"))
        component, descriptor = self._descriptor(result, reference, named)
        rule = named or (text_of(descriptor.get("id")) if descriptor else "") or UNKNOWN_RULE
        key = (component, id(descriptor) if descriptor else 0, rule)
        facts = self._facts.get(key)
        if facts is None:
            facts = self._facts[key] = self._read(rule, component, descriptor or {})
        return facts

    def level_override(self, result: Sarif, rule: str) -> str | None:
        """Return the level that the command line of the scan set for the rule, if it did."""
        if not self._overrides:
            return None
        index = whole(as_object(result.get("provenance")).get("invocationIndex"))
        if index is None or not 0 <= index < len(self._overrides):
            index = 0 if len(self._overrides) == 1 else None
        return None if index is None else self._overrides[index].get(rule)

    def _descriptor(self, result: Sarif, reference: Sarif, named: str) -> tuple[int, Sarif | None]:
        component = self._component(as_object(reference.get("toolComponent")))
        index = whole(result.get("ruleIndex"))
        if index is None:
            index = whole(reference.get("index"))
        rules = self._rules[component] if component < len(self._rules) else []
        if index is not None and 0 <= index < len(rules) and isinstance(rules[index], dict):
            found = text_of(rules[index].get("id"))
            if not named or not found or found == named or named.startswith(found + "/"):
                return component, rules[index]
        if (guid := text_of(reference.get("guid"))) and (hit := self._by_guid.get(guid.lower())):
            return hit
        return self._named(named, component)

    def _named(self, named: str, component: int) -> tuple[int, Sarif | None]:
        if hit := self._by_id.get(named):
            return hit
        for _ in range(5):  # a hierarchical id A/B/C may be described as A/B or A
            named, slash, _ = named.rpartition("/")
            if not slash:
                break
            if hit := self._by_id.get(named):
                return hit
        return component, None

    def _component(self, reference: Sarif) -> int:
        index = whole(reference.get("index"))
        if index is not None and 0 <= index + 1 < len(self._components):
            return index + 1
        for key in ("guid", "name"):
            wanted = text_of(reference.get(key))
            for number, component in enumerate(self._components):
                if wanted and text_of(component.get(key)) == wanted:
                    return number
        return 0

    def _read(self, rule: str, component: int, descriptor: Sarif) -> RuleFacts:
        properties = as_object(descriptor.get("properties"))
        tags = tuple(tag for tag in as_list(properties.get("tags")) if isinstance(tag, str))
        cwes = _rule_cwes(descriptor, properties, tags, self._taxonomies)
        level = as_object(descriptor.get("defaultConfiguration")).get("level")
        owner = self._components[component] if component < len(self._components) else {}
        strings = {**as_object(owner.get("globalMessageStrings")), **as_object(descriptor.get("messageStrings"))}
        name = text_of(descriptor.get("name"))
        secret = (
            self.only_secrets
            or rule in _SECRET_CODES
            or not _SECRET_CWES.isdisjoint(cwes)
            or any(_SECRET_WORDS.search(text[:500]) for text in (rule, name, *tags))
        )
        level = level if isinstance(level, str) else None
        return RuleFacts(rule, descriptor, level, cwes, tags, secret, strings, self._taxonomies)


def _link(result: Sarif) -> _Link | None:
    """Return everything by which a result names its rule, as a key; None if some of it is no plain value."""
    index, reference = result.get("ruleIndex"), result.get("rule")
    link: _Link = (result.get("ruleId"), index)
    if reference is not None:
        if not isinstance(reference, dict):
            return None
        index = reference.get("index")
        component = reference.get("toolComponent")
        link += (reference.get("id"), index, reference.get("guid"))
        if isinstance(component, dict):
            link += (component.get("index"), component.get("guid"), component.get("name"))
    for part in link:
        # Not isinstance: True and 1.0 would find what 1 stands for.
        if part.__class__ is not str and part.__class__ is not int and part is not None:
            return None
    return link


def is_secret_result(facts: RuleFacts, result: Sarif) -> bool:
    """Tell whether a result reports a password or key, so that its texts may hold it."""
    if facts.secret:
        return True
    return bool(result.get("taxa") or result.get("properties")) and not _SECRET_CWES.isdisjoint(
        result_cwes(result, facts)
    )


def result_cwes(result: Sarif, facts: RuleFacts) -> tuple[str, ...]:
    """Return the CWEs that the result itself names."""
    if "taxa" not in result and "properties" not in result:
        return ()
    properties = as_object(result.get("properties"))
    found: list[str] = []
    for taxon in objects(result.get("taxa")):
        found += facts.taxonomies.cwes(taxon)
    found += _cwe_property(properties)
    for tag in as_list(properties.get("tags")):
        found += _in_text(tag)
    return _distinct(found)


def _rule_cwes(descriptor: Sarif, properties: Sarif, tags: Iterable[str], taxonomies: Taxonomies) -> tuple[str, ...]:
    found: list[str] = []
    for relationship in objects(descriptor.get("relationships")):
        found += taxonomies.cwes(as_object(relationship.get("target")))
    found += _cwe_property(properties)
    for tag in tags:
        found += _in_text(tag)
    return _distinct(found)


def _at(rows: Any, index: Any) -> Sarif:
    """Return the object at a place of an array, empty if there is none."""
    rows, place = as_list(rows), whole(index)
    return as_object(rows[place]) if place is not None and 0 <= place < len(rows) else {}


def _cwe_property(properties: Sarif) -> list[str]:
    found: list[str] = []
    for key in _CWE_PROPERTIES:
        if (value := properties.get(key)) is None:
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                item = item.get("id")
            number = _NUMBER.fullmatch(str(item).strip()) if isinstance(item, str | int) else None
            found += [f"CWE-{number[1]}"] if number else _in_text(item)
    return found


def _in_text(text: Any) -> list[str]:
    return [f"CWE-{number}" for number in _CWE.findall(text[:500])] if isinstance(text, str) else []


def _distinct(found: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))[:MAX_CWES]


def _overrides(invocation: Sarif) -> dict[str, str]:
    levels: dict[str, str] = {}
    for override in objects(invocation.get("ruleConfigurationOverrides")):
        rule = text_of(as_object(override.get("descriptor")).get("id"))
        level = as_object(override.get("configuration")).get("level")
        if rule and isinstance(level, str):
            levels[rule] = level
    return levels


def as_object(value: Any) -> Sarif:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return the value if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def objects(value: Any) -> list[Sarif]:
    """Return the JSON objects of an array, and nothing if it is no array."""
    return [item for item in as_list(value) if isinstance(item, dict)]


def whole(value: Any) -> int | None:
    """Return the value if it is a whole number of sensible size, else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return value if isinstance(value, int) and abs(value) < 2**53 else None


def text_of(value: Any, limit: int = MAX_RULE_ID) -> str:
    """Return the value if it is text, cut to the limit and free of lone surrogates, else an empty text."""
    if not isinstance(value, str):
        return ""
    text = value[:limit]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
