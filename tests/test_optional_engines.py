"""Engines that are used when they are installed: what each finds, what it could not analyse, what it needs."""

import json
from pathlib import Path

import anyio
import pytest
from engine_targets import HEAVY, KEY, LIGHT, SEMGREP_RULES, TARGET, found, heavy_program, required, scan, write

from intelligentscan.domain.errors import EngineMissing, InvalidArgument, NothingToScan, ScanFailed
from intelligentscan.scanners import programs
from intelligentscan.scanners.config import DEFAULT_ENGINES, KNOWN_ENGINES, EngineConfig, RuleSource, ScanConfig
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.pip_audit import PipAudit, read_requirements
from intelligentscan.scanners.rule_files import own_pack

DEFAULT_DIGEST = "c24e7c6ce29df5e61e4e7ec5699e4a93a85895a002ec45977ae273a39a73ffca"
OLD_DIGEST = "ce4eda7aa468a7dfd305b96fb2c82bf34c9912de38c123db02156276b2ae525a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "project"
    root.mkdir()
    return root


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch):
    def allow(*paths: Path | str) -> None:
        monkeypatch.setenv(programs.SETTING, ":".join(str(path) for path in paths))

    return allow


def coverage(report: ScanReport) -> tuple[str, int, int, int]:
    item = report.coverage[0]
    return item.status, item.files_seen, item.files_analyzed, item.files_failed


def failures(report: ScanReport) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in report.coverage[0].failures)


def test_every_known_engine_is_there_and_the_default_stays_what_it_was() -> None:
    assert set(ENGINES) == set(KNOWN_ENGINES)
    assert {name for name, engine in ENGINES.items() if not engine.optional} == set(DEFAULT_ENGINES)
    assert ScanConfig.of_engines(["ruff", "bandit"]).name == "default"


def test_configurations_from_before_keep_their_digest_and_new_options_change_it() -> None:
    default = ScanConfig.of_engines(["bandit", "ruff"])
    old = ScanConfig.from_data({"name": "x", "engines": {"ruff": {"select": ["S3"], "version": "0.1"}}})

    assert default.digest == DEFAULT_DIGEST
    assert old.digest == OLD_DIGEST
    assert "python" not in default.to_yaml()
    assert ScanConfig.from_yaml(default.to_yaml()).digest == DEFAULT_DIGEST
    changed = ScanConfig.from_data({"engines": {"bandit": {"python": "/usr/bin/python3"}, "ruff": {}}})
    assert changed.digest != DEFAULT_DIGEST
    assert ScanConfig.from_yaml(changed.to_yaml()) == changed


EXPECTED = {
    "ast-grep": {("py-redirect-to-request-value", "app.py", 2), ("js-code-from-value", "web.js", 1)},
    "detect-secrets": {("aws-access-key", "settings.py", 1)},
    "hadolint": {("DL3006", "Dockerfile", 1), ("DL3004", "Dockerfile", 2)},
    "zizmor": {
        ("zizmor/dangerous-triggers", ".github/workflows/ci.yml", 1),
        ("zizmor/template-injection", ".github/workflows/ci.yml", 6),
    },
}


@pytest.mark.parametrize("engine", LIGHT)
async def test_an_engine_finds_what_it_is_for_without_network_and_says_what_it_saw(root: Path, engine: str) -> None:
    required(engine)
    write(root, TARGET)

    report = await scan(root, engine)

    assert {(rule, path, line) for _, rule, path, line in found(report)} >= EXPECTED[engine]
    assert report.status == "complete"
    assert report.coverage[0].files_seen > 0
    assert report.coverage[0].version == await ENGINES[engine].version()
    assert report.coverage[0].network in {"blocked", "not blocked"}
    text = f"{report.sarif}{report.engine_stderr}{report.findings}{report.coverage}"
    assert "intelligentscan-" not in text
    assert str(root.parent) not in text
    assert KEY not in text


async def test_engines_run_together_each_on_its_own_files(root: Path) -> None:
    required(*LIGHT)
    write(root, TARGET)

    together = await scan(root, "bandit", "ruff", *LIGHT)

    alone: set[tuple[str, str, str | None, int | None]] = set()
    for engine in ("bandit", "ruff", *LIGHT):
        alone |= found(await scan(root, engine))
    assert found(together) == alone
    assert together.status == "complete"
    assert {item.engine: item.files_seen for item in together.coverage} == {
        "ast-grep": 3, "bandit": 2, "detect-secrets": 7, "hadolint": 1, "ruff": 2, "zizmor": 1,
    }  # fmt: skip


async def test_encodings_marks_and_null_bytes_hide_nothing_and_move_no_column(root: Path) -> None:
    required("ast-grep", "detect-secrets")
    code = 'redirect(request.args["a"])\n'
    write(
        root,
        {
            "bom.py": b"\xef\xbb\xbf" + code.encode(),
            "latin.py": b"# \xe9\n" + code.encode(),
            "declared.py": b"# coding: utf-7\n#+AAo-" + code.encode().replace(b"\n", b"") + b"\n",
            "nul.py": b"x = 'a\0b'\n" + code.encode(),
            "wide.js": "﻿eval(x)\n".encode("utf-16-le"),
            "secret.txt": b"\xe9\0\n" + f'key = "{KEY}"\n'.encode(),
        },
    )

    report = await scan(root, "ast-grep", "detect-secrets")

    assert {(f.path, f.line, f.column) for f in report.findings if f.engine == "ast-grep"} == {
        ("bom.py", 1, 1), ("latin.py", 2, 1), ("declared.py", 3, 1), ("nul.py", 2, 1), ("wide.js", 1, 1),
    }  # fmt: skip
    assert {(f.path, f.line) for f in report.findings if f.engine == "detect-secrets"} == {("secret.txt", 2)}
    assert report.status == "complete"


async def test_dockerfiles_and_workflows_that_cannot_be_parsed_are_failed_files_alone(root: Path) -> None:
    required("hadolint", "zizmor")
    good = TARGET[".github/workflows/ci.yml"]
    write(
        root,
        {
            "Dockerfile": "FROM debian\nRUN sudo true\n",
            "bad.dockerfile": "FROM debian\nBOGUS {{\n",
            ".github/workflows/good.yml": b"\xef\xbb\xbf" + str(good).encode(),
            ".github/workflows/broken.yml": "on: [push\n",
            ".github/workflows/none.yml": "foo: bar\n",
            "tool/action.yml": "name: a\nruns:\n  using: composite\n  steps:\n"
            "    - run: echo ${{ inputs.a }}\n      shell: sh\n",
        },
    )

    docker, github = await scan(root, "hadolint"), await scan(root, "zizmor")

    assert coverage(docker) == ("partial", 2, 1, 1)
    assert failures(docker) == {"bad.dockerfile": "not a Dockerfile that hadolint can parse"}
    assert {path for _, _, path, _ in found(docker)} == {"Dockerfile"}
    assert coverage(github) == ("partial", 4, 2, 2)
    assert set(failures(github)) == {".github/workflows/broken.yml", ".github/workflows/none.yml"}
    assert {path for _, _, path, _ in found(github)} == {".github/workflows/good.yml", "tool/action.yml"}


async def test_findings_silenced_in_the_source_are_kept_as_suppressed(root: Path) -> None:
    required(*LIGHT)
    workflow = str(TARGET[".github/workflows/ci.yml"])
    write(
        root,
        {
            "web.js": "// ast-grep-ignore\neval(text);\neval(other);\n",
            "settings.py": f'aws = "{KEY}"  # pragma: allowlist secret\n',
            "Dockerfile": "FROM debian:12\n# hadolint ignore=DL3004\nRUN sudo true\n",
            ".github/workflows/ci.yml": workflow.replace(
                "pull_request_target", "pull_request_target # zizmor: ignore[dangerous-triggers]"
            ),
        },
    )

    report = await scan(root, *LIGHT)

    suppressed = {(f.engine, f.path, f.line) for f in report.findings if f.suppressed}
    assert suppressed == {
        ("ast-grep", "web.js", 2),
        ("detect-secrets", "settings.py", 1),
        ("hadolint", "Dockerfile", 3),
        ("zizmor", ".github/workflows/ci.yml", 1),
    }
    assert ("ast-grep", "js-code-from-value", "web.js", 3) in found(report)
    assert not found(report) & {("ast-grep", "js-code-from-value", "web.js", 2)}


async def test_rules_can_be_selected_and_left_out_also_where_the_engine_does_not_list_them(root: Path) -> None:
    required(*LIGHT)
    write(root, TARGET)

    chosen = await scan(root, "ast-grep", ast_grep=EngineConfig(select=("py",), ignore=("py-sql-built-from-text",)))
    without = await scan(root, "hadolint", hadolint=EngineConfig(ignore=("DL3006",)))
    only = await scan(root, "zizmor", zizmor=EngineConfig(select=("zizmor/template-injection",)))

    assert {rule for _, rule, _, _ in found(chosen)} == {"py-redirect-to-request-value"}
    assert "py-sql-built-from-text" not in chosen.rules_run["ast-grep"]
    assert {rule for _, rule, _, _ in found(without)} == {"DL3004"}
    assert {rule for _, rule, _, _ in found(only)} == {"zizmor/template-injection"}


async def test_an_engine_without_a_file_of_its_kind_says_so(root: Path) -> None:
    required("hadolint", "ast-grep")
    write(root, {"a.py": "x = 1\n", "lib.rs": "fn main() {}\n"})

    with pytest.raises(NothingToScan, match="hadolint analyses Dockerfile"):
        await scan(root, "hadolint")
    both = await scan(root, "ruff", "hadolint")
    assert both.status == "complete"
    assert {item.engine: item.files_seen for item in both.coverage} == {"hadolint": 0, "ruff": 1}
    (root / "a.py").unlink()
    with pytest.raises(NothingToScan, match="nothing that the rules"):
        await scan(root, "ast-grep")


@pytest.mark.parametrize("engine", [name for name, engine in ENGINES.items() if engine.optional])
async def test_asking_for_an_engine_that_is_not_installed_names_what_to_install(
    root: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, TARGET)
    monkeypatch.setattr("intelligentscan.scanners.optional_engine.find_program", lambda *_, **__: None)

    with pytest.raises(EngineMissing, match=f"engine {engine} is not installed") as refusal:
        await scan(root, "ruff", engine)

    assert ("intelligentscan[" in refusal.value.next) or ("uv tool install" in refusal.value.next)


async def test_local_rules_are_copied_digested_and_recorded(root: Path, tmp_path: Path) -> None:
    required("ast-grep")
    rules = write(tmp_path.resolve() / "rules", {"a.yml": "id: my-eval\nlanguage: python\nrule: {pattern: eval($X)}\n"})
    write(rules, {"notes.txt": "no rule", ".git/x.yml": "id: no", "a.test.yml": "id: no"})
    write(root, TARGET)
    config = ScanConfig.from_data({"engines": {"ast-grep": {"rules": [str(rules)]}}})

    report = await scan(root, "ast-grep", ast_grep=config.engines["ast-grep"])

    assert found(report) == {("ast-grep", "my-eval", "app.py", 1)}
    assert report.rules_run == {"ast-grep": ("my-eval",)}
    assert report.config is not None
    digest = report.config.engines["ast-grep"].rules[0].digest
    assert digest is not None
    assert report.coverage[0].ruleset == f"rules sha256:{digest[:16]}"
    moved = ScanConfig(engines={"ast-grep": EngineConfig(rules=(RuleSource(path="/elsewhere", digest=digest),))})
    assert moved.digest == report.config.digest, "the digest is of the rules, not of the place"
    (rules / "a.yml").write_text("id: my-eval\nlanguage: python\nrule: {pattern: exec($X)}\n")
    with pytest.raises(InvalidArgument, match="not those the configuration was made with"):
        await scan(root, "ast-grep", ast_grep=report.config.engines["ast-grep"])


@pytest.mark.parametrize("rules", ["p/python", "auto", "https://semgrep.dev/p/ci", "r/all", "rules"])
def test_rules_that_are_no_local_path_are_refused(rules: str) -> None:
    with pytest.raises(InvalidArgument, match="nothing is fetched from a registry"):
        ScanConfig.from_data({"engines": {"semgrep": {"rules": [rules]}}})


@pytest.mark.parametrize(
    ("engine", "options", "words"),
    [
        ("ruff", {"rules": ["/tmp"]}, "gives ruff rules"),
        ("ruff", {"python": "/usr/bin/python3"}, "gives ruff python"),
        ("bandit", {"executable": "/usr/bin/bandit"}, "gives bandit executable"),
        ("bandit", {"select": ["eval-used"]}, "gives bandit the rule 'eval-used'"),
        ("bandit", {"python": "python3"}, "wrong at engines.bandit.python"),
        ("hadolint", {"memory_mb": 1}, "wrong at engines.hadolint.memory_mb"),
    ],
)
def test_options_that_an_engine_does_not_take_are_refused(engine: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        ScanConfig.from_data({"engines": {engine: options}})


@pytest.mark.parametrize("content", ["id: x\nlanguage: nolang\nrule: {pattern: a}\n", "rule: {pattern: a}\n", "[1"])
async def test_rules_that_ast_grep_cannot_read_fail_once_and_clearly(root: Path, tmp_path: Path, content: str) -> None:
    required("ast-grep")
    rules = write(
        tmp_path.resolve() / "rules", {"bad.yml": content, "ok.yml": "id: a\nlanguage: python\nrule: {kind: call}\n"}
    )
    write(root, TARGET)

    with pytest.raises((InvalidArgument, ScanFailed)) as refusal:
        await scan(root, "ast-grep", ast_grep=EngineConfig(rules=(RuleSource(path=str(rules)),)))

    assert "rule" in f"{refusal.value.message}{refusal.value.details}"


async def test_a_configuration_may_only_choose_programs_that_the_installation_allows(
    root: Path, tmp_path: Path, allowed
) -> None:
    required("hadolint")
    marker = tmp_path / "marker"
    evil = tmp_path / "hadolint"
    evil.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    evil.chmod(0o755)
    write(root, TARGET)

    with pytest.raises(InvalidArgument, match="does not allow"):
        await scan(root, "hadolint", hadolint=EngineConfig(executable=str(evil)))
    with pytest.raises(InvalidArgument, match="does not allow"):
        await scan(root, "bandit", bandit=EngineConfig(python=str(evil)))
    assert not marker.exists()

    real = programs.find_program("hadolint")
    allowed(str(real))
    report = await scan(root, "hadolint", hadolint=EngineConfig(executable=str(real)))
    assert found(report)


async def test_programs_of_the_scanned_folder_are_not_taken_from_path(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    write(root, TARGET | {"bin/semgrep": f"#!/bin/sh\ntouch '{marker}'\n"})
    (root / "bin" / "semgrep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")

    with pytest.raises(InvalidArgument):
        await scan(root, "semgrep")

    assert programs.find_program("semgrep", avoid=root) is None
    assert not marker.exists()


async def test_the_interpreter_of_bandit_is_configuration_and_coverage(root: Path, allowed) -> None:
    import sys

    write(root, {"a.py": "value = eval(input())\n"})
    allowed(sys.executable)

    report = await scan(root, "bandit", bandit=EngineConfig(python=sys.executable))

    assert found(report) == {("bandit", "B307", "a.py", 1)}
    assert report.coverage[0].python_version == ".".join(map(str, sys.version_info[:3]))
    assert report.config is not None
    assert report.config.digest != ScanConfig.of_engines(["bandit"]).digest


async def test_an_engine_that_needs_too_much_memory_fails_the_files_it_needed_it_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, {"a.py": "value = eval(input())\n", "b.py": "x = 1\n"})
    hungry = "x = bytearray(400 * 2**20); import time; time.sleep(60)"
    monkeypatch.setattr("intelligentscan.scanners.bandit.Bandit.arguments", lambda self, call: ["-c", hungry])

    report = await scan(root, "bandit", "ruff", bandit=EngineConfig(memory_mb=200))

    assert report.status == "partial"
    item = next(item for item in report.coverage if item.engine == "bandit")
    assert (item.status, item.files_failed) == ("failed", 2)
    assert all("more memory than its limit of 200 MiB" in line for line in item.failures)
    assert {path for _, _, path, _ in found(report)} == {"a.py"}


async def test_bandit_on_python_that_it_cannot_parse_is_partial_with_failed_files(root: Path) -> None:
    write(
        root,
        {
            "good.py": "value = eval(input())\n",
            "newer.py": "match x:\n    case ==:\n        eval(input())\n",
            "older.py": "print 'python 2', eval(input())\n",
        },
    )

    report = await scan(root, "bandit")

    assert report.status == "partial"
    assert coverage(report) == ("partial", 3, 1, 2)
    assert report.failed_files == {"bandit": ("newer.py", "older.py")}
    assert all(reason.startswith("not parsable by Python 3.") for reason in failures(report).values())


def test_requirements_are_read_as_pip_writes_them() -> None:
    found = read_requirements(
        "# comment\n-r other.txt\n--index-url https://example.org\n"
        "Django[argon2] == 4.2.1 ; python_version > '3'  # why\n"
        "flask==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nrequests>=2\n-e .\nx @ https://example.org/x.whl\n"
        "a_B.c===1.0.post1\nflask==2.0; python_version<'3'\n./local\nnumpy==1.*\n"
    )

    assert dict(found.pinned) == {"django": ("4.2.1", 4), "flask": ("1.0", 5), "a-b-c": ("1.0.post1", 11)}
    assert found.other == 7


AUDIT = {
    "dependencies": [
        {
            "name": "jinja2",
            "version": "2.4.1",
            "vulns": [
                {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": ["CVE-2019-10906"], "description": "d"}
            ],
        },
        {"name": "nowhere", "skip_reason": "not found"},
    ],
    "fixes": [],
}


async def test_pip_audit_reports_vulnerable_requirements_and_counts_what_it_could_not_audit(
    root: Path, tmp_path: Path, allowed
) -> None:
    """The service is played by a program that answers as pip-audit does; the real one needs the network."""
    told = tmp_path / "told.json"
    told.write_text(json.dumps(AUDIT))
    program = tmp_path / "pip-audit"
    program.write_text(
        f"""#!/bin/sh
        [ "$1" = --version ] && echo "pip-audit 2.10.1" && exit
        echo "$@" >> {tmp_path}/calls
        for last; do :; done
        cat "$last" >> {tmp_path}/asked
        cat {told}
        exit 1
        """
    )
    program.chmod(0o755)
    allowed(program)
    write(
        root,
        {"requirements.txt": "# web\njinja2==2.4.1\nnowhere==1\nother>=2\n-e .\n", "setup.py": "raise SystemExit\n"},
    )

    report = await scan(root, "pip-audit")

    item = report.coverage[0]
    assert (item.network, item.status, item.files_failed) == ("needed", "partial", 1)
    assert item.counts == {"dependencies_audited": 1, "dependencies_skipped": 3}
    assert failures(report) == {"requirements.txt": "3 of 4 requirements were not audited"}
    assert found(report) == {("pip-audit", "PYSEC-2019-217", "requirements.txt", 2)}
    assert report.findings[0].cwe == ["CWE-1395"]
    assert "fixed in 2.10.1" in report.findings[0].message
    assert (tmp_path / "asked").read_text() == "jinja2==2.4.1\nnowhere==1\n"
    assert {"--disable-pip", "--no-deps"} <= set((tmp_path / "calls").read_text().split())


async def test_the_real_pip_audit_without_an_answer_is_a_failure_and_never_clean(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required("pip-audit")
    monkeypatch.setattr(PipAudit, "environment", {"HTTPS_PROXY": "http://127.0.0.1:9"})
    write(root, {"requirements.txt": "jinja2==2.4.1\n"})

    with pytest.raises(ScanFailed) as failure:
        await scan(root, "pip-audit")

    assert "requirements.txt" in str(failure.value.details)


@pytest.fixture
def heavy(allowed):
    def allow(engine: str) -> None:
        allowed(heavy_program(engine))

    return allow


async def test_semgrep_runs_local_rules_offline_and_loses_no_file_silently(root: Path, tmp_path: Path, heavy) -> None:
    heavy("semgrep")
    rules = write(tmp_path.resolve() / "rules", {"deep/rule.yml": SEMGREP_RULES})
    write(
        root,
        {
            "bom.py": b"\xef\xbb\xbfeval(x)\r\n",
            "quiet.py": "eval(x)  # nosemgrep\n",
            "large.py": "eval(x)\n" + "# filler\n" * 200_000,
            "broken.py": "def f(:\n    eval(x)\n",
            "web.js": "eval(text);\n",
        },
    )

    report = await scan(root, "semgrep", semgrep=EngineConfig(rules=(RuleSource(path=str(rules)),)))

    assert found(report) >= {("semgrep", "text-is-run", name, 1) for name in ("bom.py", "large.py")}
    assert {f.column for f in report.findings if f.path == "bom.py"} == {1}
    assert {f.path for f in report.findings if f.suppressed} == {"quiet.py"}
    assert report.coverage[0].files_seen == 4
    assert set(failures(report)) <= {"broken.py"}
    assert report.rules_run == {"semgrep": ("text-is-run",)}
    assert "requires login" not in json.dumps(report.sarif)


async def test_checkov_counts_what_it_could_not_parse(root: Path, heavy) -> None:
    heavy("checkov")
    write(
        root,
        {
            "infra/main.tf": TARGET["infra/main.tf"],
            "infra/bad.tf": 'resource "aws_s3" {{{\n',
            "pod.yaml": "apiVersion: v1\nkind: [\n",
            "values.yaml": "a: 1\n",
            "Dockerfile": "FROM debian\nRUN sudo true\n",
        },
    )

    report = await scan(root, "checkov")

    assert coverage(report) == ("partial", 4, 2, 2)
    assert failures(report) == {"infra/bad.tf": "not parsable by checkov", "pod.yaml": "not valid YAML"}
    assert {path for _, _, path, _ in found(report)} == {"infra/main.tf", "Dockerfile"}
    assert {finding.severity for finding in report.findings} == {"medium"}


def test_heavy_engines_say_how_to_get_an_environment_of_their_own() -> None:
    assert {name for name, engine in ENGINES.items() if engine.optional and engine.package is None} == set(HEAVY)
    assert all("uv tool install" in ENGINES[name].install for name in HEAVY)


def test_our_pack_is_the_same_for_everybody() -> None:
    assert own_pack("ast-grep").digest == own_pack("ast-grep").digest
    assert anyio.run(ENGINES["ruff"].version)
