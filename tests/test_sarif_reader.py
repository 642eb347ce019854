"""Reading SARIF: any producer, nothing lost, nothing believed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sarif_samples import at, bandit_of, log, result, ruff_of, run

from intelligentscan.domain.errors import SarifInvalid, TooLarge
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners import sarif_document, sarif_reader, source_lines
from intelligentscan.scanners.redaction import redact_sarif
from intelligentscan.scanners.sarif_reader import SarifReading, engine_name, parse_sarif, read_sarif


def read(document: dict[str, Any], **more: Any) -> SarifReading:
    return read_sarif(parse_sarif(document), **more)


def only(document: dict[str, Any], **more: Any) -> Finding:
    (finding,) = read(document, **more).findings
    return finding


class TestParsing:
    def test_bytes_text_and_objects_are_accepted_with_or_without_a_byte_order_mark(self):
        document = log(run([]))
        text = json.dumps(document)
        for data in (document, text, text.encode(), b"\xef\xbb\xbf" + text.encode(), "\ufeff" + text):
            assert parse_sarif(data) == document
        assert parse_sarif(text.encode("utf-16")) == document

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"", "is empty"),
            (b'{"version": "2.1.0", "runs": [', "is not JSON"),
            (b"[1, 2]", "a list, not an object"),
            (b"null", "null, not an object"),
            (b"{}", "no version"),
            (b'{"version": "1.0.0", "runs": []}', "'1.0.0'"),
            (b'{"version": 2.1, "runs": []}', "no version"),
            (b'{"version": "2.1.0"}', "no list named runs"),
            (b'{"version": "2.1.0", "runs": {}}', "an object, not a list"),
            (b'{"version": "2.1.0", "runs": [NaN]}', "a number that JSON does not allow"),
            (b'{"version": "2.1.0", "runs": [' + b"9" * 5000 + b"]}", "a number of absurd length"),
            (b'{"version": "2.1.0", "runs": ' + b"[" * 100_000, "nested too deeply"),
            (b'{"version": "2.1.0\xff"}', "not UTF-8"),
        ],
    )
    def test_what_is_no_sarif_is_refused_with_the_reason(self, data, told):
        with pytest.raises(SarifInvalid, match=told) as caught:
            parse_sarif(data)
        assert caught.value.next

    def test_text_of_the_document_is_shown_bounded_and_harmless_in_the_refusal(self):
        with pytest.raises(SarifInvalid) as caught:
            parse_sarif({"version": "<script>" + "x" * 500, "runs": []})
        assert "<script" not in caught.value.message
        assert len(caught.value.message) < 200

    def test_a_document_over_the_bound_is_refused_before_it_is_parsed(self, monkeypatch):
        monkeypatch.setattr(sarif_document, "MAX_SARIF_BYTES", 100)
        with pytest.raises(TooLarge):
            parse_sarif(b"x" * 101)

    def test_too_many_results_are_refused(self, monkeypatch):
        monkeypatch.setattr(sarif_reader, "MAX_FINDINGS", 3)
        with pytest.raises(TooLarge, match="4 results"):
            read(log(run([result()] * 2), run([result()] * 2)))


class TestRules:
    RULES = ({"id": "A", "name": "first"}, {"id": "B", "guid": "AB-CD"})

    @pytest.mark.parametrize(
        ("linked", "rule"),
        [
            ({"ruleId": "B"}, "B"),
            ({"ruleIndex": 1}, "B"),
            ({"rule": {"id": "B"}}, "B"),
            ({"rule": {"index": 1}}, "B"),
            ({"rule": {"guid": "ab-cd"}}, "B"),
            ({"ruleId": "B/sub", "ruleIndex": 1}, "B/sub"),
            ({"ruleId": "B", "ruleIndex": 0}, "B"),
            ({"ruleIndex": 99}, "unknown"),
            ({"ruleIndex": "1"}, "unknown"),
            ({"rule": "B"}, "unknown"),
            ({}, "unknown"),
        ],
    )
    def test_a_rule_is_found_however_it_is_linked(self, linked, rule):
        assert only(log(run([result(None, **linked)], rules=list(self.RULES)))).rule == rule

    def test_a_rule_in_an_extension_is_found_by_its_component(self):
        one = run([result(None, rule={"index": 0, "toolComponent": {"index": 0}})], rules=list(self.RULES))
        one["tool"]["extensions"] = [
            {"name": "pack", "rules": [{"id": "X", "properties": {"security-severity": "9.1"}}]}
        ]
        finding = only(log(one))
        assert (finding.rule, finding.severity) == ("X", "critical")

    def test_a_hierarchical_id_takes_the_facts_of_the_rule_above_it(self):
        rules = [{"id": "A", "properties": {"security-severity": "8.0"}}]
        assert only(log(run([result("A/one/two")], rules=rules))).severity == "high"

    def test_rules_count_as_run_only_if_the_tool_lists_more_than_those_that_hit(self):
        rules = [{"id": "R1"}, {"id": "R2"}]
        assert read(log(run([result("R1")], rules=rules))).rules_run == {"examplescan": ("R1", "R2")}
        assert read(log(run([result("R1")], rules=rules[:1]))).rules_run == {"examplescan": ()}
        assert read(log(run([]))).rules_run == {"examplescan": ()}


class TestSeverity:
    @pytest.mark.parametrize(
        ("value", "severity"),
        [("9.8", "critical"), ("7.0", "high"), (6.9, "medium"), ("0.1", "low"), ("0.0", "info"), ("High", "high")],
    )
    def test_security_severity_is_read_by_cvss_bands_or_as_a_word(self, value, severity):
        rules = [{"id": "R1", "properties": {"security-severity": value}}]
        finding = only(log(run([result(level="note")], rules=rules)))
        assert (finding.severity, finding.severity_source) == (severity, "security-severity")

    @pytest.mark.parametrize("value", ["11", "-1", "nan", "inf", "1e999", "?", [], {}, True, 10**400])
    def test_a_nonsense_score_falls_back_to_the_level(self, value):
        rules = [{"id": "R1", "properties": {"security-severity": value}}]
        finding = only(log(run([result(level="error")], rules=rules)))
        assert (finding.severity, finding.severity_source) == ("high", "level error")

    @pytest.mark.parametrize(
        ("level", "severity"),
        [
            ("error", "high"),
            ("warning", "medium"),
            ("note", "low"),
            ("none", "info"),
            ("Critical", "critical"),
            (7, "medium"),
        ],
    )
    def test_levels_map_to_our_bands(self, level, severity):
        assert only(log(run([result(level=level)]))).severity == severity

    def test_a_missing_level_is_taken_from_the_command_line_then_the_rule_then_warning(self):
        rules = [{"id": "R1", "defaultConfiguration": {"level": "note"}}]
        assert only(log(run([result()], rules=rules))).severity == "low"
        override = {"descriptor": {"id": "R1"}, "configuration": {"level": "error"}}
        invocations = [{"executionSuccessful": True, "ruleConfigurationOverrides": [override]}]
        assert only(log(run([result()], rules=rules, invocations=invocations))).severity == "high"
        assert only(log(run([result()]))).severity == "medium"

    def test_a_score_on_the_result_wins_over_the_rule(self):
        rules = [{"id": "R1", "properties": {"security-severity": "9.8"}}]
        assert only(log(run([result(properties={"security-severity": "2"})], rules=rules))).severity == "low"

    def test_severity_words_in_rule_tags_are_understood(self):
        rules = [{"id": "R1", "properties": {"tags": ["vulnerability", "CRITICAL"]}}]
        assert only(log(run([result(level="error")], rules=rules))).severity == "critical"


class TestKindsAndStates:
    def test_results_of_another_kind_than_fail_are_counted_and_left_out(self):
        kinds = ["pass", "informational", "notApplicable", "review", "open", "fail", None]
        reading = read(log(run([result(kind=kind) if kind else result() for kind in kinds])))
        assert len(reading.findings) == 2
        assert reading.not_findings == 5
        assert "1 pass" in reading.warnings[-1]

    @pytest.mark.parametrize(
        ("suppressions", "suppressed"),
        [
            (None, False),
            ([], False),
            ([{"kind": "inSource"}], True),
            ([{"kind": "external", "status": "accepted"}], True),
            ([{"kind": "external", "status": "underReview"}], False),
            ([{"kind": "inSource"}, {"kind": "external", "status": "rejected"}], False),
            ("yes", False),
            ([1], False),
        ],
    )
    def test_suppressions_follow_section_3_27_23(self, suppressions, suppressed):
        finding = only(log(run([result(suppressions=suppressions)])))
        assert finding.suppressed is suppressed
        assert finding.counts is not suppressed

    def test_an_absent_result_is_kept_and_does_not_count(self):
        finding = only(log(run([result(baselineState="absent")])))
        assert finding.baseline_state == "absent"
        assert not finding.counts

    def test_no_results_is_not_the_same_as_an_empty_list(self):
        silent = read(log(run(None)))
        assert not silent.executed
        assert silent.rules_run == {}
        clean = read(log(run([])))
        assert clean.executed
        assert clean.rules_run == {"examplescan": ()}

    def test_a_failed_run_without_results_proves_nothing(self):
        reading = read(log(run([], invocations=[{"executionSuccessful": False}])))
        assert not reading.executed
        assert reading.rules_run == {}

    def test_files_a_tool_failed_on_are_named(self):
        invocation = {
            "executionSuccessful": True,
            "toolConfigurationNotifications": [{"level": "error", "locations": [at("a%20b.py")]}],
            "toolExecutionNotifications": [
                {"level": "warning", "locations": [at("fine.py")]},
                {"level": "error", "locations": [at("c.py")]},
                {"level": "error"},
            ],
        }
        assert read(log(run([], invocations=[invocation]))).failed_files == ("a b.py", "c.py")


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path.resolve() / "project"
    (root / "src" / "app").mkdir(parents=True)
    (root / "src" / "app" / "a.py").write_text("one = 1\ntwo = eval(x)  # here\nthree = 3\n")
    (root / "top.py").write_bytes(b"\xef\xbb\xbffirst\r\nsecond\rthird\n")
    return root


class TestLocations:
    @pytest.mark.parametrize(
        ("uri", "path"),
        [
            ("src/app/a.py", "src/app/a.py"),
            ("./src//app/../app/a.py", "src/app/a.py"),
            ("src%2Fapp%2Fa.py", "src/app/a.py"),
            ("my%20file.py", "my file.py"),
            ("100%25.py", "100%.py"),
            ("src\\app\\a.py", "src/app/a.py"),
            ("odd%5Cname.py", "odd\\name.py"),
            ("file:///srv/ci/a.py", "/srv/ci/a.py"),
            ("file:////srv/ci/a.py", "/srv/ci/a.py"),
            ("file://localhost/srv/a.py", "/srv/a.py"),
            ("FILE:///srv/a.py", "/srv/a.py"),
            ("file:///C:/Users/x/a.py", "C:/Users/x/a.py"),
            ("C:\\Users\\x\\a.py", "C:/Users/x/a.py"),
            ("https://example.org/a.py", "https://example.org/a.py"),
            ("pkg:pypi/example@1.0", "pkg:pypi/example@1.0"),
            ("library/ubuntu 20.04", "library/ubuntu 20.04"),
            ("example@1.0", "example@1.0"),
        ],
    )
    def test_uris_of_every_shape_become_paths(self, uri, path):
        reading = read(log(run([result("R1", "m", at(uri, 2))])))
        assert reading.findings[0].path == path
        assert reading.warnings == ()

    @pytest.mark.parametrize(
        "uri", ["../x.py", "a/../../x.py", "%2e%2e/x.py", "..\\x.py", "a/%2E%2E/%2e%2e/etc/passwd"]
    )
    def test_paths_that_climb_out_are_refused_with_a_warning(self, uri, root):
        for folder in (None, root):
            reading = read(log(run([result("R1", "m", at(uri, 1))])), root=folder)
            assert reading.findings[0].path is None
            assert reading.findings[0].snippet is None
            assert "run 0, result 0" in reading.warnings[0]

    def test_absolute_uris_below_the_root_become_relative(self, root):
        finding = only(log(run([result("R1", "m", at(f"file://{root}/src/app/a.py", 2))])), root=root)
        assert (finding.path, finding.snippet) == ("src/app/a.py", "two = eval(x)  # here")

    def test_a_root_reached_through_a_link_is_the_same_root(self, root, tmp_path):
        (tmp_path / "link").symlink_to(root)
        for folder in (root, tmp_path / "link"):
            finding = only(log(run([result("R1", "m", at(f"file://{folder}/top.py", 2))])), root=tmp_path / "link")
            assert (finding.path, finding.snippet) == ("top.py", "second")

    def test_reports_from_another_machine_find_their_files_by_the_longest_end(self, root):
        uris = ["file:///home/ci/build/src/app/a.py", "file:///home/ci/build/gone.py", "file:///usr/lib/a.py"]
        reading = read(log(run([result("R1", "m", at(uri, 1)) for uri in uris])), root=root)
        assert [finding.path for finding in reading.findings] == ["src/app/a.py", "gone.py", None]
        assert "outside the scanned folder" in reading.warnings[0]

    def test_base_ids_are_followed_through_their_chain(self, root):
        bases = {
            "PROJECT": {"uri": f"file://{root}/"},
            "SRC": {"uri": "src/", "uriBaseId": "PROJECT"},
            "APP": {"uri": "app", "uriBaseId": "SRC"},
            "LOOP": {"uri": "x/", "uriBaseId": "LOOP"},
            "UNKNOWN_ROOT": {"uri": "file:///home/ci/build/"},
        }
        results = [
            result("R1", "m", at("a.py", 2, base="APP")),
            result("R1", "m", at("src/app/a.py", 1, base="UNKNOWN_ROOT")),
            result("R1", "m", at("src/app/a.py", 1, base="%SRCROOT%")),
            result("R1", "m", at("../top.py", 1, base="SRC")),
        ]
        reading = read(log(run(results, originalUriBaseIds=bases)), root=root)
        assert [f.path for f in reading.findings] == ["src/app/a.py", "src/app/a.py", "src/app/a.py", "top.py"]
        assert read(log(run([result("R1", "m", at("a.py", base="LOOP"))], originalUriBaseIds=bases))).findings[0].path

    def test_an_artifact_index_stands_for_the_uri(self):
        location = {"physicalLocation": {"artifactLocation": {"index": 1}, "region": {"startLine": 3}}}
        artifacts = [{"location": {"uri": "a.py"}}, {"location": {"uri": "b.py"}}]
        assert only(log(run([result("R1", "m", location)], artifacts=artifacts))).location == "b.py:3"

    def test_a_result_without_a_location_or_region_is_kept(self):
        assert only(log(run([result()]))).location == "(no location)"
        assert only(log(run([result("R1", "m", at("a.py"))]))).location == "a.py"
        odd = at("a.py", 0, byteOffset=7)
        assert only(log(run([result("R1", "m", odd)]))).line is None

    def test_a_logical_location_gives_the_symbol(self):
        location = {**at("a.py", 1), "logicalLocations": [{"name": "f", "fullyQualifiedName": "m.C.f"}]}
        assert only(log(run([result("R1", "m", location)]))).symbol == "m.C.f"

    def test_lines_are_counted_over_every_kind_of_line_end(self, root):
        lines = [only(log(run([result("R1", "m", at("top.py", n))])), root=root).snippet for n in (1, 2, 3, 9)]
        assert lines == ["first", "second", "third", None]

    def test_links_pipes_and_credentials_are_never_opened(self, root, tmp_path):
        (tmp_path / "outside.py").write_text("outside = 1\n")
        (root / "link.py").symlink_to(tmp_path / "outside.py")
        (root / "folder").symlink_to(tmp_path)
        (root / ".env").write_text("VALUE=plain\n")
        (root / ".git").mkdir()
        (root / ".git" / "config").write_text("[remote]\n")
        os.mkfifo(root / "pipe.py")
        names = ("link.py", "folder/outside.py", ".env", ".git/config", "pipe.py", "src", "no\x00name.py", "missing.py")
        reading = read(log(run([result("R1", "m", at(name, 1)) for name in names])), root=root)
        assert [finding.snippet for finding in reading.findings] == [None] * len(names)

    def test_lines_come_back_after_the_cache_was_emptied_and_stop_at_the_bound(self, root, monkeypatch):
        monkeypatch.setattr(source_lines, "MAX_CACHED_BYTES", 1)
        places = [at(name, 1) for name in ("top.py", "src/app/a.py", "top.py")]
        document = log(run([result("R1", "m", place) for place in places]))
        assert [f.snippet for f in read(document, root=root).findings] == ["first", "one = 1", "first"]
        monkeypatch.setattr(source_lines, "MAX_READ_BYTES", 1)
        assert [f.snippet for f in read(document, root=root).findings] == ["first", None, None]

    def test_without_the_source_the_first_line_of_the_snippet_is_taken(self):
        where = at("a.py", 2, snippet={"text": "\nfirst()\nsecond()\n"})
        assert only(log(run([result("R1", "m", where)]))).snippet == "first()"


class TestMessages:
    def test_a_message_by_id_is_filled_with_its_arguments(self):
        rules = [{"id": "R1", "messageStrings": {"m": {"text": "{0} and {1}, {{not}} {9} {7}"}}}]
        message = {"id": "m", "arguments": ["a", "b", "c", "d", "e", "f", "g", "h"]}
        finding = only(log(run([{"ruleId": "R1", "message": message}], rules=rules)))
        assert finding.message == "a and b, {not} {9} h"

    def test_a_missing_message_becomes_the_rules_description_with_a_warning(self):
        rules = [{"id": "R1", "shortDescription": {"text": "about R1"}}]
        reading = read(log(run([result("R1", None), result("R2", None)], rules=rules)))
        assert [finding.message for finding in reading.findings] == ["about R1", "(no message)"]
        assert len(reading.warnings) == 2

    def test_messages_and_snippets_are_bounded_even_when_arguments_multiply(self):
        message = {"text": "{0}" * 1000, "arguments": ["x" * 100_000]}
        where = at("a.py", 1, snippet={"text": "y" * 100_000})
        finding = only(log(run([{"ruleId": "R1", "message": message, "locations": [where]}])))
        assert len(finding.message) == 1000
        assert len(finding.snippet) == 400

    def test_lone_surrogates_are_replaced_so_that_everything_can_be_encoded(self):
        document = parse_sarif(json.dumps(log(run([result("\ud800", "a\udfffb", at("\ud800.py"))], "\ud800"))))
        finding = only(document)
        assert finding.message == "a?b"
        assert finding.model_dump_json().encode()


class TestFacts:
    @pytest.mark.parametrize(
        "rule",
        [
            {"properties": {"tags": ["external/cwe/cwe-079"]}},
            {"properties": {"tags": ["CWE-79: Cross-site scripting"]}},
            {"properties": {"cwe": "CWE-79"}},
            {"properties": {"cwe": [{"id": 79}]}},
            {"properties": {"cwe": 79}},
            {"relationships": [{"target": {"id": "79", "toolComponent": {"name": "CWE"}}}]},
            {"relationships": [{"target": {"id": "CWE-0079"}}]},
        ],
    )
    def test_cwes_are_found_wherever_producers_put_them(self, rule):
        assert only(log(run([result()], rules=[{"id": "R1", **rule}]))).cwe == ["CWE-79"]

    def test_cwes_of_the_result_win_and_several_are_kept_once_each(self):
        taxa = [{"id": "89", "toolComponent": {"name": "CWE"}}, {"id": "CWE-89"}, {"id": "CWE-564"}, {"id": "A1"}]
        assert only(log(run([result(taxa=taxa)]))).cwe == ["CWE-89", "CWE-564"]

    def test_producer_fingerprints_are_kept_only_if_they_identify_and_name_no_person(self):
        prints = [
            {
                "primaryLocationLineHash": f"{number}:1",
                "commitSha": f"{number}",
                "email": "ana@example.org",
                "owner": "bob@example.org",
                "matchBasedId/v1": "requires login",
                "constant/v1": "same",
                "nested": {"a": 1},
            }
            for number in range(3)
        ]
        reading = read(log(run([result(partialFingerprints=each) for each in prints])))
        assert [f.producer_fingerprints for f in reading.findings] == [
            {"primaryLocationLineHash": f"{number}:1"} for number in range(3)
        ]

    def test_several_runs_keep_their_tools_apart(self):
        reading = read(log(run([result()], "One Scan"), run([result()], "Two/Scan 3")))
        assert [finding.engine for finding in reading.findings] == ["one-scan", "two-scan-3"]
        assert reading.scanner == "One Scan, Two/Scan 3"
        assert reading.versions == {"one-scan": "1.0", "two-scan-3": "1.0"}

    def test_engine_names_are_fit_for_metrics_and_files(self):
        assert engine_name("../../Évil\nTool") == "vil-tool"
        assert engine_name("") == "unknown"

    def test_one_bad_result_never_loses_the_others(self):
        broken = [
            None,
            7,
            "x",
            [],
            {"locations": 5, "message": 3, "suppressions": 1},
            {"locations": [{"physicalLocation": []}]},
        ]
        reading = read(log(run([*broken, result("GOOD")]), "no run", run("no list")))
        assert "GOOD" in [finding.rule for finding in reading.findings]
        assert "run 0, result 0: not an object, skipped" in reading.warnings
        assert any("run 1" in warning for warning in reading.warnings)
        assert any("run 2" in warning for warning in reading.warnings)

    def test_warnings_are_bounded(self):
        reading = read(log(run([None] * 5000)))
        assert len(reading.warnings) == 101
        assert reading.warnings[-1] == "and 4,900 more"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    *("ruleId", "ruleIndex", "rule", "message", "level", "kind", "locations", "suppressions", "baselineState", "taxa"),
    *("properties", "fingerprints", "partialFingerprints", "provenance"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON), max_size=4), JSON, JSON)
def test_no_json_makes_the_reader_fail(results, rules, more):
    one = {
        "tool": {"driver": {"name": more, "rules": rules}},
        "results": results,
        "artifacts": more,
        "invocations": rules,
    }
    document = {"version": "2.1.0", "runs": [one, more]}
    reading = read(document)
    assert len(reading.findings) + reading.not_findings == len(results)
    assert all(finding.model_dump_json().encode() for finding in reading.findings)
    json.dumps(redact_sarif(document), allow_nan=False)


def test_fifty_thousand_results_are_read_one_to_one():
    results = [result(f"R{i % 50}", f"m{i}", at(f"src/m{i % 500}.py", i % 900 + 1)) for i in range(50_000)]
    reading = read(log(run(results, rules=[{"id": f"R{i}"} for i in range(60)])))
    assert len(reading.findings) == 50_000
    assert len({finding.fingerprint for finding in reading.findings}) == 50_000


class TestRealEngines:
    @pytest.fixture
    def project(self, tmp_path) -> Path:
        project = tmp_path.resolve() / "project"
        project.mkdir()
        (project / "a.py").write_text(
            "import hashlib, subprocess, yaml\n"
            "subprocess.call('ls ' + name, shell=True)\n"
            "subprocess.call('ls', shell=True)\n"
            "hashlib.md5(data)\n"
            "yaml.load(text)\n"
            "assert name\n"
        )
        return project

    def test_bandit_and_ruff_agree_on_the_severity_of_what_both_find(self, project):
        bandit = read(bandit_of(project), root=project)
        ruff = read(ruff_of(project), root=project)
        assert {finding.engine for finding in (*bandit.findings, *ruff.findings)} == {"bandit", "ruff"}
        rated = {(f.rule[1:], f.line): (f.severity, f.snippet) for f in bandit.findings}
        shared = [f for f in ruff.findings if (f.rule[1:], f.line) in rated]
        assert len(shared) >= 5
        for finding in shared:
            assert (finding.severity, finding.snippet) == rated[finding.rule[1:], finding.line]
        by_line = {(f.rule, f.line): f.severity for f in ruff.findings}
        assert by_line["S602", 2] == "critical"
        assert by_line["S602", 3] == "low"

    def test_bandits_missing_level_does_not_matter(self, project):
        finding = next(f for f in read(bandit_of(project), root=project).findings if f.rule == "B506")
        assert finding.severity_source == "severity map 1: raised from medium (issue_severity MEDIUM)"

    def test_ruffs_preview_names_are_the_same_rules(self, project):
        stable, preview = (read(ruff_of(project, preview=p), root=project) for p in (False, True))
        known = {finding.fingerprint for finding in stable.findings}
        assert {f.rule for f in preview.findings} >= {f.rule for f in stable.findings}
        assert known <= {finding.fingerprint for finding in preview.findings}

    def test_syntax_errors_are_failed_files_and_no_findings(self, project):
        (project / "broken.py").write_text("def f(:\n")
        for document in (bandit_of(project), ruff_of(project)):
            reading = read(document, root=project)
            assert reading.failed_files == ("broken.py",)
            assert all(finding.path == "a.py" for finding in reading.findings)
