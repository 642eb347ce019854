"""Text that comes from runs or scanned code: bounded, and unable to act where it is shown.

Control, bidirectional, zero-width and tag characters are made visible, Markdown links and
images, HTML and the marks of conversations are neutralised, credentials that their form gives
away are taken out. The result is for reading, not for parsing back.
"""

import re
import unicodedata

from intelligentscan._credential_forms import without_credentials

_INVISIBLE = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties) as far as categories do not tell it, and blanks.
_BLANK_LOOKALIKES = frozenset("\u115f\u1160\u3164\uffa0\u2800\u00ad\u034f\u17b4\u17b5\u180f\u2065") | {
    chr(c) for c in (*range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))
}
_LOOKAHEAD = 4_000
_HTML = re.compile(r"<(?=[A-Za-z/!?|])")
_MARKDOWN_LINK = re.compile(r"\](?=[(\[:])")
_MARKDOWN_IMAGE = re.compile(r"!(?=\[)")


def folded(name: str) -> str:
    """Return a name in a form in which spellings of it are equal."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def visible(text: str) -> str:
    """Return the text with every character that a reader could not see written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible_character(c) for c in text)


def _visible_character(c: str) -> str:
    if c == "\n":
        return "\\n"
    if c == "\t":
        return " "
    if unicodedata.category(c) in _INVISIBLE or c in _BLANK_LOOKALIKES:
        return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
    return c


def untrusted(text: str, limit: int = 200) -> str:
    """Return text from a run or a scanned repository as it may be shown to an agent or a person.

    Args:
        text: any text.
        limit: longest result in characters; a cut is marked with an ellipsis.
    """
    # Longer than what is shown, so that no credential is cut into something without its form.
    shown = visible(without_credentials(text[: limit + _LOOKAHEAD])[: limit + 1])
    shown = _MARKDOWN_IMAGE.sub("! ", shown)
    shown = _MARKDOWN_LINK.sub("] ", shown)
    shown = _HTML.sub("&lt;", shown)
    if len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown


def table_cell(text: str, limit: int = 60) -> str:
    """Return untrusted text as one cell of a Markdown table."""
    return untrusted(text, limit).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")
