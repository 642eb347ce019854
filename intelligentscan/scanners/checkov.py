"""Checkov for Terraform, Dockerfiles, Kubernetes and CloudFormation, from an environment of its own.

It would load Python checks from a folder that `.checkov.yaml` of the target names: it gets single files in a private
tree, and its home is empty. No downloads, no modules from elsewhere. Files it could not parse are only in its JSON
report, and of YAML it says nothing at all, so YAML is parsed here first.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, ClassVar

import yaml

from intelligentscan._digest import sha256_hex
from intelligentscan._process import MIB, ProcessResult
from intelligentscan.scanners.batches import NoReport
from intelligentscan.scanners.child_engine import MAX_REPORT_BYTES
from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.engine_call import Call, Parsed, Report, Setting, read_file, read_json, read_own_sarif
from intelligentscan.scanners.file_kinds import is_dockerfile
from intelligentscan.scanners.interface import TargetFile
from intelligentscan.scanners.optional_engine import OptionalEngine, own_environment
from intelligentscan.scanners.text_copy import plain_text

_FRAMEWORKS = ("terraform", "dockerfile", "kubernetes", "cloudformation")
_DATA = frozenset({".yaml", ".yml", ".json", ".template"})
_KUBERNETES = re.compile(r"^[\s\"']*apiVersion[\"']?\s*:", re.MULTILINE), re.compile(r"^[\s\"']*kind[\"']?\s*:", re.M)
_CLOUDFORMATION = re.compile(r"AWSTemplateFormatVersion|[\"' ]AWS::[A-Za-z]+::")


class Checkov(OptionalEngine):
    """The checkov engine; see the module."""

    name: str = "checkov"
    command: ClassVar[str] = "checkov"
    install: ClassVar[str] = own_environment("checkov")
    environment: ClassVar[Mapping[str, str]] = {"BC_SKIP_MAPPING": "TRUE", "LOG_LEVEL": "ERROR"}
    max_files: ClassVar[int] = 200
    max_bytes: ClassVar[int] = 4 * MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the files the engine analyses."""
        return (".tf", "Dockerfile", "YAML or JSON of Kubernetes and CloudFormation")

    def takes(self, path: str) -> bool:
        """Tell whether a file may be infrastructure as code by its name."""
        suffix = PurePosixPath(path).suffix.lower()
        return suffix == ".tf" or suffix in _DATA or is_dockerfile(path)

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile | None:
        """Return the file with a copy that lies with the others of its folder, None if it is nothing for checkov.

        Files of one folder make one Terraform module, so folders are kept apart.
        """
        if file.copy is None:
            return file
        path = PurePosixPath(file.path)
        text = plain_text(file.copy.read_bytes()).replace("\0", " ")
        number = file.copy.name.partition(".")[0]
        name = f"{number}{path.suffix.lower()}"
        if is_dockerfile(file.path):
            name = f"{number}.d/Dockerfile"
        elif path.suffix.lower() in _DATA:
            if not (all(mark.search(text) for mark in _KUBERNETES) or _CLOUDFORMATION.search(text)):
                return None
            if not _is_yaml(text):
                return replace(file, copy=None, reason="not valid YAML")
        copy = setting.workspace / "tree" / f"f{sha256_hex(str(path.parent).encode('utf-8', 'replace'))[:12]}" / name
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8", errors="replace", newline="")
        return replace(file, copy=copy)

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        return [
            *("--framework", *_FRAMEWORKS, "--skip-download", "--download-external-modules", "false"),
            *("--soft-fail", "--compact", "--output", "sarif", "--output", "json"),
            *("--output-file-path", str(call.output), "--file", *call.copies),
        ]

    def parse(self, call: Call, result: ProcessResult) -> Parsed:
        """Return the report, and the files that could not be parsed.

        Raises:
            NoReport: there is no usable report.
        """
        document = read_own_sarif(read_file(call.output / "results_sarif.sarif", MAX_REPORT_BYTES))
        told = read_json(read_file(call.output / "results_json.json", MAX_REPORT_BYTES))
        lost: dict[str, str] = {}
        for part in told if isinstance(told, list) else [told]:
            if not isinstance(part, dict):
                raise NoReport("the engine gave no report")
            for path in _results(part).get("parsing_errors") or []:
                lost[str(path)] = "not parsable by checkov"
        return Parsed(document, lost)

    def silenced(self, report: Report, names: CopyNames) -> list[TargetFile]:
        """Return no files: checkov lists skipped checks as suppressed itself."""
        return []


def _results(part: Mapping[str, Any]) -> Mapping[str, Any]:
    results = part.get("results")
    return results if isinstance(results, dict) else {}


def _is_yaml(text: str) -> bool:
    """Tell whether a text is YAML; its nodes are only composed, so tags mean nothing and aliases are not expanded."""
    try:
        for _ in yaml.compose_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            pass
    except (yaml.YAMLError, RecursionError):
        return False
    return True
