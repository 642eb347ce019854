"""Passwords in text: which parts of a line or message are one, and every other place where its value shows.

Scanners report a password by repeating it: in the message, in the snippet, in the context of the
finding next to it. Values found in such findings are collected here and taken out wherever they
occur; text of findings that are about a password loses all its string literals.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from intelligentscan import _credential_forms

REDACTED = _credential_forms.REDACTED
MIN_VALUE = 4
MAX_VALUES = 20_000
_MAX_TEXT = 200_000

_QUOTE = re.compile(r"\"\"\"|'''|[\"'`]")
_CLOSING = {
    quote: re.compile(rf"\\.|{quote}" if len(quote) == 3 else rf"\\.|{quote}|\n", re.DOTALL)
    for quote in ('"""', "'''", '"', "'", "`")
}
_PREFIXES = frozenset({"r", "b", "u", "f", "rb", "br", "fr", "rf", "t", "rt", "tr"})
_HINTS = ("pass", "pwd", "secret", "credential", "key", "token")
_NAMED = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|secret|credential|api_?key|token"
    r"|(?:access|private|session|signing|encryption|master)_?key)[\w\-]*[\"']?\]?"
    r"(?: ?: ?[\w\[\], |.]{1,40}?)? ?(?:==|!=|=>|:=|=|:|,) ?(?:[a-z]{1,2})?$",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"\A([^=:\n]{1,120}?(?:=>|:=|=|:)\s*).*\Z", re.DOTALL)
_QUOTED_IN_MESSAGE = re.compile(r"(?<!\w)([\"'`])(.*)\1", re.DOTALL)
_NAMES_ONLY = re.compile(
    r"Possible hardcoded password assigned to(?: argument| function default)?: \"[^\"]{0,200}\"\.?"
)
_BANDIT_VALUE = re.compile(r"\APossible hardcoded password: '(.*)\Z", re.DOTALL)
_RANDOM_TOKEN = re.compile(r"[A-Za-z0-9+/_=\-.~]{16,}")

# Found as "passwords" in every code base, and part of any sentence a scanner writes.
_ORDINARY = frozenset(
    re.findall(
        r"\S+",
        """
        access admin auth authorization basic bearer bind body bool bytes call change changeme check class client
        code command config connect content cookie count credential credentials critical cursor dangerous data
        default delete dict download element email error example exec execute false field file form format from
        function group hardcoded hash header hidden high html http https identified image import index info input
        insecure insert interface issue item join json label language level line link list load local login main
        medium message method mock model module name none null object open option order output package page param
        parse pass passwd password patch path possible post print private probable process public query random read
        record refresh request required response result return root route schema script secret secrets security
        select server session shell source start state status string style submit subprocess table tag task template
        test text that this title token true type unsafe update upload user username value version view warning with
        write yaml
        """,
    )
)

Kind = Literal["strong", "weak", "ordinary"]


@dataclass(frozen=True, slots=True)
class StringLiteral:
    """A quoted part of a text: where it opens, and where its content starts and ends."""

    opened: int
    start: int
    end: int


def string_literals(text: str) -> Iterator[StringLiteral]:
    """Yield the quoted parts of source text; one that never closes ends with its line (or the text, if triple)."""
    position = 0
    while found := _QUOTE.search(text, position):
        quote, opened, start = found[0], found.start(), found.end()
        position = start
        if quote == "'" and _is_apostrophe(text, opened):
            continue
        end = len(text)
        for closing in _CLOSING[quote].finditer(text, start):
            if closing[0][0] != "\\":
                end, position = closing.start(), closing.end()
                break
        else:
            position = end
        yield StringLiteral(opened, start, end)


def _is_apostrophe(text: str, at: int) -> bool:
    if at == 0 or not (text[at - 1].isalnum() or text[at - 1] == "_"):
        return False
    word = re.split(r"\W", text[max(0, at - 4) : at])[-1]
    return word.lower() not in _PREFIXES


def named_literals(text: str) -> list[StringLiteral]:
    """Return the literals that are given to something called like a password, a key or a token."""
    folded = text.casefold()
    if not any(hint in folded for hint in _HINTS):  # ten times as fast as one pattern for all of them
        return []
    return [found for found in string_literals(text) if _NAMED.search(_before(text, found.opened))]


def _before(text: str, at: int) -> str:
    """Return what stands before a literal, its white space folded so that the search stays cheap."""
    part = text[max(0, at - 80) : at]
    return " ".join(part.split()) + (" " if part[-1:].isspace() else "")


def without_named_literals(text: str) -> str:
    """Return source text in which literals given to password-like names are taken out, whether reported or not."""
    return _without(text, named_literals(text))


def without_literals(text: str) -> str:
    """Return source text of a password finding: no literal's content; without any literal, only the name is left."""
    text = text[:_MAX_TEXT]
    literals = list(string_literals(text))
    return _without(text, literals) if literals else without_value(text)


def without_value(text: str) -> str:
    """Return what stands before the first '=' or ':' of a text, and nothing of what follows."""
    found = _ASSIGNED.match(text[:_MAX_TEXT])
    name = found[1] if found else ""
    return REDACTED if _looks_random(name) else f"{name}{REDACTED}"


def _without(text: str, literals: list[StringLiteral]) -> str:
    if not literals:
        return text
    pieces, position = [], 0
    for literal in literals:
        pieces += [text[position : literal.start], REDACTED if literal.end > literal.start else ""]
        position = literal.end
    pieces.append(text[position:])
    return "".join(pieces)


def without_quoted(message: str) -> str:
    """Return the message of a password finding without what it quotes, unless it quotes only the variable's name."""
    if len(message) > _MAX_TEXT:
        first = _QUOTE.search(message)
        return f"{message[: first.start() if first else 1_000][:1_000]}{REDACTED}"
    if _NAMES_ONLY.fullmatch(message):
        return message
    return _QUOTED_IN_MESSAGE.sub(rf"\1{REDACTED}\1", message)


def without_tokens(message: str) -> str:
    """Return the message of a secret scanner without quoted parts and without anything that looks like a key."""
    quoted = without_quoted(message)
    return _RANDOM_TOKEN.sub(lambda m: REDACTED if _looks_random(m[0]) else m[0], quoted)


def _looks_random(text: str) -> bool:
    return any(any(c.isdigit() for c in token) for token in _RANDOM_TOKEN.findall(text))


def values_in_message(message: str) -> list[str]:
    """Return the password that the message of a bandit finding repeats."""
    found = _BANDIT_VALUE.match(message)
    return [found[1].removesuffix("'")] if found else []


def values_in_code(text: str, *, whole: bool) -> list[str]:
    """Return the values a piece of source shows: of password-like names, else all literals, else (whole) itself."""
    text = text[:_MAX_TEXT]
    literals = named_literals(text) or list(string_literals(text))
    if literals:
        return [text[literal.start : literal.end] for literal in literals]
    if not whole:
        return []
    found = _ASSIGNED.match(text)
    value = (text[found.end(1) :] if found else text).strip()
    return [value] if found or not re.search(r"\s", value) else value.splitlines()


class Secrets:
    """The values to keep out of everything that is stored or shown."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._kinds: dict[str, Kind] = {}
        self._lengths: dict[str, list[int]] = {}
        self.overflow = False
        for value in values:
            self.add(value)

    def __bool__(self) -> bool:
        return bool(self._kinds) or self.overflow

    def add(self, value: str) -> None:
        """Remember a value; each line of a longer one counts by itself, and what is too short is left alone."""
        for piece in value[:_MAX_TEXT].splitlines():
            self._add_piece(piece.strip())

    def update(self, other: "Secrets") -> None:
        """Remember the values of another set as well."""
        self.overflow = self.overflow or other.overflow
        for value in other._kinds:
            self._add_piece(value)

    def _add_piece(self, value: str) -> None:
        if len(value) < MIN_VALUE or value in self._kinds or not any(c.isalnum() for c in value):
            return
        if REDACTED in value:
            return
        if len(self._kinds) >= MAX_VALUES:
            self.overflow = True
            return
        self._kinds[value] = _kind(value)
        lengths = self._lengths.setdefault(value[:MIN_VALUE], [])
        if len(value) not in lengths:
            lengths.append(len(value))
            lengths.sort(reverse=True)

    def redact(self, text: str, *, code: bool = False) -> str:
        """Return the text without any of the values.

        Args:
            text: any text.
            code: whether it is source, where everyday words are taken out as well if they are quoted.
        """
        return self._replace(text, lambda value, i: self._shows(value, text, i, code))

    def redact_unmistakable(self, text: str) -> str:
        """Return the text without those values that can only be credentials; what fingerprints are made of."""
        return self._replace(text, lambda value, _: self._kinds[value] == "strong")

    def _shows(self, value: str, text: str, at: int, code: bool) -> bool:
        kind = self._kinds[value]
        if kind == "strong":
            return True
        before = text[at - 1] if at else ""
        after = text[at + len(value) : at + len(value) + 1]
        if kind == "ordinary":
            return code and before == after and before in ('"', "'", "`")
        return not (_is_word(before) and _is_word(value[0])) and not (_is_word(after) and _is_word(value[-1]))

    def _replace(self, text: str, chosen: Callable[[str, int], bool]) -> str:
        if not self._kinds or len(text) < MIN_VALUE:
            return text
        if len(self._kinds) <= 64 and not any(value in text for value in self._kinds):
            return text
        pieces: list[str] = []
        done = position = 0
        lengths, last = self._lengths, len(text) - MIN_VALUE
        while position <= last:
            for length in lengths.get(text[position : position + MIN_VALUE], ()):
                value = text[position : position + length]
                if value in self._kinds and chosen(value, position):
                    pieces += [text[done:position], REDACTED]
                    position += len(value)
                    done = position
                    break
            else:
                position += 1
        return "".join([*pieces, text[done:]]) if pieces else text


def _kind(value: str) -> Kind:
    if value.lower() in _ORDINARY:
        return "ordinary"
    letters, digits = any(c.isalpha() for c in value), any(c.isdigit() for c in value)
    mixed = value != value.lower() and value != value.upper()
    blank = any(c.isspace() for c in value)
    if (len(value) >= 6 and letters and digits) or (len(value) >= 16 and mixed and not blank):
        return "strong"
    return "weak"


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
