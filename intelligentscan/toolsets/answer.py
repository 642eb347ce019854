"""Results as agents get them: a noun once as structured content, once as compact text, both under one cap.

A list that is too long is asked for again with fewer rows, so that its cursor still points at the first row
left out. Any other result gives up entries of its largest fields, says how many, and where to ask for them.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from mcp_types import CallToolResult, ContentBlock, ResourceLink, TextContent
from pydantic_core import to_json

from intelligentscan.domain.comparison import RunComparison
from intelligentscan.domain.noun import Noun
from intelligentscan.domain.text import untrusted

ANSWER_CAP = 40_000
"""Most characters of the text of an answer, and of its structured content."""

_FILLED = 36_000
"""How far a shortened answer is filled, as compact JSON: the rest is for what is said about the cut, and for blanks."""

Listed = TypeVar("Listed", bound=Noun)


async def fitting(fetch: Callable[[int], Awaitable[Listed]], limit: int) -> Listed:
    """Return a page of at most `limit` rows that fits into one answer.

    Args:
        fetch: returns the page of the given number of rows.
        limit: rows asked for.
    """
    page = await fetch(limit)
    while limit > 1 and (size := len(page.model_dump_json())) > _FILLED:
        limit = max(1, min(limit - 1, limit * _FILLED // size))
        page = await fetch(limit)
    return page


def answer(noun: Noun, *, tool: str, rest: str) -> CallToolResult:
    """Return the result of a call as MCP sends it.

    Args:
        noun: what the tool returned.
        tool: name of the tool.
        rest: where to ask for what is left out, if something is.
    """
    structured = noun.model_dump(mode="json")
    left_out = _cut(_parts(noun), structured, _FILLED) if _size(structured) > _FILLED else []
    if left_out:
        text = _shortened_text(structured, left_out, rest or f"call {tool} for less at once")
    elif isinstance(noun, RunComparison):
        text = "\n".join([noun.summary, *noun.notes])
    else:
        text = noun.model_dump_json(exclude_none=True)
    if cursor := structured.get("next_cursor"):
        text = f"{_bounded(text, _FILLED)}\nMore follow: call {tool} again with the same arguments and cursor={cursor}"
    content: list[ContentBlock] = [TextContent(type="text", text=_bounded(text, ANSWER_CAP))]
    if isinstance(report := structured.get("report"), str):
        content.append(ResourceLink(type="resource_link", uri=report, name="report.md", mime_type="text/markdown"))
    return CallToolResult(content=content, structured_content=structured)


def _shortened_text(structured: dict[str, Any], left_out: list[str], rest: str) -> str:
    """Return the text of a shortened result, and note in the result itself what was left out."""
    said = f"Cut to {ANSWER_CAP:,} characters: {'; '.join(left_out[:20])}. Next: {rest}."
    for field in ("notes", "warnings"):
        if isinstance(structured.get(field), list):
            structured[field].append(said)
            break
    text = structured.get("summary") or to_json(structured, inf_nan_mode="null").decode()
    return f"{_bounded(text, _FILLED)}\n{said}"


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _cut(parts: Mapping[str, Any], dumped: dict[str, Any], room: int) -> list[str]:
    """Shorten the largest lists, maps and texts of a dumped noun in place to `room`; return what was left out.

    Every field gets the same share of the room; what small fields leave over goes to the larger ones. The
    runs of a comparison may take twice that, because its other fields refer to them.
    """
    sizes = {field: _size(value) + len(field) + 4 for field, value in dumped.items()}
    waiting = len(sizes)
    left_out: list[str] = []
    for field, size in sorted(sizes.items(), key=lambda item: item[1] // 2 if item[0] == "runs" else item[1]):
        share = max(0, room // waiting) * (2 if field == "runs" and waiting > 1 else 1)
        if size > share:
            left_out += _cut_field(parts[field], dumped, field, share - len(field) - 4)
            size = _size(dumped[field]) + len(field) + 4
        room -= size
        waiting -= 1
    return left_out


def _cut_field(value: Any, dumped: dict[str, Any], field: str, room: int) -> list[str]:
    whole = dumped[field]
    match value:
        case Noun():
            return _cut(_parts(value), whole, room)
        case [Noun() as first, *_] if _size(whole[0]) > room:
            inside = _cut(_parts(first), whole[0], room)
            dumped[field] = whole[:1]
            return [*inside, *_said(field, 1, len(whole), "")]
        case list():
            dumped[field] = _leading(whole, [_size(item) + 1 for item in whole], room)
            return _said(field, len(dumped[field]), len(whole), "")
        case dict() if any(isinstance(entry, list) for entry in value.values()) and _size(list(value)) * 2 < room:
            return _cut(value, whole, room)
        case dict():
            kept = _leading(list(whole), [_size(k) + _size(v) + 2 for k, v in whole.items()], room)
            dumped[field] = {key: whole[key] for key in kept}
            return _said(field, len(kept), len(whole), "")
        case str():
            short = whole
            while short and _size(short) > room:
                short = short[: min(len(short) - 1, len(short) * max(room, 0) // _size(short))]
            dumped[field] = short
            return _said(field, len(short), len(whole), " characters")
    return []


def _parts(noun: Noun) -> dict[str, Any]:
    return {field: getattr(noun, field) for field in type(noun).model_fields}


def _leading(items: list[Any], sizes: list[int], room: int) -> list[Any]:
    """Return as many of the first items as fit."""
    kept = []
    for item, size in zip(items, sizes, strict=True):
        room -= size
        if room < 0:
            break
        kept.append(item)
    return kept


def _said(field: str, kept: int, of: int, unit: str) -> list[str]:
    return [f"{untrusted(field, 60)} shows {kept:,} of {of:,}{unit}"] if kept < of else []


def _size(value: Any) -> int:
    return len(to_json(value))
