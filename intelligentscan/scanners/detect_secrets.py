"""detect-secrets on every text file, without baseline, plug-ins or verification over the network.

It sees only files below its working directory, and drops what it cannot decode without a word: it gets copies in plain
UTF-8. Its report holds an unsalted SHA-1 of every secret, from which a short one can be found again: not kept.
"""

import re
from pathlib import PurePosixPath
from typing import Any, ClassVar

from intelligentscan._process import MIB, ProcessResult
from intelligentscan.scanners.batches import NoReport
from intelligentscan.scanners.engine_call import Call, Parsed, Setting, read_json, result_of, sarif_of
from intelligentscan.scanners.interface import TargetFile
from intelligentscan.scanners.optional_engine import OptionalEngine, extra
from intelligentscan.scanners.text_copy import text_copy

_ALLOWLIST = "detect_secrets.filters.allowlist.is_line_allowlisted"
_BINARY = frozenset({
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".ico", ".bmp", ".tif", ".tiff", ".pdf", ".zip", ".gz", ".bz2", ".xz",
    ".zst", ".tar", ".tgz", ".7z", ".jar", ".war", ".whl", ".so", ".dylib", ".dll", ".exe", ".o", ".a", ".class",
    ".pyc", ".pyo", ".woff", ".woff2", ".ttf", ".otf", ".eot", ".mp3", ".mp4", ".mov", ".avi", ".wav", ".ogg", ".flac",
    ".db", ".sqlite", ".parquet", ".npy", ".npz", ".pkl", ".pt", ".onnx", ".safetensors", ".h5", ".bin", ".wasm",
})  # fmt: skip
_LOCK_FILES = frozenset({
    "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "uv.lock", "pipfile.lock",
    "cargo.lock", "go.sum", "composer.lock", "gemfile.lock", "packages.lock.json", "flake.lock",
})  # fmt: skip
"""Full of digests that look like secrets; detect-secrets leaves them out by name as well."""


class DetectSecrets(OptionalEngine):
    """The detect-secrets engine; see the module."""

    name: str = "detect-secrets"
    command: ClassVar[str] = "detect-secrets"
    package: ClassVar[str | None] = "detect-secrets"
    install: ClassVar[str] = extra("secrets")
    per_file: ClassVar[bool] = True
    max_files: ClassVar[int] = 300
    max_bytes: ClassVar[int] = 2 * MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the files the engine analyses."""
        return ("any text",)

    def takes(self, path: str) -> bool:
        """Tell whether a file may be text: all but lock files and what its suffix calls binary."""
        name = PurePosixPath(path.lower())
        return name.suffix not in _BINARY and name.name not in _LOCK_FILES

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile:
        """Return the file as plain UTF-8."""
        return text_copy(file, setting.workspace / "text")

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call; the folder above ours is the one that holds all copies."""
        return [
            *("-C", str(call.workspace.parent), "-c", "1", "scan", "--all-files", "--no-verify"),
            *(["--disable-filter", _ALLOWLIST] if call.ignore_suppressions else []),
            *call.copies,
        ]

    def parse(self, call: Call, result: ProcessResult) -> Parsed:
        """Return the report as SARIF.

        Raises:
            NoReport: there is no usable report.
        """
        told = read_json(result.stdout)
        found = told.get("results") if isinstance(told, dict) else None
        if not isinstance(found, dict):
            raise NoReport("the engine gave no report")
        items = [item for rows in found.values() for item in rows]
        kinds = {_rule(item): str(item["type"]) for item in items}
        rules = [_descriptor(rule, kind) for rule, kind in sorted(kinds.items())]
        results = [
            result_of(
                _rule(item), "warning", f"Possible secret: {item['type']}.", item["filename"], item["line_number"]
            )
            for item in items
        ]
        return Parsed(sarif_of(self.name, call.setting.facts.version, rules, results))


def _rule(item: dict[str, Any]) -> str:
    """Return a rule id made of the kind of secret: 'AWS Access Key' is aws-access-key."""
    return re.sub(r"[^a-z0-9]+", "-", str(item["type"]).lower()).strip("-")


def _descriptor(rule: str, kind: str) -> dict[str, Any]:
    return {
        "id": rule,
        "shortDescription": {"text": f"{kind} in the source"},
        "properties": {"tags": ["security", "secret", "external/cwe/cwe-798"]},
    }
