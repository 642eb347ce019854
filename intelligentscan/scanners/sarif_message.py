"""The message of one SARIF result: literal text, or an id with arguments filled into the rule's template."""

import re

from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.sarif_rules import RuleFacts, as_list, as_object, text_of

MAX_MESSAGE = 1_000
_MAX_TEMPLATE = 4_000
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(\d{1,3})\}")


def message_of(result: Sarif, facts: RuleFacts, limit: int = _MAX_TEMPLATE) -> str | None:
    """Return the message of a result, or None if neither it nor its rule has one.

    Args:
        result: the SARIF result.
        facts: its rule.
        limit: most characters to read; a text that is still to be redacted needs all of them.
    """
    message = result.get("message")
    if isinstance(message, str):  # against the standard, but it says what is wrong
        return text_of(message, limit) or None
    message = as_object(message)
    template = text_of(message.get("text"), limit) or text_of(message.get("markdown"), limit)
    identifier = text_of(message.get("id"))
    if not template and identifier:
        described = as_object(facts.strings.get(identifier))
        template = text_of(described.get("text"), limit) or text_of(described.get("markdown"), limit)
    if not template:
        return None
    arguments = as_list(message.get("arguments"))
    return _filled(template, [text_of(item, MAX_MESSAGE) for item in arguments[:1000]]) if arguments else template


def fallback_message(facts: RuleFacts) -> str:
    """Return what the rule says of itself, for a result without a message."""
    for key in ("shortDescription", "fullDescription"):
        if text := text_of(as_object(facts.descriptor.get(key)).get("text"), MAX_MESSAGE):
            return text
    return text_of(facts.descriptor.get("name")) or "(no message)"


def bounded(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return the text cut to the limit, with an ellipsis where it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _filled(template: str, arguments: list[str]) -> str:
    """Fill {0}, {1} … and unescape doubled braces; stop once the text is long enough."""
    pieces: list[str] = []
    position = length = 0
    for found in _PLACEHOLDER.finditer(template):
        number = int(found[1]) if found[1] else None
        value = found[0][0]
        if number is not None:
            value = arguments[number] if number < len(arguments) else found[0]
        pieces += [template[position : found.start()], value]
        length += found.start() - position + len(value)
        position = found.end()
        if length > _MAX_TEMPLATE:
            return "".join(pieces)
    return "".join([*pieces, template[position:]])
