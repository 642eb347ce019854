"""A scanning configuration: which engines run, with which rules; versioned YAML, read as data."""

from typing import Annotated, Any

import rfc8785
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.text import untrusted

MAX_CONFIG_BYTES = 256 * 1024
KNOWN_ENGINES = ("bandit", "ruff")
FINDING_COLUMNS = ("repo_path", "rule", "engine", "severity", "path", "line", "message", "fingerprint")
"""What a configuration returns for each finding when it is used as a model."""
Rule = Annotated[str, Field(pattern=r"^[A-Z]{1,6}[0-9]{0,6}$")]


class EngineConfig(BaseModel):
    """One engine of a configuration: the rules to run and to leave out; empty select means the engine's default set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    select: tuple[Rule, ...] = ()
    ignore: tuple[Rule, ...] = ()
    version: str | None = Field(None, max_length=50, pattern=r"^[0-9A-Za-z.+\-]+$")
    timeout_s: int = Field(600, ge=1, le=7200)


class ScanConfig(BaseModel):
    """Engines and rules of a scan, with a digest that names exactly this choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("default", min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")
    schema_version: int = Field(1, ge=1, le=1)
    engines: dict[str, EngineConfig] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """sha256 over the RFC 8785 form of the configuration without its name."""
        return sha256_hex(rfc8785.dumps(self.model_dump(mode="json", exclude={"name"})))

    def to_yaml(self) -> str:
        """Return the configuration as YAML, keys in their declared order."""
        text: str = yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)
        return text

    @staticmethod
    def from_yaml(text: str) -> "ScanConfig":
        """Read a configuration from YAML.

        Raises:
            InvalidArgument: it is not YAML, too large, or names an unknown engine or field.
        """
        if len(text) > MAX_CONFIG_BYTES:
            raise InvalidArgument("The scanning configuration is larger than 256 KiB.", next="shorten it.")
        try:
            return ScanConfig.from_data(yaml.safe_load(text))
        except (yaml.YAMLError, RecursionError) as exc:
            raise InvalidArgument(
                "The scanning configuration is not valid YAML.", next="check its indentation and quoting."
            ) from exc

    @staticmethod
    def from_data(data: Any) -> "ScanConfig":
        """Read a configuration from parsed data.

        Raises:
            InvalidArgument: a field is missing, unknown or out of bounds, or an engine is unknown.
        """
        try:
            config = ScanConfig.model_validate(data)
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise InvalidArgument(
                f"The scanning configuration is wrong at {where[:80]}: {first['msg'][:120]}.",
                next="write name, schema_version: 1 and engines: {bandit: {}, ruff: {}}.",
            ) from exc
        return config.checked()

    @staticmethod
    def of_engines(engines: list[str]) -> "ScanConfig":
        """Return the default configuration of the named engines.

        Raises:
            InvalidArgument: an engine is unknown, named twice, or none is named.
        """
        if not engines or len(set(engines)) != len(engines):
            raise InvalidArgument("Engines must be named, each once.", next="engines=['bandit', 'ruff'].")
        name = "default" if tuple(sorted(engines)) == KNOWN_ENGINES else "-".join(sorted(engines))
        unknown = [e for e in engines if e not in KNOWN_ENGINES]
        if unknown:
            raise _unknown_engine(unknown[0])
        return ScanConfig(name=name, engines={e: EngineConfig() for e in sorted(engines)})

    def checked(self) -> "ScanConfig":
        """Return self if every engine is one of ours."""
        for engine in self.engines:
            if engine not in KNOWN_ENGINES:
                raise _unknown_engine(engine)
        return self


def _unknown_engine(engine: str) -> InvalidArgument:
    return InvalidArgument(
        f"There is no engine '{untrusted(engine, 40)}'.",
        next=f"choose from {', '.join(KNOWN_ENGINES)}; log_scan_run with sarif_path takes results of other scanners.",
    )
