"""Errors as agents get them: a fact and a next step as text, `{code, message, next, details?}` as structure."""

import difflib
import logging
import secrets
from collections.abc import Iterable
from typing import Any

from mcp_types import CallToolResult, TextContent
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from intelligentscan.domain.errors import IntelligentScanError, InvalidArgument
from intelligentscan.domain.text import untrusted
from intelligentscan.toolsets.schemas import JsonSchema

logger = logging.getLogger(__name__)

MAX_MESSAGE = 1_500
MAX_NEXT = 1_000
MAX_DETAILS = 8_000
_SHOWN_PROBLEMS = 3


def refusal(error: IntelligentScanError) -> CallToolResult:
    """Return a domain error as the result of a call."""
    return _result(error.code, error.message, error.next, error.details)


class ServerBug(IntelligentScanError):
    """Something failed that should not; only the incident id is shown, the trace is in the log."""

    code = "INTERNAL_ERROR"


def bug(what: str, exc: BaseException) -> ServerBug:
    """Log a crash under an incident id, and return the error that names nothing but the id."""
    incident = secrets.token_hex(6)
    logger.error("incident %s: %s crashed", incident, what, exc_info=exc)
    return ServerBug(
        f"{what} failed inside the server; this is a bug (incident {incident}).",
        next="call it again once; if it fails again, report the incident with what the server wrote to stderr.",
        details={"incident": incident},
    )


def domain_error(what: str, exc: BaseException) -> IntelligentScanError:
    """Return the domain error that an exception is or, as the only one of a group, holds; otherwise a bug's."""
    found = exc
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found if isinstance(found, IntelligentScanError) else bug(what, exc)


def unknown_arguments(tool: str, unknown: Iterable[str], schema: JsonSchema) -> InvalidArgument:
    """Return the refusal of arguments that a tool does not have; ignoring them would do something else than meant."""
    known = list(schema["properties"])
    names = sorted(unknown)
    shown = ", ".join(f"'{untrusted(name, 60)}'" for name in names[:_SHOWN_PROBLEMS])
    near = sorted({match for name in names[:20] for match in difflib.get_close_matches(name[:60], known, n=1)})
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return InvalidArgument(
        f"{tool} has no argument {shown}.{meant}",
        next=f"call {tool} again with arguments from: {', '.join(known)}.",
        details={"allowed": known},
    )


def invalid_arguments(tool: str, exc: ValidationError, schema: JsonSchema) -> InvalidArgument:
    """Return the refusal of arguments outside what a tool publishes; their values are not repeated."""
    problems = _problems(exc.errors(include_url=False, include_context=False, include_input=False))
    missing = [field for field, (kind, _) in problems.items() if kind == "missing" and field in schema["properties"]]
    if missing:
        message = f"{tool} needs {', '.join(missing)}."
    else:
        shown = [f"{field}: {text}" for field, (_, text) in list(problems.items())[:_SHOWN_PROBLEMS]]
        message = f"{tool} does not accept {'; '.join(shown)}."
    wanted = missing or list(dict.fromkeys(field.split(".", 1)[0] for field in problems))
    allowed = {field: schema["properties"][field] for field in wanted if field in schema["properties"]}
    how = "; ".join(f"{field}: {_described(one)}" for field, one in allowed.items())
    return InvalidArgument(message, next=f"call {tool} again with {how}.", details={"allowed": allowed})


def _problems(errors: list[ErrorDetails]) -> dict[str, tuple[str, str]]:
    """Return the first problem of each field: its kind and pydantic's text, which names what is allowed."""
    problems: dict[str, tuple[str, str]] = {}
    for error in errors:
        field = untrusted(".".join(str(part)[:100] for part in error["loc"]), 120) or "arguments"
        problems.setdefault(field, (error["type"], untrusted(error["msg"], 200)))
    return problems


def _described(schema: JsonSchema) -> str:
    """Return in words what an argument takes."""
    types = schema.get("type", "value")
    words = " or ".join(types) if isinstance(types, list) else str(types)
    if "enum" in schema:
        words = "one of " + ", ".join(str(value) for value in schema["enum"])
    said = [words]
    for least, most, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
    ):
        match schema.get(least), schema.get(most):
            case int(low), int(high):
                said.append(f"{low:,} to {high:,}{unit}")
            case int(low), None:
                said.append(f"at least {low:,}{unit}")
            case None, int(high):
                said.append(f"at most {high:,}{unit}")
    described = f" ({schema['description'].rstrip('.')})" if "description" in schema else ""
    return ", ".join(said) + described


def _result(code: str, message: str, next_step: str, details: dict[str, object]) -> CallToolResult:
    message, next_step = _bounded(message, MAX_MESSAGE), _bounded(next_step, MAX_NEXT)
    structured: dict[str, Any] = {"code": code, "message": message, "next": next_step}
    if details:
        dumped = to_json(details, fallback=str)
        structured["details"] = from_json(dumped if len(dumped) <= MAX_DETAILS else _small(details))
    text = f"{message} Next: {next_step}" if next_step else message
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured, is_error=True)


def _small(details: dict[str, object]) -> bytes:
    """Return as JSON the entries of details that fit, the smallest first, and the names of those that do not."""
    kept: dict[str, object] = {}
    room, left_out = MAX_DETAILS, []
    for key, size in sorted(
        ((k, len(to_json(v, fallback=str)) + len(k)) for k, v in details.items()), key=lambda i: i[1]
    ):
        room -= size
        if room < 0:
            left_out.append(_bounded(key, 60))
        else:
            kept[key] = details[key]
    return to_json({**kept, "left_out": left_out[:20]}, fallback=str)


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
