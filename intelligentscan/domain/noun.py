"""The base of every published result: a frozen pydantic model that forbids unknown fields."""

from pydantic import BaseModel, ConfigDict


class Noun(BaseModel):
    """A result written once; MCP publishes it as output schema and every face returns it unchanged."""

    model_config = ConfigDict(frozen=True, extra="forbid")
