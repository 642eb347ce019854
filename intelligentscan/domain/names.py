"""Rules for names, keys and values that callers give us, checked before anything reaches the store.

Bounds are MLflow's own (keys 250 characters, param values 6,000, tag values 8,000); refusing here
means a clear error and no half-written run. Credentials that their form gives away are taken out of
values, and refused in names and keys.
"""

import math
import re
from collections.abc import Sequence

from intelligentscan._credential_forms import without_credentials
from intelligentscan.domain.errors import InvalidArgument, InvalidFilter, InvalidName, TooLarge
from intelligentscan.domain.text import untrusted, visible

MAX_NAME = 250
MAX_KEY = 250
MAX_PARAM_VALUE = 6_000
MAX_TAG_VALUE = 5_000
MAX_DESCRIPTION = 5_000
MAX_PARAMS = 1_000
MAX_METRICS = 1_000
MAX_METRIC_POINTS = 100_000
MAX_TAGS = 100
MAX_FILTER = 4_000
MAX_ORDERINGS = 10
FILTER_EXAMPLE = (
    "filter like \"metrics.accuracy > 0.9 AND params.model = 'rf' AND attributes.status = 'FINISHED'\" "
    'and order_by like ["metrics.accuracy DESC"].'
)
RESERVED_TAG_PREFIXES = ("mlflow.", "intelligentscan.")
_KEY = re.compile(r"[A-Za-z0-9_\-. /:]+")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_NUMBERED = re.compile(r"(.+)-v([1-9][0-9]{0,5})")
_MODEL_NAME_FORBIDDEN = frozenset("/:%")


def experiment_name(name: str) -> str:
    """Return the name of an experiment, checked."""
    return _name(name, "experiment", "name")


def run_name(name: str) -> str:
    """Return the name of a run, checked."""
    return _name(name, "run", "run_name")


def model_name(name: str) -> str:
    """Return the name of a registered model, checked; MLflow takes neither '/', ':' nor '%' in it."""
    checked = _name(name, "registered model", "name")
    if checked in (".", ".."):
        raise InvalidName(
            f"'{checked}' cannot be the name of a registered model.", next="call again with name made of letters."
        )
    if bad := _MODEL_NAME_FORBIDDEN & set(checked):
        raise InvalidName(
            f"A registered model's name cannot contain {' '.join(sorted(bad))}.",
            next="call again with name made of letters, digits, '-', '_' or '.'.",
        )
    return checked


def _name(name: object, kind: str, argument: str) -> str:
    if not isinstance(name, str):
        raise InvalidName(
            f"The {kind} name is {type(name).__name__}, not text.", next=f"call again with {argument} as text."
        )
    if not name.strip():
        raise InvalidName(f"The {kind} name is empty.", next=f"call again with {argument} set.")
    if len(name) > MAX_NAME:
        raise InvalidName(
            f"The {kind} name has {len(name):,} characters; the most is {MAX_NAME}.",
            next=f"call again with a shorter {argument}.",
        )
    if without_credentials(name) != name:
        raise _credential(f"{kind} name", argument)
    if visible(name) != name:
        raise InvalidName(
            f"The {kind} name '{untrusted(name, 80)}' contains control or invisible characters.",
            next=f"call again with {argument} in printable characters.",
        )
    if name != name.strip():
        raise InvalidName(
            f"The {kind} name starts or ends with blanks.", next=f"call again with {argument} without them."
        )
    return name


def _credential(what: str, argument: str) -> InvalidName:
    return InvalidName(
        f"The {what} holds what looks like a credential.",
        next=f"call again with {argument} without it, and revoke the credential if it is real.",
    )


def is_run_id(text: str) -> bool:
    """Tell whether the text is a full MLflow run id (32 lower-case hexadecimal digits)."""
    return _RUN_ID.fullmatch(text) is not None


def key(text: str, kind: str) -> str:
    """Return a param, metric or tag key, checked against MLflow's alphabet and length."""
    if without_credentials(text[: MAX_KEY + 1]) != text[: MAX_KEY + 1]:
        raise _credential(f"{kind} key", "another key")
    if not text or len(text) > MAX_KEY or not _KEY.fullmatch(text):
        raise InvalidName(
            f"The {kind} key '{untrusted(text, 60)}' is not allowed.",
            next=f"use 1 to {MAX_KEY} letters, digits, '_', '-', '.', ' ', ':' or '/' in {kind} keys.",
        )
    if text.startswith(("/", ".")) or ".." in text.split("/") or "//" in text or text.endswith("/"):
        raise InvalidName(
            f"The {kind} key '{untrusted(text, 60)}' looks like a path.",
            next=f"use a {kind} key without leading, doubled or trailing '/' and without '..'.",
        )
    return text


def params(values: dict[str, object] | None) -> dict[str, str]:
    """Return params as MLflow stores them (text), checked for count, keys and length."""
    _count(values, "params", MAX_PARAMS)
    return {key(k, "param"): _value(v, f"param '{k}'", MAX_PARAM_VALUE) for k, v in (values or {}).items()}


def tags(values: dict[str, object] | None) -> dict[str, str]:
    """Return tags as text, checked; the prefixes of MLflow and of this project are not for callers."""
    _count(values, "tags", MAX_TAGS)
    checked = {key(k, "tag"): _value(v, f"tag '{k}'", MAX_TAG_VALUE) for k, v in (values or {}).items()}
    for k in checked:
        if k.startswith(RESERVED_TAG_PREFIXES):
            raise InvalidName(
                f"The tag key '{k}' is reserved.",
                next="use a tag key that does not start with 'mlflow.' or 'intelligentscan.'.",
            )
    return checked


def metrics(values: dict[str, float] | None) -> dict[str, float]:
    """Return metrics, checked: finite numbers only, because NaN and infinity cannot be compared or ordered."""
    _count(values, "metrics", MAX_METRICS)
    return {key(k, "metric"): metric_value(k, v) for k, v in (values or {}).items()}


def metric_value(metric: str, value: object) -> float:
    """Return one metric value as a finite float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"The metric '{untrusted(metric, 60)}' is not a number.", next="give metrics as numbers.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidArgument(
            f"The metric '{untrusted(metric, 60)}' is {number}; only finite numbers can be compared and ordered.",
            next="leave the metric out, or log why it is missing as a tag.",
        )
    return number


def search_filter(text: str | None) -> str:
    """Return a search filter, bounded: reading a long one takes MLflow minutes."""
    if text is not None and len(text) > MAX_FILTER:
        raise InvalidFilter(
            f"The filter has {len(text):,} characters; the most is {MAX_FILTER:,}.", next=f"write {FILTER_EXAMPLE}"
        )
    return text or ""


def ordering(columns: Sequence[str] | None) -> list[str]:
    """Return an ordering, bounded."""
    wanted = list(columns or ())
    if len(wanted) > MAX_ORDERINGS or any(len(column) > MAX_KEY + 50 for column in wanted):
        raise InvalidFilter(
            f"The ordering is too long; the most is {MAX_ORDERINGS} columns.", next=f"write {FILTER_EXAMPLE}"
        )
    return wanted


def description(text: str | None) -> str | None:
    """Return a description, bounded."""
    if text is not None and len(text) > MAX_DESCRIPTION:
        raise TooLarge(
            f"The description has {len(text):,} characters; the most is {MAX_DESCRIPTION:,}.",
            next="call again with a shorter description, and log the long text as an artifact.",
        )
    return None if text is None else without_credentials(text)


def _count(values: dict[str, object] | dict[str, float] | None, what: str, most: int) -> None:
    if values and len(values) > most:
        raise TooLarge(
            f"{len(values):,} {what} were given; one call takes at most {most:,}.",
            next=f"log the {what} that matter, and the whole list as an artifact.",
        )


def _value(value: object, what: str, most: int) -> str:
    if isinstance(value, bool):
        text = str(value)
    elif isinstance(value, str | int | float):
        try:
            text = str(value)
        except ValueError:  # an integer too long for Python to print
            text = "0" * (most + 1)
    else:
        raise InvalidArgument(
            f"The {untrusted(what, 80)} is {type(value).__name__}; only text, numbers and true or false fit.",
            next="flatten nested values into dotted keys.",
        )
    if len(text) > most:
        raise TooLarge(
            f"The {untrusted(what, 80)} has {len(text):,} characters; the most is {most:,}.",
            next="log long text as an artifact and keep its name here.",
        )
    return without_credentials(text)


def next_experiment_name(name: str) -> str:
    """Return the name that follows: a trailing `-vN` is counted up, otherwise `-v2` is appended."""
    name = visible(name)  # plain MLflow takes control characters, which nobody could type or see in the next name
    numbered = _NUMBERED.fullmatch(name)
    following = f"{numbered[1]}-v{int(numbered[2]) + 1}" if numbered else f"{name}-v2"
    if len(following) <= MAX_NAME:
        return following
    suffix = following[following.rindex("-v") :]
    return following[: MAX_NAME - len(suffix)] + suffix
