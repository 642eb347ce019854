"""What is left of a generated schema when it is published."""

from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from intelligentscan.domain.noun import Noun
from intelligentscan.toolsets.schemas import input_schema, output_schema


class Arguments(BaseModel):
    title: Annotated[str, Field(min_length=1, max_length=9, description="A name.")]
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    mode: Literal["a", "b"] | None = None
    names: Annotated[list[Annotated[str, Field(max_length=5)]] | None, Field(min_length=2, max_length=7)] = None
    value: int | str | None = None
    extra: dict[str, Any] | None = None


class Row(Noun):
    key: str
    size: int | None


class Result(Noun):
    status: Literal["done", "open"]
    when: Annotated[str | None, Field(description="Time.")]
    best: Literal["x", "y"] | None = None
    scores: dict[str, float]
    share: float = 0.5
    rows: list[Row]
    described: Annotated[list[Row], Field(description="The rows.")]
    nested: Row | None = None
    history: dict[str, list[Row]] = {}
    notes: list[str] = []


PUBLISHED = input_schema(Arguments.model_json_schema())
PROPERTIES = PUBLISHED["properties"]
RESULT = output_schema(Result)["properties"]


def test_an_argument_that_is_named_title_stays_and_generated_titles_go() -> None:
    assert PROPERTIES["title"] == {"type": "string", "minLength": 1, "maxLength": 9, "description": "A name."}
    assert [name for name, schema in PROPERTIES.items() if "title" in schema] == []


def test_an_optional_argument_has_the_type_to_give_and_keeps_enum_and_bounds() -> None:
    assert PROPERTIES["mode"] == {"type": "string", "enum": ["a", "b"]}
    assert PROPERTIES["names"] == {
        "type": "array",
        "items": {"type": "string", "maxLength": 5},
        "minItems": 2,
        "maxItems": 7,
    }
    assert PROPERTIES["value"] == {"type": ["integer", "string"]}
    assert PROPERTIES["extra"] == {"type": "object"}


def test_a_default_stays_unless_it_is_null() -> None:
    assert PROPERTIES["limit"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert [name for name, schema in PROPERTIES.items() if "default" in schema] == ["limit"]


def test_only_declared_arguments_are_allowed() -> None:
    assert PUBLISHED["required"] == ["title"]
    assert PUBLISHED["additionalProperties"] is False


def test_a_result_that_may_be_null_says_so_in_its_type() -> None:
    assert RESULT["when"] == {"type": ["string", "null"], "description": "Time."}
    assert RESULT["best"] == {"type": ["string", "null"]}
    assert RESULT["status"] == {"type": "string"}


def test_numbers_may_be_null_because_json_has_no_infinity() -> None:
    assert RESULT["share"] == {"type": ["number", "null"]}
    assert RESULT["scores"] == {"type": "object"}


def test_what_is_in_a_result_is_described_and_its_rows_are_named_where_nothing_else_describes_them() -> None:
    assert RESULT["rows"] == {"type": "array", "description": "key, size"}
    assert RESULT["described"] == {"type": "array", "description": "The rows."}
    assert RESULT["nested"] == {"type": ["object", "null"], "description": "key, size"}
    assert RESULT["history"] == {"type": "object"}
    assert RESULT["notes"] == {"type": "array"}


@pytest.mark.parametrize(
    "result",
    [
        Result(status="done", when=None, scores={"f1": 0.5}, rows=[], described=[]),
        Result(
            status="open",
            when="2026-01-01T00:00:00Z",
            best="x",
            scores={"loss": float("nan")},
            rows=[Row(key="a", size=None)],
            described=[Row(key="b", size=1)],
            nested=Row(key="c", size=2),
            history={"m": [Row(key="d", size=3)]},
            notes=["n"],
        ),
    ],
)
def test_results_validate_against_the_published_schema_as_they_are_on_the_wire(result: Result) -> None:
    schema = output_schema(Result)
    Draft202012Validator.check_schema(schema)
    on_the_wire = Result.model_json_schema()["properties"].keys()
    sent = {key: None if value != value else value for key, value in result.model_dump(mode="json").items()}
    sent["scores"] = {key: None if value != value else value for key, value in sent["scores"].items()}
    Draft202012Validator(schema).validate(sent)
    assert schema["properties"].keys() == on_the_wire
