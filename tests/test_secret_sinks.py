"""Secrets of many kinds, planted wherever a scan can meet them, are in nothing that is stored, shown or logged."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import child
from conftest import copy_store
from mcp_client import child_env, raw_child
from planted_secrets import Planted, files_below

PLANTED = Planted(11)


@dataclass
class World:
    """Everything that came out of scans of a project full of secrets."""

    home: Path
    project: Path
    outputs: list[tuple[str, bytes]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def said(self, place: str, text: str | bytes) -> None:
        """Keep what something wrote."""
        self.outputs.append((place, text.encode() if isinstance(text, str) else text))


def _plant(project: Path) -> None:
    secrets = PLANTED
    (project / "app.py").write_text(secrets.source)
    (project / f"settings_{secrets['github']}.py").write_text(f'eval("{secrets["slack"]}")\n')
    (project / f"broken_{secrets['stripe']}.py").write_text(f'def (: "{secrets["github"]}"\n')
    (project / "weak.yaml").write_text(f"name: {secrets['github']}\nschema_version: 1\nengines: {{ruff: {{}}}}\n")
    (project / "odd.yaml").write_text(f"engines: {{ruff: {{}}}}\n{secrets['slack']}: '{secrets['google']}'\n")
    git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PATH": os.environ["PATH"]}
    branch = f"try/{secrets['slack']}"
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (
        ["init", "-q", "-b", branch],
        ["remote", "add", "origin", f"https://x-access-token:{secrets['git_remote']}@git.example.org/a/b.git"],
        ["add", "app.py"],
        [*identity, "commit", "-q", "-m", f"m {secrets['github']}"],
    ):
        subprocess.run(["git", *arguments], cwd=project, env=git, check=True, capture_output=True)


def _result(rule: str, text: str, uri: str, line: int, **more: Any) -> dict[str, Any]:
    physical = {
        "artifactLocation": {"uri": uri},
        "region": {"startLine": line, "snippet": {"text": text}},
        "contextRegion": {"startLine": 1, "snippet": {"text": f"a()\n{text}\nb()"}},
    }
    return {"ruleId": rule, "message": {"text": text}, "locations": [{"physicalLocation": physical}], **more}


def _sarif(name: str) -> dict[str, Any]:
    """Return a report of another scanner that repeats every secret in every place that SARIF has."""
    results = []
    for number, text in enumerate(PLANTED.sentences, start=1):
        flow = [
            {
                "threadFlows": [
                    {"locations": [{"location": {"message": {"text": text}}, "state": {"a": {"text": text}}}]}
                ]
            }
        ]
        replaced = {"deletedRegion": {"startLine": 1, "snippet": {"text": text}}, "insertedContent": {"text": text}}
        fix = [{"artifactChanges": [{"artifactLocation": {"uri": "x.py"}, "replacements": [replaced]}]}]
        results.append(
            _result(
                f"R{number}",
                text,
                "other.py",
                number,
                codeFlows=flow,
                fixes=fix,
                properties={"note": text, "deep": [{"a": text}]},
                webRequest={"target": text, "headers": {"Authorization": text, "X": text}, "body": {"text": text}},
                webResponse={"body": {"text": text, "binary": "AAAA"}},
                hostedViewerUri=f"https://example.org/?x={number}",
                partialFingerprints={"a/v1": text},
                suppressions=[{"kind": "external", "justification": text}] if number % 2 else [],
                relatedLocations=[{"message": {"text": text}}],
                stacks=[{"message": {"text": text}, "frames": []}],
            )
        )
        results.append(_result("hardcoded-secret", text, "other.py", 100 + number))
    results.append({"ruleId": PLANTED["stripe"], "message": {"text": PLANTED["github"]}, "locations": [
        {"physicalLocation": {"artifactLocation": {"uri": f"a/{PLANTED['github']}.py"}},
         "logicalLocations": [{"fullyQualifiedName": f"f.{PLANTED['slack']}"}]}]})  # fmt: skip
    everything = "\n".join(PLANTED.sentences)
    rules = [{"id": "R1", "shortDescription": {"text": everything}, "help": {"text": everything}}]
    driver = {"name": name, "version": PLANTED["google"], "properties": {"api_key": PLANTED["api_key"]}, "rules": rules}
    invocation = {
        "executionSuccessful": True,
        "commandLine": everything,
        "arguments": PLANTED.sentences,
        "environmentVariables": {"API_KEY": PLANTED["api_key"], "PW": PLANTED["password"]},
        "toolExecutionNotifications": [{"message": {"text": everything}}],
    }
    artifact = {"location": {"uri": f"b/{PLANTED['slack']}.py"}, "contents": {"text": everything, "binary": "AAAA"}}
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "artifacts": [artifact],
        "versionControlProvenance": [{"repositoryUri": f"https://x:{PLANTED['git_remote']}@git.example.org/a/b.git"}],
        "properties": {"password": PLANTED["password"], "about": everything},
        "results": results,
    }
    return {"version": "2.1.0", "runs": [run]}


def _governed(run_id: str) -> list[tuple[str, dict[str, Any]]]:
    told = PLANTED.sentences
    criteria = ("accuracy", "safety", "bias", "risks", "documentation")
    return [
        (
            "register_model",
            {"run_id": run_id, "name": "cfg", "description": told[3], "use_case": told[8], "tags": {"t": told[4]}},
        ),
        ("promote", {"name": "cfg", "version": 1, "to": "Staging", "reason": told[7]}),
        ("request_review", {"name": "cfg", "version": 1, "evidence": dict(zip(criteria, told[3:8], strict=True))}),
        ("promote", {"name": "cfg", "version": 1, "to": "Production", "reason": told[11]}),
        ("get_history", {"name": "cfg"}),
        ("get_model", {"name": "cfg"}),
    ]


def _calls(project: Path) -> list[tuple[str, dict[str, Any]]]:
    secrets = PLANTED
    (project / "raw.sarif").write_text(json.dumps(_sarif("ExampleScan")))
    plain = [
        {
            "rule": f"P{n}",
            "message": text,
            "path": f"p/{secrets['github']}.py",
            "line": n,
            "snippet": text,
            "symbol": text,
        }
        for n, text in enumerate(secrets.sentences, start=1)
    ]
    extra = {
        "params": {"api_key": secrets["api_key"], "note": secrets["github"], "url": secrets.sentences[9]},
        "tags": {"db_password": secrets["password"], "ci": secrets["slack"]},
    }
    path = str(project)
    return [
        ("create_experiment", {"name": "scans", "description": secrets.sentences[8]}),
        ("scan_vulnerabilities", {"repo_path": path, "experiment": "scans"}),
        ("scan_vulnerabilities", {"repo_path": path, "experiment": "scans", "baseline": "latest"}),
        ("log_scan_run", {"experiment": "scans", "sarif_path": f"{path}/raw.sarif", "repo_path": path, **extra}),
        ("log_scan_run", {"experiment": "scans", "sarif": _sarif("gitleaks"), "scanner_version": secrets["stripe"]}),
        ("log_scan_run", {"experiment": "scans", "findings": plain, "scanner": "own", **extra}),
        ("list_findings", {"run_id": "latest", "experiment": "scans", "limit": 100}),
        ("search_runs", {"experiment": "scans"}),
        ("compare_runs", {"experiment": "scans", "response_format": "detailed"}),
        ("get_run", {"run_id": "latest", "experiment": "scans"}),
        ("log_run", {"experiment": "scans", "params": {"a": secrets["github"]}, "tags": {"b": secrets["jwt"]}}),
        # Refusals, which repeat what they were given.
        ("get_run", {"run_id": secrets["github"]}),
        ("search_runs", {"experiment": secrets["github"]}),
        ("search_runs", {"experiment": "scans", "filter": f"params.x = '{secrets['slack']}' AND ("}),
        ("scan_vulnerabilities", {"repo_path": f"{path}/{secrets['github']}"}),
        ("scan_vulnerabilities", {"repo_path": path, "engines": [secrets["stripe"]]}),
        ("scan_vulnerabilities", {"repo_path": path, "config": f"{path}/weak.yaml"}),
        ("scan_vulnerabilities", {"repo_path": path, "config": f"{path}/odd.yaml"}),
        ("log_scan_run", {"experiment": "scans", "findings": [{**plain[0], "line": secrets["github"]}]}),
        ("log_scan_run", {"experiment": "scans", "findings": plain, "params": {secrets["github"]: "x"}}),
        ("log_scan_run", {"experiment": "scans", "findings": plain, "metrics": {secrets["stripe"]: 1.0}}),
        ("log_scan_run", {"experiment": "scans", "findings": plain, "tags": {secrets["slack"]: "x"}}),
        ("log_scan_run", {"experiment": "scans", "sarif": {"version": secrets["google"], "runs": []}}),
        ("log_scan_run", {"experiment": "scans", "sarif_path": f"{path}/{secrets['slack']}.sarif"}),
        ("log_run", {"experiment": secrets["github"]}),
        ("log_run", {"experiment": "scans", "run_name": secrets["github"]}),
        ("get_model", {"name": secrets["slack"]}),
        ("log_run", {"experiment": "scans", secrets["github"]: 1}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, template: Path) -> World:
    folder = tmp_path_factory.mktemp("sinks").resolve()
    world = World(copy_store(template, folder / "home"), folder / "project")
    world.project.mkdir()
    _plant(world.project)
    with raw_child(child_env(world.home, world.project, PATH=os.environ["PATH"])) as server:
        calls = _calls(world.project)
        for tool, arguments in calls:
            server.call(tool, **arguments)
            answer = server.answer()
            world.answers.setdefault(tool, []).append(answer["result"])
            world.said(f"answer of {tool}", json.dumps(answer, ensure_ascii=False))
            if tool == "scan_vulnerabilities" and len(world.answers[tool]) == 1:
                calls += _governed(answer["result"]["structuredContent"]["run_id"])
        server.close()
        world.said("noise on stdout", b"".join(server.noise))
        world.said("stderr of the server", server.stderr)
    path = str(world.project)
    for arguments in (["scan", path, "--json"], ["import-sarif", f"{path}/raw.sarif", "-e", "scans"]):
        done = child(arguments, home=world.home)
        world.said(f"stdout of {arguments[0]}", done.out)
        world.said(f"stderr of {arguments[0]}", done.err)
    return world


class TestSinks:
    def test_the_engines_really_met_the_secrets(self, world: World) -> None:
        first = world.answers["scan_vulnerabilities"][0]["structuredContent"]
        assert first["vulnerabilities_found"] > 12
        assert {c["engine"] for c in first["coverage"]} == {"bandit", "ruff"}
        assert any(c["files_failed"] for c in first["coverage"])
        logged = [answer["structuredContent"] for answer in world.answers["log_scan_run"][:3]]
        assert [answer.get("code") for answer in logged] == [None] * 3
        assert all(answer["vulnerabilities_found"] for answer in logged)
        assert PLANTED.found_in([("the project", (world.project / "app.py").read_bytes())])

    def test_no_answer_and_no_log_repeats_one(self, world: World) -> None:
        assert PLANTED.found_in(world.outputs) == []

    def test_nothing_that_is_stored_holds_one(self, world: World) -> None:
        stored = list(files_below(world.home))
        names = {name for name, _ in stored}
        assert "mlflow.db" in names
        assert any(name.endswith("findings.jsonl") for name in names)
        assert any(name.endswith("imported.sarif") for name in names)
        assert any(name.endswith("severity.png") for name in names)
        assert PLANTED.found_in(stored) == []

    def test_no_work_of_a_scan_is_left_in_the_temporary_folder(self, world: World) -> None:
        assert not [path for path in world.home.parent.iterdir() if path.name not in ("home", "project")]

    def test_refusals_are_refusals(self, world: World) -> None:
        refused = [answer for rows in world.answers.values() for answer in rows if answer.get("isError")]
        assert len(refused) == 18
        assert not world.answers["register_model"][0].get("isError")
        assert all(answer["structuredContent"]["next"] for answer in refused)
        assert "INTERNAL_ERROR" not in {answer["structuredContent"]["code"] for answer in refused}
