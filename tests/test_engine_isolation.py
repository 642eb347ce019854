"""A target that brings settings, modules, plug-ins, hooks and builds of its own changes no result and runs nothing."""

import os
from pathlib import Path

import pytest
from engine_targets import (
    LIGHT,
    SEMGREP_RULES,
    TARGET,
    add_hostile_git,
    found,
    heavy_program,
    hostile_files,
    make_executable,
    required,
    scan,
    write,
)

from intelligentscan.scanners import programs
from intelligentscan.scanners.config import EngineConfig, RuleSource
from intelligentscan.scanners.interface import ScanReport


async def scan_both(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch, options: EngineConfig
) -> tuple[ScanReport, ScanReport, Path]:
    """Scan the plain target and the hostile one, the latter from within and with its programs first on PATH."""
    marker = tmp_path.resolve() / "marker"
    plain = write(tmp_path.resolve() / "plain", TARGET)
    hostile = write(tmp_path.resolve() / "hostile", TARGET | hostile_files(marker))
    add_hostile_git(hostile, marker)
    make_executable(hostile)
    marker.unlink(missing_ok=True)
    clean = await scan(plain, engine, **{engine.replace("-", "_"): options})
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PATH", f"{hostile}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(hostile))
    monkeypatch.setenv("HOME", str(hostile))
    return clean, await scan(hostile, engine, **{engine.replace("-", "_"): options}), marker


def of_target(report: ScanReport) -> set[tuple[str, str, str | None, int | None]]:
    return {row for row in found(report) if row[2] in TARGET}


@pytest.mark.parametrize("engine", ["bandit", "ruff", *LIGHT])
async def test_a_hostile_target_changes_nothing_and_executes_nothing(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine in LIGHT:
        required(engine)

    clean, hostile, marker = await scan_both(tmp_path, engine, monkeypatch, EngineConfig())

    assert not marker.exists()
    assert found(clean) == of_target(hostile) != set()
    assert [item.version for item in clean.coverage] == [item.version for item in hostile.coverage]


@pytest.mark.parametrize("engine", ["semgrep", "checkov"])
async def test_a_hostile_target_changes_nothing_for_the_heavy_engines(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(programs.SETTING, str(heavy_program(engine)))
    rules = write(tmp_path.resolve() / "rules", {"rule.yml": SEMGREP_RULES})
    options = EngineConfig(rules=(RuleSource(path=str(rules)),)) if engine == "semgrep" else EngineConfig()

    clean, hostile, marker = await scan_both(tmp_path, engine, monkeypatch, options)

    assert not marker.exists()
    assert found(clean) == of_target(hostile) != set()


async def test_requirements_of_a_hostile_target_build_and_fetch_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pip-audit, with a service that never answers, so that only what it does with the files counts."""
    required("pip-audit")
    monkeypatch.setattr(
        "intelligentscan.scanners.pip_audit.PipAudit.environment", {"HTTPS_PROXY": "http://127.0.0.1:9"}
    )
    marker = tmp_path.resolve() / "marker"
    hostile = write(tmp_path.resolve() / "hostile", TARGET | hostile_files(marker))
    make_executable(hostile)
    monkeypatch.chdir(hostile)

    report = await scan(hostile, "ruff", "pip-audit")

    assert not marker.exists()
    audit = next(item for item in report.coverage if item.engine == "pip-audit")
    assert (audit.status, audit.files_seen, audit.files_failed) == ("failed", 2, 2)
    assert report.status == "partial"
