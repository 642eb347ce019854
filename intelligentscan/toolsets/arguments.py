"""Argument types that several tools share, each with its description and bounds."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from intelligentscan.domain.names import MAX_DESCRIPTION, MAX_NAME

MAX_PATH = 4096


def _one_is_a_list(value: Any) -> Any:
    """Take one text where a list of texts is meant, as agents often write it."""
    return [value] if isinstance(value, str) else value


def one_of_one(value: Any) -> Any:
    """Take a list of one text where one text is meant."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _no_truth(value: Any) -> Any:
    """Refuse true and false where a number is meant; they would count as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


NO_TRUTH = BeforeValidator(_no_truth)
"""Comes after the bounds of a number, which would not be published otherwise."""

Text = Annotated[str, Field(max_length=MAX_NAME)]
Texts = Annotated[list[Text], BeforeValidator(_one_is_a_list), Field(max_length=100)]

Limit = Annotated[int, Field(ge=1, le=100, description="Most rows."), NO_TRUTH]
Cursor = Annotated[str | None, Field(max_length=4000, description="Previous next_cursor.")]
ExperimentRef = Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="Experiment name or id.")]
ExperimentChoice = Annotated[str | None, Field(max_length=MAX_NAME, description="Experiment name or id, for 'latest'.")]
RunRef = Annotated[str, Field(min_length=6, max_length=64, description="Run id, unique prefix or 'latest'.")]
IdempotencyKey = Annotated[
    str | None,
    Field(max_length=200, description="Same key, same run: for safe retries."),
]
Description = Annotated[str | None, Field(max_length=MAX_DESCRIPTION, description="Text for people.")]
Params = Annotated[dict[str, Any] | None, Field(description="Settings by name.")]
Metrics = Annotated[dict[str, Any] | None, Field(description="Finite numbers by name.")]
Tags = Annotated[dict[str, Any] | None, Field(description="Labels by name.")]
Path = Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
Baseline = Annotated[
    str | None,
    Field(min_length=6, max_length=64, description="Scan to compare with: run id or 'latest'."),
]
Product = Annotated[str | None, Field(max_length=MAX_NAME, description="AI product it belongs to.")]
ModelName = Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="Registered model name.")]
Version = Annotated[int, Field(ge=1, le=2**31 - 1, description="Version number."), NO_TRUTH]
VersionChoice = Annotated[int | None, Field(ge=1, le=2**31 - 1, description="Only this version."), NO_TRUTH]
DryRun = Annotated[bool, Field(description="Only say what would happen.")]
Confirm = Annotated[str | None, Field(max_length=200, description="Id of a plan to confirm.")]
