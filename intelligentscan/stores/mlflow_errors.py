"""What goes wrong inside MLflow, turned into our errors where we meet it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests.exceptions
import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from intelligentscan.domain.errors import (
    ExperimentLocked,
    IntelligentScanError,
    InvalidArgument,
    InvalidFilter,
    NotFound,
    NotPermitted,
    Refused,
    StoreBroken,
    StoreError,
    StoreUnavailable,
    ValueConflict,
    VersionSealed,
)
from intelligentscan.domain.names import FILTER_EXAMPLE
from intelligentscan.domain.text import untrusted
from intelligentscan.stores.mlflow_unit import UnitBroken

_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")
_UNAVAILABLE = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")
_WRAPPED = ("INTERNAL_ERROR", "BAD_REQUEST", "TEMPORARILY_UNAVAILABLE")
"""Codes under which MLflow's stores pass on what the database said."""

_GUARD = re.compile(
    r"(EXPERIMENT_LOCKED|TICKET_REQUIRED|VERSION_SEALED|PROMOTION_REQUIRED|MODEL_GOVERNED|ALIAS_RESERVED"
    r"|GOVERNANCE_APPEND_ONLY): ([^\n]+)"
)
_CONTINUE = re.compile(r"continue in '(.+)'\.?$")
_INSUFFICIENT_PRIVILEGE = "42501"
_DENIED = "42501"
_CHECK = "call again; if it persists, check MLFLOW_TRACKING_URI with 'intelligentscan doctor'."


@contextmanager
def translated() -> Iterator[None]:
    """Turn exceptions of MLflow, its database and its HTTP client into ours."""
    try:
        yield
    except IntelligentScanError:
        raise
    except MlflowException as exc:
        raise from_mlflow(exc) from exc
    except sqlalchemy.exc.TimeoutError as exc:
        raise StoreUnavailable(f"The tracking database did not answer: {_first_line(exc)}", next=_CHECK) from exc
    except (UnitBroken, sqlalchemy.exc.SQLAlchemyError) as exc:
        refused = StoreError(f"The tracking database refused: {_first_line(exc)}", next=_CHECK)
        raise _of_database(exc) or refused from exc
    except (requests.exceptions.RequestException, ConnectionError, TimeoutError) as exc:
        raise StoreUnavailable(f"The tracking server did not answer: {_first_line(exc)}", next=_CHECK) from exc
    except OSError as exc:
        raise StoreBroken(
            f"A file of the store cannot be used: {exc.strerror or type(exc).__name__}.",
            next="check disk space and permissions of INTELLIGENTSCAN_HOME; 'intelligentscan doctor' shows it.",
        ) from exc


def is_unavailable(exc: Exception) -> bool:
    """Tell whether the store did not answer, rather than refused."""
    if isinstance(exc, MlflowException):
        return isinstance(from_mlflow(exc), StoreUnavailable)
    return isinstance(exc, requests.exceptions.RequestException | ConnectionError | TimeoutError)


def from_mlflow(exc: MlflowException) -> IntelligentScanError:
    """Return our error for one of MLflow's."""
    text = _first_line(exc)
    code = str(exc.error_code)
    if (guarded := refused_by_guard(str(exc))) is not None:
        return guarded
    if code in _WRAPPED and (found := _of_database(exc)) is not None:
        return found
    if code in _UNAVAILABLE or "API request to" in str(exc) or "Max retries exceeded" in str(exc):
        return StoreUnavailable(f"The tracking store did not answer: {text}", next=_CHECK)
    if code == "INTERNAL_ERROR" and "out-of-date database schema" in str(exc):
        return StoreBroken(
            f"The tracking database has another schema: {text}",
            next="back it up, then run 'intelligentscan db upgrade'.",
        )
    if code == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(text, next="list what is there with search_experiments, search_runs or get_model.")
    if "Changing param values is not allowed" in str(exc):
        return ValueConflict(
            "A param of this run was logged before with another value; params do not change.",
            next="log it under another key, or start a new run.",
            details={"store": text},
        )
    if code == "INVALID_PARAMETER_VALUE":
        return InvalidArgument(f"MLflow refused a value: {text}", next="correct the value named and call again.")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return StoreError(
            f"The tracking server refused access: {text}", next="check the credentials that MLflow's client uses."
        )
    return StoreError(f"MLflow refused: {text}", next=_CHECK)


def none_if_missing(get: Callable[[], Any]) -> Any:
    """Return what MLflow finds, or None if it says that there is no such thing."""
    try:
        return get()
    except MlflowException as exc:
        # An id larger than the database's integers is an error of the database, and nobody has it.
        too_large = isinstance(exc.__cause__, OverflowError | sqlalchemy.exc.DataError)
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST" or too_large:
            return None
        raise


def bad_filter(exc: MlflowException) -> InvalidFilter:
    """Return the error for a filter or an ordering that MLflow cannot read."""
    return InvalidFilter(
        f"MLflow cannot read the filter or ordering: {_first_line(exc)}",
        next=f"write {FILTER_EXAMPLE}",
    )


def refused_by_guard(text: str) -> Refused | None:
    """Return our error for the text of a guard, if there is one in what a database or a server said."""
    found = _GUARD.search(text)
    if found is None:
        return None
    code, said = found[1], untrusted(found[2].strip(), 300)
    if code == "EXPERIMENT_LOCKED":
        following = _CONTINUE.search(found[2].strip())
        name = following[1] if following and not following[1].endswith("...") else None  # cut to a bearable length
        return ExperimentLocked(
            said,
            next=f"call again with experiment='{untrusted(name, 250)}'; create_experiment makes it if it is missing."
            if name
            else "call create_experiment with the name of the locked experiment; it names the next one.",
            details={"next_experiment": name} if name else None,
        )
    return VersionSealed(
        f"{code}: {said}", next="use register_model for a new version and promote to move one.", details={"guard": code}
    )


def _of_database(exc: BaseException) -> IntelligentScanError | None:
    """Return the error for what the database said, if that is behind an exception."""
    reason: BaseException | None = exc
    seen: set[int] = set()  # HTTP clients make circles of exceptions
    while reason is not None and id(reason) not in seen and not isinstance(reason, sqlalchemy.exc.DBAPIError):
        seen.add(id(reason))
        reason = reason.__cause__ or reason.__context__
    if not isinstance(reason, sqlalchemy.exc.DBAPIError) or not isinstance(reason.orig, Exception):
        return None
    said = _first_line(reason.orig)
    if (guarded := refused_by_guard(str(reason.orig))) is not None:
        return guarded
    if (broken := _broken_file(said)) is not None:
        return broken
    if getattr(reason.orig, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
        return NotPermitted(
            f"The database's account may not do that: {said}",
            next="have it done by the service account (npta), or by the owner of the database; "
            "'intelligentscan db check' shows what this account may do.",
        )
    if getattr(reason.orig, "sqlstate", None) == _DENIED:
        return NotPermitted(
            f"The database's account may not do this: {said}",
            next="act through the account of the service (the npta role), or ask the database's administrator.",
        )
    if isinstance(reason, sqlalchemy.exc.OperationalError):
        return StoreUnavailable(f"The tracking database did not answer: {said}", next=_CHECK)
    return StoreError(f"The tracking database refused, and nothing was kept: {said}", next=_CHECK)


def _broken_file(text: str) -> StoreBroken | None:
    """Return the error for what SQLite says of a file that cannot be used; None if it says something else."""
    said = text.lower()
    if "readonly database" in said or "unable to open database" in said:
        return StoreBroken(
            "The store's file may not be written by this user.",
            next="give this user the file and its folder, or set MLFLOW_TRACKING_URI to another store.",
        )
    if "malformed" in said or "not a database" in said:
        return StoreBroken(
            "The store's file is damaged.", next="restore it, or set MLFLOW_TRACKING_URI to another store."
        )
    if "disk is full" in said or "disk i/o error" in said:
        return StoreBroken(
            "The disk of the store is full or failing.",
            next="free some space and call again, or set MLFLOW_TRACKING_URI to another store.",
        )
    return None


def _first_line(exc: Exception) -> str:
    text = str(exc.args[0] if exc.args else exc) or type(exc).__name__
    line = _CREDENTIALS.sub("", text.strip().split("\n", 1)[0])
    return untrusted(line, 300)
