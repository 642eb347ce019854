"""Rules that are files: our own pack, or local files and folders that a configuration names, known by their digest.

Engines get private copies of exactly the bytes that were digested, so rules that change during a scan, links among them
and settings beside them have no effect.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import rfc8785
import yaml

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.config import EngineConfig, RuleSource, ScanConfig

_SUFFIXES = (".yml", ".yaml")
_NO_RULES = re.compile(r"(?:\.test|\.fixed)\.ya?ml$|^(?:sgconfig|\.pre-commit-config)\.ya?ml$")
MAX_RULE_FILES = 5_000
MAX_RULE_BYTES = 64 * 1024 * 1024
_PACK = "pack.yml"


@dataclass(frozen=True, slots=True)
class RuleFile:
    """One file of rules, under the name it has in its folder."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules that an engine runs.

    Attributes:
        name: what people call it, such as 'intelligentscan 1' for our pack.
        digest: sha256 over names and bytes of all files.
        files: the files.
    """

    name: str
    digest: str
    files: tuple[RuleFile, ...]

    @property
    def label(self) -> str:
        """Name and digest as they are recorded with a run."""
        return f"{self.name} sha256:{self.digest[:16]}"

    def write(self, folder: Path) -> None:
        """Write the files below a private folder that exists, under neutral names."""
        for number, file in enumerate(self.files):
            (folder / f"rules{number:05}.yml").write_bytes(file.data)

    def documents(self) -> list[dict[str, Any]]:
        """Return the YAML objects of all files.

        Raises:
            InvalidArgument: a file is not YAML.
        """
        found: list[dict[str, Any]] = []
        for file in self.files:
            try:
                found += [item for item in yaml.safe_load_all(file.data) if isinstance(item, dict)]
            except (yaml.YAMLError, RecursionError, ValueError) as exc:
                raise InvalidArgument(
                    f"The rule file '{untrusted(file.name, 200)}' is not valid YAML.", next="correct it."
                ) from exc
        return found


@cache
def own_pack(engine: str) -> RuleSet:
    """Return our own rules for an engine; `pack.yml` beside them holds their version."""
    folder = resources.files("intelligentscan.scanners") / "rules" / engine
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    files = [RuleFile(entry.name, entry.read_bytes()) for entry in entries if entry.name.endswith(_SUFFIXES)]
    version = yaml.safe_load(next(file.data for file in files if file.name == _PACK))["version"]
    return _rule_set(f"intelligentscan {version}", [file for file in files if file.name != _PACK])


@lru_cache(maxsize=32)
def checked_rules(rule_set: RuleSet, engine: str) -> list[dict[str, Any]]:
    """Return the rules of a set, each with an id.

    Raises:
        InvalidArgument: a file is not YAML, or holds something that is no rule.
    """
    documents = rule_set.documents()
    rules = documents if engine == "ast-grep" else [rule for item in documents for rule in _listed(item)]
    if not rules or not all(isinstance(rule, dict) and isinstance(rule.get("id"), str) for rule in rules):
        raise InvalidArgument(
            f"The rules '{rule_set.name}' are no rules for {engine}: each needs an id.",
            next="name only files of rules, written for this engine.",
        )
    return rules


def _listed(document: dict[str, Any]) -> list[Any]:
    rules = document.get("rules")
    return rules if isinstance(rules, list) else []


def rules_of(options: EngineConfig, engine: str) -> RuleSet:
    """Return the rules that the options of an engine name.

    Raises:
        InvalidArgument: they are missing, unreadable, too many, or not those that the configuration was made with.
    """
    found = [_read(source, engine) for source in options.rules]
    name = " and ".join(Path(source.path).name for source in options.rules)
    if len(found) == 1:
        return found[0]
    files = [RuleFile(f"{number}/{file.name}", file.data) for number, s in enumerate(found) for file in s.files]
    return _rule_set(untrusted(name, 100), files)


def pinned(config: ScanConfig) -> ScanConfig:
    """Return the configuration with the digests of its rules, so that it names exactly these.

    Raises:
        InvalidArgument: as for `rules_of`.
    """
    engines = {
        name: options.model_copy(
            update={
                "rules": tuple(RuleSource(path=s.path, digest=_read(s, name).digest) for s in options.rules),
            }
        )
        if options.rules
        else options
        for name, options in config.engines.items()
    }
    return config.model_copy(update={"engines": engines})


def _read(source: RuleSource, engine: str) -> RuleSet:
    path = Path(source.path)
    try:
        files = list(_files(path))
    except OSError as exc:
        raise InvalidArgument(
            f"The rules for {engine} at '{untrusted(source.path, 200)}' cannot be read: {exc.strerror}.",
            next="correct their absolute path in the configuration.",
        ) from exc
    if not files:
        raise InvalidArgument(
            f"There are no rules for {engine} (.yml or .yaml) at '{untrusted(source.path, 200)}'.",
            next="name a rule file, or a folder that holds rule files.",
        )
    found = _rule_set(untrusted(path.name, 100), files)
    if source.digest is not None and source.digest != found.digest:
        raise InvalidArgument(
            f"The rules for {engine} at '{untrusted(source.path, 200)}' are not those the configuration was made with.",
            next="restore them, or take the digest out of the configuration to use them as they are now.",
        )
    return found


def _files(path: Path) -> Iterable[RuleFile]:
    if path.is_file():
        yield RuleFile(path.name, _bounded(path, MAX_RULE_BYTES))
        return
    left, count = MAX_RULE_BYTES, 0
    for folder, folders, names in os.walk(path, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.endswith(_SUFFIXES) or _NO_RULES.search(name) or file.is_symlink() or not file.is_file():
                continue
            count += 1
            data = _bounded(file, left)
            left -= len(data)
            if count > MAX_RULE_FILES:
                raise _too_much()
            yield RuleFile(file.relative_to(path).as_posix(), data)


def _bounded(path: Path, most: int) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise _too_much()
    return data


def _raise(error: OSError) -> None:
    raise error


def _too_much() -> InvalidArgument:
    return InvalidArgument(
        f"Those are more than {MAX_RULE_FILES:,} rule files or {MAX_RULE_BYTES // 2**20} MiB of rules.",
        next="name the folders with the rules you need.",
    )


def _rule_set(name: str, files: Sequence[RuleFile]) -> RuleSet:
    told = sorted((file.name, sha256_hex(file.data)) for file in files)
    return RuleSet(name, sha256_hex(rfc8785.dumps([list(pair) for pair in told])), tuple(files))
