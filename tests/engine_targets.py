"""A folder with something for every engine, the same folder as an attacker would prepare it, and the heavy engines."""

import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs
import pytest
from conftest import IN_CI

from intelligentscan.domain.errors import EngineMissing
from intelligentscan.scanners.config import EngineConfig, ScanConfig
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.scan import scan_folder

Files = dict[str, str | bytes]
LIGHT = ("ast-grep", "detect-secrets", "hadolint", "zizmor")
"""Optional engines that our own development environment has; pip-audit needs the network."""

HEAVY = {"semgrep": "semgrep>=1.182", "checkov": "checkov>=3.3"}
"""Engines that need environments of their own, 300 and 200 MB."""

KEY = "AKIA" + "IOSFODNN7EXAMPLA"
TARGET: Files = {
    "app.py": 'value = eval(input())\nredirect(request.args.get("next"))\n',
    "web.js": "eval(text);\n",
    "settings.py": f'aws = "{KEY}"\n',
    "Dockerfile": "FROM debian\nRUN sudo true\n",
    ".github/workflows/ci.yml": "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
    "      - run: echo ${{ github.event.pull_request.title }}\n",
    "infra/main.tf": 'resource "aws_s3_bucket" "b" {\n  acl = "public-read"\n}\n',
    "requirements.txt": "jinja2==2.4.1\n",
}
SEMGREP_RULES = """rules:
  - id: text-is-run
    languages: [python]
    severity: ERROR
    message: Text is run as code.
    pattern: eval($X)
    metadata: {cwe: CWE-95}
"""


def write(root: Path, files: Files) -> Path:
    """Write files below a folder and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def hostile_files(marker: Path) -> Files:
    """Return files that would run code of theirs, or silence an engine, if an engine took notice of them.

    Args:
        marker: what their code would create.
    """
    python = f"open({str(marker)!r}, 'w').close()\n"
    shell = f"#!/bin/sh\ntouch '{marker}'\n"
    names = ("ast-grep", "sg", "semgrep", "checkov", "hadolint", "zizmor", "detect-secrets", "pip-audit", "ruff", "git")
    programs = dict.fromkeys(names, shell)
    modules = ("yaml", "sitecustomize", "usercustomize", "json", "semgrep", "checkov", "detect_secrets", "pip_audit")
    return {
        **programs,
        **{f"{name}.py": python for name in modules},
        "conftest.py": python,
        "setup.py": python,
        "checks/__init__.py": python,
        "checks/check.py": python,
        "plugins/plugin.py": python,
        "parser.so": b"\x7fELF no library at all",
        ".bandit": "[bandit]\nskips: B307\nexclude: .\n",
        "ruff.toml": 'exclude = ["*"]\n[lint.per-file-ignores]\n"*" = ["S"]\n',
        "pyproject.toml": '[tool.bandit]\nskips = ["B307"]\n[tool.ruff]\nexclude = ["*"]\n'
        '[tool.ruff.lint]\nignore = ["S"]\n'
        '[build-system]\nrequires = []\nbuild-backend = "setup"\nbackend-path = ["."]\n',
        ".checkov.yaml": "external-checks-dir: [checks]\nskip-check: [CKV*]\nframework: [ansible]\n",
        ".checkov.yml": "external-checks-dir: [checks]\n",
        "sgconfig.yml": "ruleDirs: [none]\ncustomLanguages:\n  python:\n    libraryPath: parser.so\n"
        "    extensions: [py]\n",
        ".semgrepignore": "*\n",
        ".semgrep.yml": "rules: []\n",
        ".semgrep/settings.yml": "rules: []\n",
        ".pre-commit-config.yaml": "repos:\n- repo: local\n  hooks:\n"
        "  - {id: a, name: a, language: system, entry: ./git}\n",
        ".secrets.baseline": '{"version": "1.5.0", "plugins_used": [{"name": "X", "path": "plugins/plugin.py"}], '
        '"filters_used": [], "results": {}}\n',
        ".hadolint.yaml": "ignored: [DL3004, DL3006]\nfailure-threshold: none\n",
        ".hadolint.yml": "ignored: [DL3004]\n",
        "zizmor.yml": "rules:\n  template-injection: {disable: true}\n  dangerous-triggers: {disable: true}\n",
        ".github/zizmor.yml": "rules:\n  template-injection: {disable: true}\n",
        "requirements-build.txt": "-e .\n./setup.py\n--index-url http://127.0.0.1:9/\nevil @ file:///nowhere\njinja2==2.4.1\n",
        ".gitignore": "*\n",
        ".ignore": "*\n",
    }


def add_hostile_git(root: Path, marker: Path) -> None:
    """Make the folder a repository whose hooks, filters and file monitor would run code."""
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], cwd=root, check=True)
    hook = root / ".git" / "run"
    hook.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    hook.chmod(0o755)
    for name in ("post-checkout", "pre-commit", "post-index-change", "fsmonitor-watchman"):
        shutil.copy(hook, root / ".git" / "hooks" / name)
    with (root / ".git" / "config").open("a") as config:
        config.write(
            f"[core]\n\tfsmonitor = {hook}\n\tpager = {hook}\n\tsshCommand = {hook}\n[diff]\n\texternal = {hook}\n"
        )
        config.write(f'[filter "x"]\n\tclean = {hook}\n\tsmudge = {hook}\n')
    (root / ".gitattributes").write_text("* filter=x diff=x\n")


def make_executable(root: Path) -> None:
    """Let every file of the folder be started."""
    for path in root.rglob("*"):
        if path.is_file() and ".git/" not in path.as_posix():
            path.chmod(path.stat().st_mode | stat.S_IXUSR)


async def scan(root: Path, *engines: str, **options: EngineConfig) -> ScanReport:
    """Scan with engines; options by the name of an engine with '_' for '-'."""
    chosen = {name: options.get(name.replace("-", "_"), EngineConfig()) for name in engines}
    return await scan_folder(root, ScanConfig(name="test", engines=chosen))


def found(report: ScanReport) -> set[tuple[str, str, str | None, int | None]]:
    """Return what was found, as engine, rule, path and line."""
    return {(f.engine, f.rule, f.path, f.line) for f in report.findings if f.counts}


def required(*engines: str) -> None:
    """Skip a test whose optional engine is not installed; in CI that is a failure."""
    for name in engines:
        try:
            ENGINES[name].check(EngineConfig(), Path("/nowhere"))
        except EngineMissing:
            pytest.skip(f"the engine {name} is not installed")


def heavy_program(engine: str) -> Path:
    """Return the program of a heavy engine; in CI its environment is made once and kept, elsewhere the test skips."""
    cached = Path(platformdirs.user_cache_dir("intelligentscan-tests"), engine)
    program = cached / "bin" / engine
    if program.exists():
        return program
    if not IN_CI:
        pytest.skip(f"{engine} has no environment here; INTELLIGENTSCAN_CI=1 makes one")
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    cached.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=cached.parent))
    subprocess.run([uv, "venv", "-q", "--clear", "--relocatable", "--python", sys.executable, str(making)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", str(making / "bin" / "python"), HEAVY[engine]], check=True)
    try:
        making.rename(cached)
    except OSError:  # another test process was faster
        shutil.rmtree(making)
    return program
