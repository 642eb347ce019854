"""What can be set from outside: environment, then `config.toml` in INTELLIGENTSCAN_HOME, then defaults."""

import os
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import platformdirs
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from intelligentscan.domain.errors import InvalidArgument

EMBEDDED_STORE = "mlflow.db"
_DATABASES = ("postgresql", "mysql", "mssql")
_ESCAPE = re.compile("%(?=[0-9A-Fa-f]{2})")


def home_from_environment() -> Path:
    """Return INTELLIGENTSCAN_HOME, or the user's data folder; works with an empty environment."""
    chosen = os.environ.get("INTELLIGENTSCAN_HOME", "")
    path = Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("intelligentscan"))
    return path.absolute()


class Settings(BaseSettings):
    """Every setting, checked once at start. An empty environment variable counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix="INTELLIGENTSCAN_", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    home: Path = Field(default_factory=home_from_environment)
    tracking_uri: str | None = Field(None, validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "tracking_uri"))
    registry_uri: str | None = Field(None, validation_alias=AliasChoices("MLFLOW_REGISTRY_URI", "registry_uri"))
    governance_uri: str | None = None
    archive: Path | None = None
    checkpoint_dir: Path | None = None
    allowed_roots: Annotated[tuple[Path, ...] | None, NoDecode] = None
    toolsets: Annotated[tuple[str, ...] | None, NoDecode] = None
    tools: Annotated[tuple[str, ...] | None, NoDecode] = None
    exclude_tools: Annotated[tuple[str, ...], NoDecode] = ()
    read_only: bool = False
    engine_programs: Annotated[tuple[Path, ...], NoDecode] = ()
    deadline_s: float = Field(30.0, gt=0, le=600, description="Longest wait for one answer of the store, seconds.")
    confirm_deadline_s: float = Field(
        120.0, gt=0, le=600, description="Longest wait in a call for a person's answer, seconds."
    )

    scan_cache_mb: int = Field(
        200, ge=0, le=100_000, description="Most that results of earlier scans may take, MiB; 0 keeps none."
    )

    @field_validator("home", mode="after")
    @classmethod
    def _absolute_home(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("archive", "checkpoint_dir", mode="after")
    @classmethod
    def _absolute(cls, folder: Path | None) -> Path | None:
        return folder.expanduser().absolute() if folder is not None else None

    @field_validator("allowed_roots", mode="before")
    @classmethod
    def _roots(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part for part in value.split(os.pathsep) if part]
        if not isinstance(value, list | tuple) or not all(isinstance(part, str | Path) for part in value):
            return value  # None, or what the type of the setting refuses
        return tuple(Path(part).expanduser().absolute() for part in value)

    @field_validator("engine_programs", mode="before")
    @classmethod
    def _programs(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [part for part in value.split(os.pathsep) if part]
        if not isinstance(value, list | tuple) or not all(isinstance(part, str | Path) for part in value):
            return value
        paths = tuple(Path(part).expanduser() for part in value)
        if not all(path.is_absolute() for path in paths):
            raise ValueError("programs of engines are absolute paths")
        return paths

    @field_validator("toolsets", "tools", "exclude_tools", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read config.toml of the home folder after the environment."""
        given = init_settings().get("home")
        home = Path(given).expanduser() if given else home_from_environment()
        config = home / "config.toml"
        if config.is_file():
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config)
        return init_settings, env_settings

    @classmethod
    def load(cls, **given: Any) -> "Settings":
        """Return the settings in force.

        Raises:
            InvalidArgument: a setting is wrong, or config.toml is not TOML.
        """
        try:
            return cls(**given)
        except ValidationError as exc:
            first = exc.errors()[0]
            name = "_".join(str(part) for part in first["loc"])[:60]
            raise InvalidArgument(
                f"The setting {name} is wrong: {first['msg'][:200]}.",
                next=f"correct INTELLIGENTSCAN_{name.upper()} or config.toml in INTELLIGENTSCAN_HOME.",
            ) from exc
        except RuntimeError as exc:  # '~' for a user without a home folder, as in some containers
            raise InvalidArgument(
                f"A folder of the settings is unknown: {str(exc).rstrip('.')}.",
                next="set INTELLIGENTSCAN_HOME to an absolute path.",
            ) from exc
        except (ValueError, OSError) as exc:
            raise InvalidArgument(
                f"config.toml in INTELLIGENTSCAN_HOME cannot be read: {str(exc)[:200]}.", next="correct its syntax."
            ) from exc

    @property
    def embedded(self) -> bool:
        """Whether runs go to the SQLite store in INTELLIGENTSCAN_HOME, chosen by default or named in full."""
        return sqlite_path(self.store_uri) == self.home / EMBEDDED_STORE

    @property
    def store_uri(self) -> str:
        """The tracking URI in force, with an absolute path for SQLite files."""
        if self.tracking_uri is None:
            return sqlite_uri(self.home / EMBEDDED_STORE)
        if (path := sqlite_path(self.tracking_uri)) is not None:
            return sqlite_uri(path)
        return self.tracking_uri

    @property
    def archive_folder(self) -> Path:
        """Where sealed bytes are kept."""
        return self.archive if self.archive is not None else self.home / "archive"

    @property
    def keys_folder(self) -> Path:
        """Where the keys are that sign the audit trail."""
        return self.home / "keys"

    @property
    def is_sqlite(self) -> bool:
        """Whether the tracking store is one SQLite file."""
        return sqlite_path(self.store_uri) is not None

    @property
    def artifact_root(self) -> str | None:
        """Where new experiments of a database keep their artifacts: an absolute path; None if a server decides.

        Left to itself, MLflow takes a folder of the working directory, another one for each client.
        """
        if self.embedded or self.store_uri.startswith(_DATABASES):
            return artifact_uri(self.home / "artifacts")
        path = sqlite_path(self.store_uri)
        return artifact_uri(path.parent / "mlruns") if path is not None else None


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a `sqlite:///` URI's file, or None for any other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").split("?", 1)[0])).expanduser().absolute()


def sqlite_uri(path: Path) -> str:
    """Return the URI of a SQLite file; only what a URI would read as something else is escaped."""
    return f"sqlite:///{_ESCAPE.sub('%25', str(path)).replace('?', '%3F')}"


def artifact_uri(folder: Path) -> str:
    """Return a folder as MLflow takes it for artifacts: its path, or a file URI if the path would be misread."""
    return folder.as_uri() if set("%?#") & set(str(folder)) else str(folder)


def shown_uri(uri: str) -> str:
    """Return a URI as it may be shown: without user and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]).geturl()
