"""Credentials that are recognised by their form alone, wherever they stand: what no text of ours may show or store.

Tokens of well-known issuers have prefixes, private keys have their armour, URLs have a place for passwords, and
assignments have names. The forms are those that the issuers document; only their fixed parts and alphabets matter
here, lengths are lower bounds, so that a token that was cut is still one. A password under a harmless name has no
form: it is found only where a scanner reports it (see `scanners.redaction`).
"""

import re
from collections.abc import Sequence
from functools import lru_cache

REDACTED = "[redacted]"
_START = r"(?<![A-Za-z0-9])"
# Fixed parts first: looking for a few dozen of these is many times as fast as one pattern for all.
_TOKENS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("AKIA", "ASIA", "ABIA", "ACCA"), r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{12,}"),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{12,}"),
    (("github_pat_",), r"github_pat_[A-Za-z0-9_]{12,}"),
    (("glpat-", "gldt-", "glrt-"), r"gl(?:pat|dt|rt)-[\w\-]{12,}"),
    (("xox", "xapp-"), r"(?:xox[a-z]|xapp)-[A-Za-z0-9\-]{10,}"),
    (("hooks.slack.com/",), r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/\-]{8,}"),
    (("eyJ",), r"eyJ[\w\-]{8,}\.[\w\-]{2,}(?:\.[\w\-]*)*"),
    (("AIza",), r"AIza[\w\-]{20,}"),
    (("ya29.",), r"ya29\.[\w\-]{12,}"),
    (("GOCSPX-",), r"GOCSPX-[\w\-]{12,}"),
    (("sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"), r"(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{8,}"),
    (("sk-",), r"sk-(?:(?:ant|proj|svcacct|or)-[\w\-]{12,}|[A-Za-z0-9]{24,})"),
    (("SG.",), r"SG\.[\w\-]{12,}\.[\w\-]{8,}"),
    (("npm_",), r"npm_[A-Za-z0-9]{24,}"),
    (("pypi-AgE",), r"pypi-AgE[\w\-]{24,}"),
    (("dop_v1_",), r"dop_v1_[0-9a-f]{24,}"),
    (("hf_",), r"hf_[A-Za-z0-9]{24,}"),
    (("dapi",), r"dapi[0-9a-f]{32,}"),
    (("AGE-SECRET-KEY-",), r"AGE-SECRET-KEY-1[A-Z0-9]{24,}"),
)
_PATTERNS = tuple((fixed, re.compile(_START + pattern)) for fixed, pattern in _TOKENS)


def _by_sign() -> tuple[tuple[str, tuple[tuple[str, re.Pattern[str]], ...]], ...]:
    """Return fixed parts and their patterns by a sign that all of them hold: most texts lack it."""
    parts = [(part, pattern) for fixed, pattern in _PATTERNS for part in fixed]
    groups: dict[str, list[tuple[str, re.Pattern[str]]]] = {sign: [] for sign in ("_", "-", ".", "")}
    for part, pattern in parts:
        groups[next(sign for sign in groups if sign in part)].append((part, pattern))
    return tuple((sign, tuple(members)) for sign, members in groups.items())


_GROUPS = _by_sign()

_ARMOUR = "PRIVATE KEY"
_ARMOUR_BYTES = _ARMOUR.encode()
_KIND = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE_KEY = re.compile(rf"(-----BEGIN {_KIND}).*?(-----END {_KIND}|\Z)", re.DOTALL)
_KEY_END = re.compile(r"\A[A-Za-z0-9+/=\s\\\"',:\-]*?(?=-----END [A-Z0-9 ]{0,40}PRIVATE KEY)")
_KEY_LINE = re.compile(
    r"(?m)^([\s\"'+]{0,40})(?=[^\sa-z]{0,80}[a-z])(?=[^\sA-Z]{0,80}[A-Z])[A-Za-z0-9+/]{60,80}={0,2}(?![\w+/=])"
    r"(?:[\s\\n\"'+]{1,40}[A-Za-z0-9+/]{2,80}={0,2}(?=[\s\\\"']|\Z))*"
)
_BASE64_LINE = re.compile(r"[A-Za-z0-9+/]{4,}={0,2}")

_USERINFO = re.compile(r"(?<=://)(?:[^/@\s:\"'<>]{0,200}:[^/\s\"'<>]{1,200}|[\w\-.]{16,200})(?=@)")
_AUTHORIZATION = re.compile(
    r"(uthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:basic|bearer|token|digest)\s{1,3})[\w.~+/=\-]{6,}", re.IGNORECASE
)
_HINTS = ("passw", "pwd", "passphrase", "secret", "credential", "key", "token", "uthorization", "connection")
_NAME = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|credential|token(?!iz)|connection[-_. ]?string"
    r"|(?:api|access|account|auth|client|private|secret|shared|signing|encryption|master)[-_. ]?key)"
)
_GIVEN = r"\s{0,3}(?:=>|:=|=|:)\s{0,3}[\"']?"
_VALUE = r"[^\s\"'`;,&<>(){}\[\]]{8,400}"
_ASSIGNED = re.compile(rf"({_NAME}[\w\-]{{0,40}}[\"']?{_GIVEN})({_VALUE})", re.IGNORECASE)
_PART = r"[^;\"'\s()]{3,200}"
_CONNECTION = re.compile(rf"(;\s{{0,3}}{_NAME}\s{{0,3}}=\s{{0,3}}|{_NAME}=(?={_PART};)){_PART}", re.IGNORECASE)
_NAMES_ONLY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z_]+|[\d._+\-]+")
_KINDS = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
_WORDS = re.compile(r"[a-zA-Z0-9]+")
_LEAST_CHANGES = 4
_LEAST_KEY_LINE = 60

_FIXED = tuple(part for fixed, _ in _TOKENS for part in fixed)
_HINT_BYTES = tuple(hint.encode() for hint in _HINTS)
_ASSIGNED_IN_JSON = re.compile(rb"%b[\w\-]{0,40}[\\\\\"'\s]{0,8}(?:=|:)" % _NAME.encode())


def without_credentials(text: str) -> str:
    """Return the text with every credential that its form gives away replaced by `[redacted]`."""
    for sign, members in _GROUPS:
        if sign in text:
            for part, pattern in members:
                if part in text:
                    text = pattern.sub(REDACTED, text)
    if _ARMOUR in text:
        text = _KEY_END.sub(REDACTED, _PRIVATE_KEY.sub(rf"\1{REDACTED}\2", text))
    if "@" in text and "://" in text:
        text = _USERINFO.sub(REDACTED, text)
    if "=" in text or ":" in text:
        text = _without_assigned(text)
    return text


def is_key_text(line: str) -> bool:
    """Tell whether a line may be the inside of a private key: nothing but base64."""
    return _BASE64_LINE.fullmatch(line.strip(" \t\"'+\\,")) is not None


def opens_private_key(lines: Sequence[str]) -> bool:
    """Tell whether a private key begins in these lines and does not end in them."""
    return any(key.start(2) == key.end(2) for key in _PRIVATE_KEY.finditer("\n".join(lines)))


def without_key_lines(code: str) -> str:
    """Return source text without the lines that can be the inside of a private key, if their armour is not shown."""
    return _KEY_LINE.sub(rf"\1{REDACTED}", code) if len(code) >= _LEAST_KEY_LINE else code


def may_hold_credentials(json_text: bytes, lowered: bytes) -> bool:
    """Tell whether a text somewhere in a JSON document may change in `without_credentials`; false alarms are allowed.

    Args:
        json_text: the document.
        lowered: the same in lower case.
    """
    text = json_text.decode("utf-8", "replace")  # looking for a part of a text takes half the time of one of bytes
    for part in _FIXED:
        if part in text:
            return True
    if _ARMOUR_BYTES in json_text or (b"@" in json_text and b"://" in json_text) or b"uthorization" in lowered:
        return True
    return any(hint in lowered for hint in _HINT_BYTES) and _ASSIGNED_IN_JSON.search(lowered) is not None


def _without_assigned(text: str) -> str:
    lowered = text.lower()
    for hint in _HINTS:
        if hint in lowered:
            break
    else:
        return text
    text = _CONNECTION.sub(rf"\1{REDACTED}", text)
    text = _AUTHORIZATION.sub(rf"\1{REDACTED}", text)
    return _ASSIGNED.sub(lambda m: m[1] + (REDACTED if _looks_random(m[2]) else m[2]), text)


def _looks_random(value: str) -> bool:
    """Tell a value that nobody would write as a name: letters and digits that alternate often for its length."""
    if REDACTED in value or _NAMES_ONLY.fullmatch(value):
        return False
    if not any(c.isdigit() for c in value) or not any(c.isalpha() for c in value):
        return False
    changes = len(_KINDS.findall(value)) - len(_WORDS.findall(value))
    return changes >= max(_LEAST_CHANGES, len(value) / 8)


@lru_cache(2048)
def is_secret_name(name: str) -> bool:
    """Tell whether a key, as of a param, says that its value is a credential."""
    return _SECRET_KEY.search(name) is not None


_SECRET_KEY = re.compile(
    r"passw(?:or)?d|passphrase|secret|credential|(?:^|[^a-z])(?:pwd|token)$|connection[-_. ]?string"
    r"|(?:api|access|account|auth|client|private|shared|signing|encryption|master)[-_. ]?key$",
    re.IGNORECASE,
)
