"""Reports as many scanners write them, quirks included, each with what has to be read from it.

Small documents of our own that show the measured habits of each producer: how a result names its rule, where the
severity is, what stands for a location. `PRODUCERS` is the table that the tests walk through.
"""

from dataclasses import dataclass, field
from typing import Any

from sarif_samples import at, log, run

Facts = dict[str, Any]


@dataclass(frozen=True)
class Producer:
    """One producer's report, and the facts of its findings in order; facts not named are not compared."""

    name: str
    document: dict[str, Any]
    findings: tuple[Facts, ...]
    warned: tuple[str, ...] = ()
    more: Facts = field(default_factory=dict)


def _with_rules(name: str, rules: list[dict[str, Any]], *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return log(run(list(results), name, rules, **more))


def _physical(**location: Any) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": location}}


SRCROOT = "%SRCROOT%"
_TEXT = {"text": "something is wrong"}

PRODUCERS = (
    Producer(
        "CodeQL 2.12: rule object, score on the rule, no level on the result, two hashes",
        _with_rules(
            "CodeQL",
            [
                {
                    "id": "py/sql-injection",
                    "defaultConfiguration": {"enabled": True, "level": "error"},
                    "properties": {"tags": ["security", "external/cwe/cwe-089"], "security-severity": "8.8"},
                }
            ],
            {
                "ruleId": "py/sql-injection",
                "ruleIndex": 0,
                "rule": {"id": "py/sql-injection", "index": 0},
                "message": {"text": "This query depends on a [user-provided value](1)."},
                "locations": [at("app/db.py", 12, base=SRCROOT, startColumn=9, endColumn=31)],
                "partialFingerprints": {
                    "primaryLocationLineHash": "39fa2ee980eb94b0:1",
                    "primaryLocationStartColumnFingerprint": "4",
                },
                "codeFlows": [{"threadFlows": [{"locations": [{"location": at("app/web.py", 3)}]}]}],
            },
        ),
        (
            {
                "rule": "py/sql-injection", "severity": "high", "severity_source": "security-severity",
                "location": "app/db.py:12", "column": 9, "cwe": ["CWE-89"],
                "producer_fingerprints": {
                    "primaryLocationLineHash": "39fa2ee980eb94b0:1",
                    "primaryLocationStartColumnFingerprint": "4",
                },
            },
        ),
    ),
    Producer(
        "CodeQL with packs: rules live in an extension",
        log(
            {
                "tool": {
                    "driver": {"name": "CodeQL", "rules": []},
                    "extensions": [
                        {"name": "codeql/python-queries", "rules": [{"id": "py/a"}]},
                        {"name": "other", "rules": [{"id": "py/b", "properties": {"security-severity": "3.1"}}]},
                    ],
                },
                "results": [
                    {"rule": {"index": 0, "toolComponent": {"index": 1}}, "message": _TEXT,
                        "locations": [at("a.py", 1)]},
                    {"ruleId": "py/a", "rule": {"id": "py/a", "toolComponent": {"index": 0}}, "message": _TEXT},
                ],
            }
        ),
        ({"rule": "py/b", "severity": "low"}, {"rule": "py/a", "severity": "medium", "location": "(no location)"}),
    ),
    Producer(
        "LGTM: two runs, and a member that the schema does not allow",
        log(
            run([{"ruleId": "js/x", "message": _TEXT}], "LGTM.com", newlineSequences=["\r\n", 5]),
            run([{"ruleId": "py/y", "message": _TEXT}], "LGTM.com"),
        ),
        ({"rule": "js/x", "engine": "lgtm.com"}, {"rule": "py/y", "engine": "lgtm.com"}),
        more={"runs": 2},
    ),
    Producer(
        "Semgrep: dotted rule, level of the rule only, a CWE in words, a constant fingerprint",
        _with_rules(
            "Semgrep OSS",
            [
                {
                    "id": "home.ana.rules.dangerous-eval",
                    "defaultConfiguration": {"level": "error"},
                    "properties": {"tags": ["CWE-95: Improper Neutralization of Directives", "security"]},
                },
                {"id": "home.ana.rules.unused"},
            ],
            *(
                {
                    "ruleId": "home.ana.rules.dangerous-eval",
                    "message": _TEXT,
                    "locations": [at("a.py", line, base=SRCROOT, snippet={"text": "eval(x)"})],
                    "fingerprints": {"matchBasedId/v1": "requires login"},
                }
                for line in (3, 9)
            ),
        ),
        tuple(
            {
                "severity": "high", "severity_source": "level error", "cwe": ["CWE-95"], "snippet": "eval(x)",
                "producer_fingerprints": {}, "location": f"a.py:{line}",
            }
            for line in (3, 9)
        ),
        more={"rules_run": {"semgrep-oss": ("home.ana.rules.dangerous-eval", "home.ana.rules.unused")}},
    ),
    Producer(
        "Bandit: no level where it means medium",
        _with_rules(
            "Bandit",
            [{"id": "B108", "name": "hardcoded_tmp_directory"}, {"id": "B101"}],
            {
                "ruleId": "B108", "ruleIndex": 0, "message": _TEXT, "locations": [at("a.py", 1)],
                "properties": {"issue_severity": "MEDIUM", "issue_confidence": "MEDIUM"},
            },
            {
                "ruleId": "B101", "ruleIndex": 1, "message": _TEXT, "locations": [at("a.py", 2)], "level": "note",
                "properties": {"issue_severity": "LOW"},
            },
        ),
        (
            {"severity": "medium", "severity_source": "issue_severity MEDIUM"},
            {"severity": "low", "severity_source": "issue_severity LOW"},
        ),
    ),
    Producer(
        "ruff: everything an error, absolute URIs, no CWE",
        _with_rules(
            "ruff",
            [],
            {"ruleId": "S324", "level": "error", "message": _TEXT, "locations": [at("file:///home/ana/p/a.py", 4)]},
            {"ruleId": "invalid-syntax", "level": "error", "message": _TEXT,
                "locations": [at("file:///home/ana/p/b.py", 1)]},
        ),
        ({"rule": "S324", "severity": "high", "cwe": ["CWE-327"], "location": "/home/ana/p/a.py:4"},),
        more={"failed_files": ("/home/ana/p/b.py",)},
    ),
    Producer(
        "Trivy: an image with a blank in its name as URI, a rule for each advisory, no region",
        _with_rules(
            "Trivy",
            [{"id": "CVE-2026-1", "properties": {"tags": ["vulnerability", "security", "CRITICAL"]}}],
            {
                "ruleId": "CVE-2026-1", "ruleIndex": 0, "level": "error", "message": {"text": "Package: libx"},
                "locations": [_physical(uri="library/example (debian 12.1)", uriBaseId="ROOTPATH")],
            },
            originalUriBaseIds={"ROOTPATH": {"uri": "file:///"}},
        ),
        ({"severity": "critical", "severity_source": "severity tag", "location": "library/example (debian 12.1)"},),
    ),
    Producer(
        "Grype: the score is on the rule, the place is an archive",
        _with_rules(
            "Grype",
            [{"id": "GHSA-1-libx", "properties": {"security-severity": "9.8"}}],
            {"ruleId": "GHSA-1-libx", "message": _TEXT, "locations": [at("lib/libx-1.0.jar", 1)]},
        ),
        ({"severity": "critical", "location": "lib/libx-1.0.jar:1"},),
    ),
    Producer(
        "dependency-check: no rules, four slashes, no region",
        log(
            run(
                [{"ruleId": "CVE-2026-2", "level": "warning", "message": _TEXT,
                    "locations": [at("file:////srv/x.jar")]}],
                "dependency-check",
            )
        ),
        ({"severity": "medium", "location": "/srv/x.jar", "line": None},),
    ),
    Producer(
        "Dockle: no locations at all",
        _with_rules("Dockle", [{"id": "CIS-DI-0001"}], {"ruleId": "CIS-DI-0001", "level": "warning", "message": _TEXT}),
        ({"location": "(no location)", "severity": "medium"},),
    ),
    Producer(
        "Gitleaks 7: results without a rule",
        _with_rules("Gitleaks", [{"id": "aws"}], {"message": {"text": "found"}, "locations": [at("a.env", 2)]}),
        ({"rule": "unknown", "location": "a.env:2"},),
    ),
    Producer(
        "Gitleaks 8: fingerprints that name a person",
        _with_rules(
            "gitleaks",
            [],
            {
                "ruleId": "generic-api-key",
                "message": {"text": "generic-api-key has detected secret for file a.env."},
                "locations": [at("a.env", 2, snippet={"text": "planted-value-0123456789"})],
                "partialFingerprints": {
                    "commitSha": "c" * 40, "author": "Ana", "email": "ana@example.org", "date": "2026-01-01",
                    "commitMessage": "first",
                },
            },
        ),
        ({"rule": "generic-api-key", "producer_fingerprints": {}, "snippet": "[redacted]"},),
    ),
    Producer(
        "ESLint: absolute URIs of a home folder",
        _with_rules(
            "ESLint",
            [{"id": "no-eval"}],
            {
                "level": "error", "ruleId": "no-eval", "ruleIndex": 0, "message": _TEXT,
                "locations": [at("file:///C:/Users/ana/app/a.js", 7)],
            },
        ),
        ({"location": "C:/Users/ana/app/a.js:7", "severity": "high"},),
    ),
    Producer(
        "Checkov: all errors",
        _with_rules(
            "Checkov",
            [{"id": "CKV_DOCKER_2", "defaultConfiguration": {"level": "error"}}],
            {"ruleId": "CKV_DOCKER_2", "ruleIndex": 0, "level": "error", "message": _TEXT,
                "locations": [at("Dockerfile", 1)]},
        ),
        ({"rule": "CKV_DOCKER_2", "location": "Dockerfile:1"},),
    ),
    Producer(
        "zizmor: kind fail is a finding",
        _with_rules(
            "zizmor",
            [{"id": "zizmor/template-injection"}],
            {
                "ruleId": "zizmor/template-injection", "kind": "fail", "level": "warning", "message": _TEXT,
                "locations": [at(".github/workflows/ci.yml", 9)],
            },
        ),
        ({"rule": "zizmor/template-injection", "location": ".github/workflows/ci.yml:9"},),
    ),
    Producer(
        "hadolint: a rule id and nothing about it",
        log(run([{"ruleId": "DL3008", "level": "note", "message": _TEXT, "locations": [at("Dockerfile", 3)]}],
            "Hadolint")),
        ({"rule": "DL3008", "severity": "low"},),
    ),
    Producer(
        "flawfinder: a pass, a result without message, the CWE in a relationship",
        _with_rules(
            "Flawfinder",
            [
                {
                    "id": "FF1001", "shortDescription": {"text": "Does not check for buffer overflows."},
                    "relationships": [{"target": {"id": "CWE-120", "toolComponent": {"name": "CWE"}},
                        "kinds": ["relevant"]}],
                }
            ],
            {"ruleId": "FF1001", "kind": "pass", "level": "none", "message": _TEXT},
            {
                "ruleId": "FF1001", "level": "error", "locations": [at("a.c", 5, base="SRCROOT")],
                "fingerprints": {"contextHash/v1": "ab" * 16},
            },
        ),
        (
            {
                "message": "Does not check for buffer overflows.", "cwe": ["CWE-120"], "severity": "high",
                "producer_fingerprints": {"contextHash/v1": "ab" * 16},
            },
        ),
        warned=("run 0, result 1: has no message", "1 pass"),
        more={"not_findings": 1},
    ),
    Producer(
        "a composition analyser: fingerprints that are objects, a package as URI",
        log(
            run(
                [
                    {
                        "ruleId": "CVE-2026-3", "level": "error", "message": _TEXT,
                        "fingerprints": {"0": {"component": "x", "version": "1"}},
                        "locations": [_physical(uri="example-lib@1.0.0")],
                    }
                ],
                "Composition",
            )
        ),
        ({"location": "example-lib@1.0.0", "producer_fingerprints": {}},),
    ),
    Producer(
        "a fuzzer: the CWE is a taxon of the result",
        log(
            run(
                [{"ruleId": "MI101", "message": _TEXT, "taxa": [{"id": "787", "toolComponent": {"name": "CWE",
                    "index": 0}}]}],
                "Fuzzer",
                taxonomies=[{"name": "CWE", "taxa": [{"id": "787"}]}],
            )
        ),
        ({"cwe": ["CWE-787"]},),
    ),
    Producer(
        "a fuzzer: taxa by their place in the taxonomy only",
        log(
            run(
                [
                    {
                        "ruleId": "MI102", "message": _TEXT,
                        "taxa": [{"index": 1, "toolComponent": {"index": 0}}, {"index": 0,
                            "toolComponent": {"name": "OWASP"}}],
                    }
                ],
                "Fuzzer",
                rules=[{"id": "MI102"}],
                taxonomies=[
                    {"name": "CWE", "taxa": [{"id": "20"}, {"id": "CWE-0125"}]},
                    {"name": "OWASP", "taxa": [{"id": "A03"}]},
                ],
            )
        ),
        ({"cwe": ["CWE-125"]},),
    ),
    Producer(
        "a rule whose relationship gives the taxon's place and its component's guid",
        log(
            run(
                [{"ruleId": "R1", "message": _TEXT}],
                rules=[
                    {
                        "id": "R1",
                        "relationships": [
                            {"target": {"index": 0, "toolComponent": {"guid": "A0B1C2D3-0000-4000-8000-000000000001"}}}
                        ],
                    }
                ],
                taxonomies=[
                    {"name": "CWE", "guid": "a0b1c2d3-0000-4000-8000-000000000001", "taxa": [{"id": "611"}]},
                ],
            )
        ),
        ({"cwe": ["CWE-611"]},),
    ),
    Producer(
        "cppcheck: several locations, the first is the place",
        log(
            run(
                [{"ruleId": "nullPointer", "level": "warning", "message": _TEXT, "locations": [at("a.c", 5),
                    at("a.c", 2)]}],
                "Cppcheck",
            )
        ),
        ({"location": "a.c:5"},),
    ),
    Producer(
        "ShiftLeft scan: every result new, hashes of file and place",
        _with_rules(
            "Python Security Analysis",
            [{"id": "B602"}],
            {
                "ruleId": "B602", "ruleIndex": 0, "level": "error", "message": _TEXT, "baselineState": "new",
                "locations": [at("file:///home/ana/app/a.py", 4)],
                "partialFingerprints": {"scanPrimaryLocationHash": "0123456789abcdef",
                    "scanFileHash": "fedcba9876543210"},
            },
            versionControlProvenance=[{"repositoryUri": "https://example.org/app", "branch": "main"}],
        ),
        (
            {
                "baseline_state": "new",
                "producer_fingerprints": {
                    "scanPrimaryLocationHash": "0123456789abcdef", "scanFileHash": "fedcba9876543210",
                },
            },
        ),
    ),
    Producer(
        "an old draft: baselineState existing",
        log(run([{"ruleId": "R1", "message": _TEXT, "baselineState": "existing"}])),
        ({"baseline_state": "unchanged", "counts": True},),
    ),
    Producer(
        "a message by id from the strings that all rules share",
        log(
            {
                "tool": {"driver": {"name": "S", "globalMessageStrings": {"m": {"text": "{0} calls {1}"}},
                    "rules": [{"id": "R1"}]}},
                "results": [{"ruleId": "R1", "message": {"id": "m", "arguments": ["f", "g"]}}],
            }
        ),
        ({"message": "f calls g"},),
    ),
    Producer(
        "binary analysis: a region in bytes, line 0",
        log(
            run(
                [
                    {"ruleId": "R1", "message": _TEXT, "locations": [_region({"byteOffset": 4096, "byteLength": 4})]}
                    for _region in (lambda region: {"physicalLocation": {"artifactLocation": {"uri": "app.bin"},
                        "region": region}},)
                ]
                + [{"ruleId": "R1", "message": _TEXT, "locations": [at("app.bin", 0)]}],
                "Binary",
            )
        ),
        ({"location": "app.bin", "line": None}, {"location": "app.bin", "line": None}),
    ),
)  # fmt: skip
