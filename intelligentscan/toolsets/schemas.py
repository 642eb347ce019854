"""The JSON schemas that tools publish: what pydantic generates, without what a reader does not need.

Generated schemas are twice as long as they need be, and an agent pays for every character of them. Titles
and definitions go. An argument that may be omitted is published with the type to give, not as a union with
null; its enums and bounds stay. A result is published with the type and the description of each field: one
that may be null has "type": [T, "null"], and so have numbers, because JSON has no infinity; what is in its
lists and maps, and which words its texts can be, an agent reads in the answer itself. tools/catalogue has
the full shape of every result.
"""

from typing import Any

from pydantic import BaseModel

JsonSchema = dict[str, Any]
_DEFS = "#/$defs/"
_DROPPED = frozenset({"title", "$defs", "default", "anyOf", "$ref"})


def input_schema(generated: JsonSchema) -> JsonSchema:
    """Return the published schema of a tool's arguments, made from the generated schema of its argument model."""
    definitions = generated.get("$defs", {})
    properties: JsonSchema = {}
    for name, raw in generated.get("properties", {}).items():
        schema = _plain(raw, definitions, nullable=False)
        if (default := raw.get("default")) is not None:
            schema["default"] = default
        properties[name] = schema
    cleaned: JsonSchema = {"type": "object", "properties": properties}
    if required := generated.get("required"):
        cleaned["required"] = required
    cleaned["additionalProperties"] = False
    return cleaned


def output_schema(noun: type[BaseModel]) -> JsonSchema:
    """Return the published schema of a result."""
    generated = noun.model_json_schema(mode="serialization")
    definitions = generated.get("$defs", {})
    properties = {name: _field(raw, definitions) for name, raw in generated["properties"].items()}
    return {"type": "object", "properties": properties}


def _plain(raw: JsonSchema, definitions: JsonSchema, *, nullable: bool) -> JsonSchema:
    """Return one schema cleaned.

    Args:
        raw: the generated schema.
        definitions: what its references point to.
        nullable: keep null as an allowed type; dropped otherwise.
    """
    if "$ref" in raw:
        cleaned = _row(definitions[raw["$ref"].removeprefix(_DEFS)])
    elif "anyOf" in raw:
        cleaned = _union([_plain(arm, definitions, nullable=nullable) for arm in raw["anyOf"]], nullable)
    else:
        cleaned = {}
    cleaned |= {key: value for key, value in raw.items() if key not in _DROPPED}
    for key in ("items", "additionalProperties"):
        if isinstance(inner := raw.get(key), dict):
            cleaned[key] = _plain(inner, definitions, nullable=nullable)
    if cleaned.get("additionalProperties") is True:
        del cleaned["additionalProperties"]
    return cleaned


def _field(raw: JsonSchema, definitions: JsonSchema) -> JsonSchema:
    """Return the schema of one field of a result."""
    cleaned = _plain(raw, definitions, nullable=True)
    inner = cleaned.get("items", {})
    if "description" not in cleaned and "description" in inner:
        cleaned["description"] = inner["description"]
    if cleaned.get("type") == "number":
        cleaned["type"] = ["number", "null"]
    return {key: cleaned[key] for key in ("type", "description") if key in cleaned}


def _row(target: JsonSchema) -> JsonSchema:
    return {"type": "object", "description": ", ".join(target.get("properties", {}))}


def _union(arms: list[JsonSchema], nullable: bool) -> JsonSchema:
    """Return alternatives as one schema with a list of types, where only their types differ or one of them is null."""
    others = [arm for arm in arms if arm.get("type") != "null"]
    if len(others) == 1:
        merged = dict(others[0])
    elif all(set(arm) == {"type"} for arm in others):
        merged = {"type": [arm["type"] for arm in others]}
    else:
        return {"anyOf": arms if nullable else others}
    if nullable and len(others) < len(arms):
        types = merged["type"] if isinstance(merged["type"], list) else [merged["type"]]
        merged["type"] = [*types, "null"]
    return merged
