"""Findings on disk, and findings handed over as plain data."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intelligentscan.domain.errors import InvalidArgument, StoreBroken, TooLarge
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners import findings_file, plain_findings
from intelligentscan.scanners.findings_file import findings_of, read_findings, write_findings
from intelligentscan.scanners.plain_findings import read_plain_findings

plain = plain_findings.plain_findings
MINIMAL = {"rule": "R1", "message": "wrong"}


def made(**more) -> Finding:
    facts = {"rule": "R", "engine": "e", "severity": "low", "severity_source": "s", "message": "m", "fingerprint": "f"}
    return Finding(**{**facts, **more})


class TestFile:
    @settings(deadline=None, max_examples=50)
    @given(st.text(), st.text(), st.integers(1, 10**9) | st.none(), st.lists(st.text(max_size=9), max_size=3))
    def test_any_text_comes_back_as_it_was(self, tmp_path_factory, message, snippet, line, cwe):
        path = tmp_path_factory.mktemp("findings") / "findings.jsonl"
        findings = (made(message=message, snippet=snippet, line=line, cwe=cwe), made())
        assert write_findings(path, findings) == 2
        assert read_findings(path) == findings

    def test_one_finding_is_one_line(self, tmp_path):
        path = tmp_path / "findings.jsonl"
        write_findings(path, [made(message="a\nb\u2028c\x85d")] * 3)
        assert path.read_bytes().count(b"\n") == 3

    @pytest.mark.parametrize("line", ["{", "[]", "7", '{"rule": "R"}', '{"rule": 1}', "null"])
    def test_a_damaged_line_is_named(self, tmp_path, line):
        path = tmp_path / "findings.jsonl"
        path.write_text(f"{made().model_dump_json()}\n\n{line}\n")
        with pytest.raises(StoreBroken, match="Line 3 "):
            read_findings(path)

    def test_a_missing_or_binary_file_is_told(self, tmp_path):
        (tmp_path / "binary").write_bytes(b"\xff\xfe\n")
        for name in ("missing", "binary"):
            with pytest.raises(StoreBroken):
                read_findings(tmp_path / name)

    def test_reading_is_bounded_in_count_and_line_length(self, monkeypatch):
        monkeypatch.setattr(findings_file, "MAX_FINDINGS", 2)
        with pytest.raises(TooLarge):
            list(findings_of([made().model_dump_json()] * 3))
        monkeypatch.setattr(findings_file, "MAX_LINE", 10)
        with pytest.raises(StoreBroken):
            list(findings_of([made().model_dump_json()]))

    def test_findings_are_read_one_after_the_other(self):
        def lines():
            yield made().model_dump_json()
            raise AssertionError("read too far")

        assert next(findings_of(lines())) == made()


class TestPlain:
    def test_a_rule_and_a_message_are_enough(self):
        (finding,) = plain([MINIMAL], scanner="My Scan")
        assert (finding.rule, finding.message, finding.engine) == ("R1", "wrong", "my-scan")
        assert (finding.severity, finding.path, finding.line) == ("medium", None, None)
        assert len(finding.fingerprint) == 64

    @pytest.mark.parametrize(
        "item",
        [
            {"rule": "R1", "message": "m", "path": "a.py", "line": 3, "severity": "high", "cwe": "CWE-89"},
            {"rule_id": "R1", "text": "m", "file": "a.py", "line_number": 3, "severity": "HIGH", "cwe": 89},
            {"ruleId": "R1", "message": "m", "filename": "./a.py", "start_line": 3, "level": "error", "cwe": ["89"]},
            {"check_id": "R1", "description": "m", "path": "a.py", "line": 3, "severity": 7.5, "cwe_id": "cwe_089"},
            {"test_id": "R1", "issue_text": "m", "filename": "a.py", "line_number": 3, "issue_severity": "High",
             "issue_cwe": {"id": 89}, "code": "3 x = 1"},
        ],
    )  # fmt: skip
    def test_usual_spellings_mean_the_same(self, item):
        (finding,) = plain([item])
        assert (finding.rule, finding.message, finding.location) == ("R1", "m", "a.py:3")
        assert (finding.severity, finding.cwe) == ("high", ["CWE-89"])

    @pytest.mark.parametrize(
        ("word", "severity"),
        [("Error", "high"), ("warning", "medium"), ("NOTE", "low"), ("moderate", "medium"), ("Critical", "critical"),
         ("info", "info"), ("none", "info"), (9.8, "critical"), (0, "info")],
    )  # fmt: skip
    def test_severities_in_any_words_or_scores(self, word, severity):
        assert plain([{**MINIMAL, "severity": word}])[0].severity == severity

    def test_a_given_severity_is_not_raised(self):
        item = {"rule": "B602", "message": "m", "severity": "medium"}
        assert plain([item], scanner="bandit")[0].severity == "medium"

    @pytest.mark.parametrize(
        ("item", "told"),
        [
            ("text", "findings[1] is a text, not an object"),
            (None, "findings[1] is NoneType"),
            ({"message": "m"}, "findings[1] has no rule"),
            ({"rule": "R", "message": "  "}, "findings[1] has no message"),
            ({"rule": 7, "message": "m"}, "findings[1].rule is a number"),
            ({"ruleId": ["R"], "message": "m"}, "findings[1].ruleId is a list"),
            ({**MINIMAL, "line": "3"}, "findings[1].line is a text '3'"),
            ({**MINIMAL, "line": -1}, "findings[1].line is a number"),
            ({**MINIMAL, "line_number": True}, "findings[1].line_number is true or false"),
            ({**MINIMAL, "line": 2**40}, "findings[1].line is a number"),
            ({**MINIMAL, "path": 3}, "findings[1].path is a number"),
            ({**MINIMAL, "severity": "awful"}, "findings[1].severity is a text 'awful'"),
            ({**MINIMAL, "severity": 11}, "findings[1].severity is a number"),
            ({**MINIMAL, "severity": float("nan")}, "findings[1].severity is a number"),
            ({**MINIMAL, "cwe": [None]}, "findings[1].cwe"),
            ({**MINIMAL, "suppressed": "yes"}, "findings[1].suppressed is a text"),
        ],
    )
    def test_a_wrong_item_is_named_by_index_and_field(self, item, told):
        with pytest.raises(InvalidArgument) as caught:
            plain([MINIMAL, item])
        assert told in caught.value.message
        assert "findings=[" in caught.value.next

    def test_the_list_itself_is_checked_and_bounded(self, monkeypatch):
        with pytest.raises(InvalidArgument, match="an object"):
            plain({"rule": "R"})
        monkeypatch.setattr(plain_findings, "MAX_FINDINGS", 1)
        with pytest.raises(TooLarge):
            plain([MINIMAL, MINIMAL])

    def test_line_zero_and_empty_texts_mean_none(self):
        (finding,) = plain([{**MINIMAL, "path": "a.py", "line": 0, "snippet": "", "symbol": ""}])
        assert (finding.location, finding.snippet, finding.symbol) == ("a.py", None, None)

    @pytest.mark.parametrize(
        ("path", "shown"),
        [("a b%20c.py", "a b%20c.py"), ("src\\a.py", "src/a.py"), ("C:\\x\\a.py", "C:/x/a.py"), ("#1.py", "#1.py"),
         ("https://example.org/x", "https://example.org/x"), ("../up.py", None), ("ü.py", "ü.py")],
    )  # fmt: skip
    def test_paths_are_paths_and_not_uris(self, path, shown):
        assert plain([{**MINIMAL, "path": path}])[0].path == shown

    def test_with_a_root_the_line_is_read_and_absolute_paths_become_relative(self, tmp_path: Path):
        root = tmp_path.resolve()
        (root / "a.py").write_text("one\ntwo\n")
        items = [{**MINIMAL, "path": path, "line": 2} for path in ("a.py", str(root / "a.py"))]
        assert [(f.path, f.snippet) for f in plain(items, root=root)] == [("a.py", "two")] * 2

    def test_passwords_are_redacted_here_too(self):
        item = {"rule": "hardcoded-password", "message": "found 'hunter2!'", "snippet": "password = 'hunter2!'"}
        other = {**MINIMAL, "path": "a.py", "snippet": "login('hunter2!')"}
        assert "hunter2" not in "".join(f.model_dump_json() for f in plain([{**item, "path": "a.py"}, other]))

    def test_warnings_and_the_engine_come_along(self):
        reading = read_plain_findings([{**MINIMAL, "path": "../x"}], scanner="One", scanner_version="3")
        assert reading.rules_run == {"one": ()}
        assert reading.scanner_version == "3"
        assert len(reading.warnings) == 1
