"""A scanning configuration: which engines run, with which rules; versioned YAML, read as data."""

import re
from typing import Annotated, Any

import rfc8785
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from intelligentscan._credential_forms import without_credentials
from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.text import untrusted

MAX_CONFIG_BYTES = 256 * 1024
DEFAULT_ENGINES = ("bandit", "ruff")
"""What runs when nothing else is asked for; they come with IntelligentScan."""

KNOWN_ENGINES = (
    *DEFAULT_ENGINES, "ast-grep", "checkov", "detect-secrets", "hadolint", "pip-audit", "semgrep", "zizmor",
)  # fmt: skip
RULE_FILE_ENGINES = frozenset({"ast-grep", "semgrep"})
"""Engines whose rules are files."""

FINDING_COLUMNS = ("repo_path", "rule", "engine", "severity", "path", "line", "message", "fingerprint")
"""What a configuration returns for each finding when it is used as a model."""
Rule = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_./\-]{0,119}$")]
_CODE = re.compile(r"[A-Z]{1,6}[0-9]{0,6}")
_PROGRAM = r"^/[^\x00-\x1f]{1,1000}$"
_ADDED = ("rules", "executable", "python", "memory_mb")


class RuleSource(BaseModel):
    """A local file or folder of rules. With a digest, exactly these rules are meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(pattern=_PROGRAM)
    digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("path", mode="before")
    @classmethod
    def _local(cls, path: Any) -> Any:
        if isinstance(path, str) and not path.startswith("/"):
            raise ValueError("rules are absolute paths of local files or folders; nothing is fetched from a registry")
        return path


class EngineConfig(BaseModel):
    """One engine of a configuration.

    Attributes:
        select: rules to run; empty means the engine's default set.
        ignore: rules to leave out.
        version: the release that the configuration was made with.
        timeout_s: seconds for all files.
        rules: files or folders of rules, for engines whose rules are files.
        executable: absolute path of the program, one of those the installation allows.
        python: absolute path of the interpreter that runs bandit, likewise.
        memory_mb: mebibytes of resident memory that one call may use; None means 4,096.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    select: tuple[Rule, ...] = ()
    ignore: tuple[Rule, ...] = ()
    version: str | None = Field(None, max_length=50, pattern=r"^[0-9A-Za-z.+\-]+$")
    timeout_s: int = Field(600, ge=1, le=7200)
    rules: tuple[RuleSource, ...] = Field((), max_length=50)
    executable: str | None = Field(None, pattern=_PROGRAM)
    python: str | None = Field(None, pattern=_PROGRAM)
    memory_mb: int | None = Field(None, ge=16, le=1_048_576)

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the options that came later and are not set, so that older configurations keep their digest."""
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if value or key not in _ADDED}


class ScanConfig(BaseModel):
    """Engines and rules of a scan, with a digest that names exactly this choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("default", min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")
    schema_version: int = Field(1, ge=1, le=1)
    engines: dict[str, EngineConfig] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """sha256 over the RFC 8785 form of the configuration without its name.

        Rules count by their digest where it is known, not by the place where this machine keeps them.
        """
        data = self.model_dump(mode="json", exclude={"name"})
        for options in data["engines"].values():
            if "rules" in options:
                options["rules"] = [source["digest"] or source["path"] for source in options["rules"]]
        return sha256_hex(rfc8785.dumps(data))

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
        shown = config.to_yaml()
        if without_credentials(shown) != shown:
            raise InvalidArgument(
                "The scanning configuration holds what looks like a credential.",
                next="take it out, and revoke the credential if it is real.",
            )
        return config.checked()

    @staticmethod
    def of_engines(engines: list[str]) -> "ScanConfig":
        """Return the default configuration of the named engines.

        Raises:
            InvalidArgument: an engine is unknown, named twice, or none is named.
        """
        if not engines or len(set(engines)) != len(engines):
            raise InvalidArgument("Engines must be named, each once.", next="engines=['bandit', 'ruff'].")
        name = "default" if tuple(sorted(engines)) == DEFAULT_ENGINES else "-".join(sorted(engines))
        unknown = [e for e in engines if e not in KNOWN_ENGINES]
        if unknown:
            raise _unknown_engine(unknown[0])
        return ScanConfig(name=name, engines={e: EngineConfig() for e in sorted(engines)}).checked()

    def checked(self) -> "ScanConfig":
        """Return self if every engine is one of ours and gets only what it understands.

        Raises:
            InvalidArgument: an engine is unknown, or an option is not for it.
        """
        for engine, options in self.engines.items():
            if engine not in KNOWN_ENGINES:
                raise _unknown_engine(engine)
            _check_options(engine, options)
        return self


def _check_options(engine: str, options: EngineConfig) -> None:
    if engine in DEFAULT_ENGINES:
        for rule in (*options.select, *options.ignore):
            if _CODE.fullmatch(rule) is None:
                raise _not_for(engine, f"the rule '{rule}'", "write codes such as B602, S3 or S.")
    if options.rules and engine not in RULE_FILE_ENGINES:
        raise _not_for(engine, "rules", "rules are for ast-grep and semgrep; choose others with select and ignore.")
    if options.python and engine != "bandit":
        raise _not_for(engine, "python", "python is for bandit; other programs are named with executable.")
    if options.executable and engine in DEFAULT_ENGINES:
        raise _not_for(engine, "executable", "it comes with IntelligentScan; bandit's interpreter is set with python.")


def _not_for(engine: str, what: str, next_step: str) -> InvalidArgument:
    return InvalidArgument(f"The configuration gives {engine} {what}, which it does not take.", next=next_step)


def _unknown_engine(engine: str) -> InvalidArgument:
    return InvalidArgument(
        f"There is no engine '{untrusted(engine, 40)}'.",
        next=f"choose from {', '.join(KNOWN_ENGINES)}; log_scan_run with sarif_path takes results of other scanners.",
    )
