"""The real bandit and the real ruff on awkward files: nothing is lost without being counted."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from intelligentscan.domain.errors import InvalidArgument, ScanFailed
from intelligentscan.scanners.bandit import Bandit
from intelligentscan.scanners.config import EngineConfig, ScanConfig
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.ruff import Ruff
from intelligentscan.scanners.scan import scan_folder

EVAL = "value = eval(input())\n"
BOTH = ["bandit", "ruff"]
DEEP = "x = " + "+".join(["1"] * 20_000) + "\n" + EVAL
"""Nested so deeply that ruff overflows its stack and bandit gives up on the file."""


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path.resolve() / "project"
    root.mkdir()
    return root


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


async def scan(root: Path, engines: Iterable[str] = BOTH, **options: EngineConfig) -> ScanReport:
    chosen = {name: options.get(name, EngineConfig()) for name in engines}
    return await scan_folder(root, ScanConfig(name="test", engines=chosen))


def found(report: ScanReport, engine: str) -> set[tuple[str, str, int]]:
    return {(f.path, f.rule, f.line) for f in report.findings if f.engine == engine and f.counts}


def coverage(report: ScanReport, engine: str) -> tuple[str, int, int, int]:
    item = next(item for item in report.coverage if item.engine == engine)
    return item.status, item.files_seen, item.files_analyzed, item.files_failed


def failures(report: ScanReport, engine: str) -> dict[str, str]:
    item = next(item for item in report.coverage if item.engine == engine)
    return dict(line.split(": ", 1) for line in item.failures)


async def test_both_engines_find_with_relative_paths_lines_and_rules_run(root):
    write(root, {"a.py": "\n" + EVAL, "pkg/b.py": "import subprocess\nsubprocess.call('ls', shell=True)\n"})

    report = await scan(root)

    assert ("a.py", "B307", 2) in found(report, "bandit")
    assert ("pkg/b.py", "B602", 2) in found(report, "bandit")
    assert found(report, "ruff") >= {("a.py", "S307", 2), ("pkg/b.py", "S602", 2)}
    assert report.status == "complete"
    assert coverage(report, "bandit") == coverage(report, "ruff") == ("complete", 2, 2, 0)
    assert {"B105", "B307", "B602"} <= set(report.rules_run["bandit"])
    assert {"S105", "S307", "S602"} <= set(report.rules_run["ruff"])
    assert not {rule for rule in report.rules_run["ruff"] if rule.startswith(("SIM", "E"))}
    assert {"S320", "S404"}.isdisjoint(report.rules_run["ruff"]), "removed and preview rules do not run"


async def test_versions_and_the_parsing_python_are_recorded(root):
    write(root, {"a.py": EVAL})

    report = await scan(root)

    bandit, ruff = report.coverage
    assert bandit.version == await ENGINES["bandit"].version()
    assert ruff.version == await ENGINES["ruff"].version()
    assert bandit.python_version == ".".join(map(str, os.sys.version_info[:3]))
    assert report.scanner_version == f"{bandit.version}, {ruff.version}"
    assert bandit.exit_code == ruff.exit_code == 0


async def test_no_path_of_this_machine_is_in_the_reports(root):
    write(root, {"a.py": EVAL, "bad.py": "def f(:\n", "deep.py": DEEP})

    report = await scan(root)

    text = f"{report.sarif}{report.engine_sarif}{report.engine_stderr}{report.findings}{report.coverage}"
    assert str(root.parent) not in text
    assert "intelligentscan-" not in text
    assert "file://" not in text
    assert "deep.py" in report.engine_stderr["bandit"]


async def test_a_syntax_error_is_a_failed_file_and_no_finding(root):
    write(root, {"bad.py": EVAL + "def f(:\n", "good.py": EVAL})

    report = await scan(root)

    assert report.status == "partial"
    for engine in BOTH:
        assert coverage(report, engine) == ("partial", 2, 1, 1)
        assert list(failures(report, engine)) == ["bad.py"]
        assert report.failed_files[engine] == ("bad.py",)
        assert {path for path, _, _ in found(report, engine)} == {"good.py"}
    assert {finding.rule for finding in report.findings} == {"B307", "S307"}
    notifications = report.engine_sarif["ruff"]["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert notifications[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "bad.py"


async def test_a_file_that_crashes_an_engine_costs_only_itself(root):
    write(root, {f"m{number:02}.py": EVAL for number in range(20)} | {"m07_deep.py": DEEP})

    report = await scan(root)

    for engine in BOTH:
        assert coverage(report, engine) == ("partial", 21, 20, 1)
        assert list(failures(report, engine)) == ["m07_deep.py"]
        assert len(found(report, engine)) == 20


async def test_a_string_that_bandit_cannot_report_costs_only_its_file(root):
    write(root, {"a.py": EVAL, "surrogate.py": "password = '\\ud800'\n" + EVAL})

    report = await scan(root, ["bandit"])

    assert coverage(report, "bandit") == ("partial", 2, 1, 1)
    assert failures(report, "bandit") == {"surrogate.py": "the engine crashed (code 1)"}


async def test_encodings_and_line_ends(root):
    write(
        root,
        {
            "bom.py": b"\xef\xbb\xbf" + EVAL.encode(),
            "crlf.py": b"\r\n" + EVAL.strip().encode() + b"\r\n",
            "bom_crlf.py": b"\xef\xbb\xbf" + EVAL.strip().encode() + b"\r\n",
            "latin_declared.py": b"# -*- coding: latin-1 -*-\n# \xe9\n" + EVAL.encode(),
            "utf7_hidden.py": b"# -*- coding: utf-7 -*-\n#+AAo-eval(input())\n",
            "no_end.py": EVAL.strip(),
        },
    )

    report = await scan(root)

    expected = {("bom.py", 1), ("crlf.py", 2), ("bom_crlf.py", 1), ("latin_declared.py", 3), ("no_end.py", 1)}
    for engine in BOTH:
        assert {(path, line) for path, _, line in found(report, engine)} - {("utf7_hidden.py", 3)} == expected
        assert "utf7_hidden.py" in {path for path, _, _ in found(report, engine)}
        assert coverage(report, engine) == ("complete", 6, 6, 0)


async def test_undeclared_latin_and_nul_bytes_are_failed_files(root):
    write(root, {"good.py": EVAL, "latin.py": b"# \xe9\n" + EVAL.encode(), "nul.py": EVAL.encode() + b"\0\n"})

    report = await scan(root)

    for engine in BOTH:
        assert coverage(report, engine) == ("partial", 3, 1, 2)
        assert set(failures(report, engine)) == {"latin.py", "nul.py"}


async def test_slow_codecs_are_not_decoded_for_ruff(root):
    write(root, {"good.py": EVAL, "puny.py": "# coding: Puny_Code\n" + EVAL})

    report = await scan(root, ["ruff"])

    assert "puny.py" in failures(report, "ruff")


async def test_newer_syntax_is_accepted_by_ruff_and_counted_where_bandits_python_is_older(root):
    write(root, {"good.py": EVAL, "new.py": 'x = f"{"a"}"\ntype X = int\n' + EVAL})

    report = await scan(root)

    assert ("new.py", "S307", 3) in found(report, "ruff")
    assert coverage(report, "ruff") == ("complete", 2, 2, 0)
    if os.sys.version_info < (3, 12):
        assert "not parsable by Python 3.11" in failures(report, "bandit")["new.py"]


async def test_a_large_file_is_failed_with_its_reason(root):
    write(root, {"good.py": EVAL, "large.py": EVAL + "# filler\n" * 1_200_000})

    report = await scan(root)

    for engine in BOTH:
        assert failures(report, engine) == {"large.py": "larger than the limit of 10 MiB"}


HOSTILE_SETTINGS: dict[str, str | bytes] = {
    ".bandit": "[bandit]\nskips: B307\nexclude: .\n",
    "bandit.yaml": "skips: [B307]\n",
    "setup.cfg": "[bandit]\nskips = B307\n",
    "tox.ini": "[bandit]\nskips = B307\n",
    "pyproject.toml": '[tool.bandit]\nskips = ["B307"]\n[tool.ruff]\nexclude = ["*"]\nforce-exclude = true\n'
    '[tool.ruff.lint]\nignore = ["S"]\n[tool.ruff.lint.per-file-ignores]\n"*" = ["S"]\n',
    "ruff.toml": 'exclude = ["*"]\nextend = "/etc/passwd"\n[lint.per-file-ignores]\n"*" = ["S307"]\n',
    ".ruff.toml": '[lint]\nignore = ["ALL"]\n',
    ".gitignore": "*\n",
    ".ignore": "*\n",
}


async def test_settings_in_the_target_silence_nothing(root):
    write(
        root, HOSTILE_SETTINGS | {"src/a.py": EVAL, "src/ruff.toml": HOSTILE_SETTINGS["ruff.toml"], "src/.bandit": "x"}
    )

    report = await scan(root)

    assert ("src/a.py", "B307", 1) in found(report, "bandit")
    assert ("src/a.py", "S307", 1) in found(report, "ruff")
    assert report.status == "complete"


async def test_modules_in_the_target_are_not_imported(root, tmp_path):
    marker = tmp_path / "marker"
    evil = f"open({str(marker)!r}, 'w').close()\n" + EVAL
    names = ["yaml", "bandit", "sitecustomize", "usercustomize", "json", "stevedore", "rich", "conftest", "ruff"]
    write(root, {f"{name}.py": evil for name in names} | {"bandit/__init__.py": evil, "bandit/__main__.py": evil})
    write(root, {"ruff": "#!/bin/sh\ntouch " + str(marker)})
    (root / "ruff").chmod(0o755)
    before = Path.cwd()
    os.chdir(root)
    try:
        report = await scan(root)
    finally:
        os.chdir(before)

    assert not marker.exists()
    assert len({path for path, rule, _ in found(report, "bandit") if rule == "B307"}) == len(names) + 2
    assert len({path for path, rule, _ in found(report, "ruff") if rule == "S307"}) == len(names) + 2


async def test_paths_that_engines_leave_out_by_default_are_analysed(root):
    write(root, dict.fromkeys(("a.git.py", "x.egg/b.py", "CVS.d/c.py", "build/d.py", "venv/e.py", "f.pyw"), EVAL))

    report = await scan(root)

    expected = {"a.git.py", "x.egg/b.py", "CVS.d/c.py", "build/d.py", "venv/e.py", "f.pyw"}
    for engine in BOTH:
        assert {path for path, _, _ in found(report, engine)} == expected


async def test_any_file_name_is_analysed_and_named(root):
    names = [
        b"two words.py",
        b"line\nbreak.py",
        b"-rf.py",
        "größe/ñ.py".encode(),
        b"caf\xe9.py",
        b"%41#?.py",
        b"@file.py",
    ]
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(EVAL)

    report = await scan(root)

    expected = {name.decode("utf-8", "replace") for name in names}
    for engine in BOTH:
        assert {path for path, _, _ in found(report, engine)} == expected
        assert coverage(report, engine) == ("complete", 7, 7, 0)
    assert set(report.files) == expected


async def test_findings_silenced_in_the_source_are_kept_as_suppressed(root):
    write(
        root,
        {
            "a.py": "eval(input())  # nosec\neval(input())  # noqa: S307\neval(input())\n",
            "b.py": "# ruff: noqa\n" + EVAL,
        },
    )

    report = await scan(root)

    assert found(report, "bandit") == {("a.py", "B307", 2), ("a.py", "B307", 3), ("b.py", "B307", 2)}
    assert found(report, "ruff") == {("a.py", "S307", 1), ("a.py", "S307", 3)}
    suppressed = {(f.engine, f.path, f.line) for f in report.findings if f.suppressed}
    assert suppressed == {("bandit", "a.py", 1), ("ruff", "a.py", 2), ("ruff", "b.py", 2)}
    assert [item.findings for item in report.coverage] == [3, 2]


async def test_selected_and_ignored_rules_are_the_ones_that_run(root):
    write(root, {"a.py": "assert 1\n" + EVAL + "import pickle\n"})

    report = await scan(
        root,
        bandit=EngineConfig(select=("B1", "B307")),
        ruff=EngineConfig(select=("S1", "S307"), ignore=("S101",)),
    )

    assert {rule for _, rule, _ in found(report, "bandit")} == {"B101", "B307"}
    assert {rule for _, rule, _ in found(report, "ruff")} == {"S307"}
    assert "S101" not in report.rules_run["ruff"]
    assert {rule[:2] for rule in report.rules_run["bandit"]} == {"B1", "B3"}


async def test_rules_an_engine_does_not_have_are_said_and_none_at_all_is_refused(root):
    write(root, {"a.py": EVAL})

    report = await scan(root, bandit=EngineConfig(select=("B307", "B999")), ruff=EngineConfig(select=("S307", "S320")))
    assert any("no stable rule B999" in text for text in report.warnings)
    assert any("no stable rule S320" in text for text in report.warnings)
    assert report.rules_run == {"bandit": ("B307",), "ruff": ("S307",)}

    with pytest.raises(InvalidArgument, match="selects no rule of bandit"):
        await scan(root, bandit=EngineConfig(select=("B9",)))


async def test_another_version_than_the_configuration_asks_for_is_said(root):
    write(root, {"a.py": EVAL})

    report = await scan(root, ruff=EngineConfig(version="0.0.1"))

    assert any(text.startswith("degraded: the configuration asks for ruff 0.0.1") for text in report.warnings)


async def test_a_time_limit_fails_the_files_it_did_not_reach(root, monkeypatch):
    write(root, {"a.py": EVAL})
    monkeypatch.setattr(Bandit, "arguments", lambda self, call: ["-c", "import time; time.sleep(60)"])

    report = await scan(root, bandit=EngineConfig(timeout_s=1))

    assert report.status == "partial"
    assert coverage(report, "bandit") == ("failed", 1, 0, 1)
    assert coverage(report, "ruff") == ("complete", 1, 1, 0)
    assert "time limit" in failures(report, "bandit")["a.py"]


async def test_a_missing_engine_is_partial_and_if_it_is_the_only_one_a_refusal(root, monkeypatch):
    write(root, {"a.py": EVAL})
    monkeypatch.setattr(Ruff, "program", lambda self, *_: [str(root / "no-such-ruff")])
    monkeypatch.setitem(ENGINES, "ruff", Ruff())

    report = await scan(root)
    assert report.status == "partial"
    assert coverage(report, "ruff") == ("failed", 0, 0, 0)
    assert any("ruff could not be run" in text for text in report.warnings)

    with pytest.raises(ScanFailed, match="ruff could not be run"):
        await scan(root, ["ruff"])


@pytest.mark.parametrize(
    "output", ["", "not json", "{}", '{"runs": []}', '{"runs": "x"}', "[1]", '{"runs": [{"results": [5, {}]}]}']
)
async def test_an_engine_whose_output_is_nonsense_analysed_nothing(root, monkeypatch, output):
    write(root, {"a.py": EVAL})
    monkeypatch.setattr(Bandit, "arguments", lambda self, call: ["-c", f"print({output!r})"])

    with pytest.raises(ScanFailed, match="No engine could analyse any file"):
        await scan(root, ["bandit"])


async def test_stub_files_go_to_the_engine_that_reads_them(root):
    write(root, {"a.pyi": "x: int\n", "b.py": EVAL})

    report = await scan(root)

    assert coverage(report, "bandit") == ("complete", 1, 1, 0)
    assert coverage(report, "ruff") == ("complete", 2, 2, 0)
