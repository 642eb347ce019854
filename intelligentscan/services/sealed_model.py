"""What a sealed model says about itself in its files, read as data: no model is ever loaded here."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from intelligentscan._digest import sha256_hex
from intelligentscan._paths import open_beneath, read_bytes
from intelligentscan.domain.errors import IntelligentScanError, WrongPathKind
from intelligentscan.domain.text import untrusted

CARD = "card."
"""Tags of a version that begin so are fields of its model card."""

_MODEL_FILE = "MLmodel"
_REQUIREMENTS = "requirements.txt"
_ENVIRONMENT = (_REQUIREMENTS, "conda.yaml", "python_env.yaml", "pyproject.toml", "uv.lock")
_RUNS_CODE = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".pt", ".pth", ".bin")
_PICKLES = ("pickle", "cloudpickle", "joblib", "dill")
_MAX_FILE = 2 * 2**20
_MAX_NAMED = 100
_MAX_FILES = 20_000


@dataclass(frozen=True, slots=True)
class SealedModel:
    """What the files of a sealed model say.

    Attributes:
        signature: whether it declares its inputs and outputs.
        input_example: whether it holds an example of its input.
        flavors: names of the flavors that can load it.
        requirements: lines of its requirements.
        environment: files that say what it needs to run, each with the sha256 of its bytes.
        pickled: files that a loader would run code from, by their format.
        digest: sha256 of the file `MLmodel`; None if there is none.
    """

    signature: bool = False
    input_example: bool = False
    flavors: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    pickled: tuple[str, ...] = ()
    digest: str | None = None


def sealed_model(folder: Path) -> SealedModel:
    """Return what the files of a sealed model say; what is missing or cannot be read says nothing."""
    described = _bytes(folder, _MODEL_FILE)
    said = _yaml(described)
    flavors = _mapping(said.get("flavors"))
    signature = _mapping(said.get("signature"))
    example = _mapping(said.get("saved_input_example_info")).get("artifact_path")
    environment = {name: data for name in _ENVIRONMENT if (data := _bytes(folder, name)) is not None}
    return SealedModel(
        signature=bool(signature.get("inputs")) and bool(signature.get("outputs")),
        input_example=isinstance(example, str) and _digest(folder, example) is not None,
        flavors=tuple(sorted(untrusted(str(name), 60) for name in list(flavors)[:_MAX_NAMED])),
        requirements=_lines(environment.get(_REQUIREMENTS)),
        environment={name: sha256_hex(data) for name, data in environment.items()},
        pickled=_pickled(folder, flavors),
        digest=sha256_hex(described) if described is not None else None,
    )


def card_fields(description: str | None, tags: Mapping[str, str], use_case: str | None) -> tuple[str, ...]:
    """Return the fields of a version's model card that say something.

    Args:
        description: text of the version.
        tags: tags of the version; `card.limitations` is the field `limitations`.
        use_case: what it was registered for.
    """
    filled = {key.removeprefix(CARD) for key, value in tags.items() if key.startswith(CARD) and value.strip()}
    filled |= {"description"} if description and description.strip() else set()
    filled |= {"use_case"} if use_case and use_case.strip() else set()
    return tuple(sorted(filled - {""}))


def _pickled(folder: Path, flavors: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is run, not only read, when it is loaded: files by their suffix, and what flavors say."""
    found: set[str] = set()
    for flavor, facts in list(flavors.items())[:_MAX_NAMED]:
        how = _mapping(facts).get("serialization_format")
        if isinstance(how, str) and how.lower() in _PICKLES:
            found.add(untrusted(f"{flavor}: {how}", 100))
    seen = 0
    for above, _, names in os.walk(folder):
        for name in names:
            seen += 1
            if seen > _MAX_FILES:
                return (*sorted(found)[:_MAX_NAMED], "more files than were looked at")
            if name.lower().endswith(_RUNS_CODE):
                found.add(untrusted(str((Path(above) / name).relative_to(folder)), 200))
    return tuple(sorted(found)[:_MAX_NAMED])


def _lines(data: bytes | None) -> tuple[str, ...]:
    if data is None:
        return ()
    lines = (line.strip() for line in data.decode("utf-8", "replace").splitlines())
    return tuple(untrusted(line, 200) for line in lines if line and not line.startswith("#"))[:_MAX_NAMED]


def _yaml(data: bytes | None) -> dict[Any, Any]:
    try:
        return _mapping(yaml.safe_load(data or b""))
    except (yaml.YAMLError, ValueError, RecursionError, UnicodeDecodeError):
        return {}


def _mapping(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _bytes(folder: Path, relative: str) -> bytes | None:
    try:
        return read_bytes(folder, relative, _MAX_FILE)
    except IntelligentScanError:
        return None


def _digest(folder: Path, relative: str) -> str | None:
    with suppress(OSError, WrongPathKind, ValueError), os.fdopen(open_beneath(folder, relative), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    return None
