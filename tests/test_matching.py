"""Findings of two scans: what is new, fixed, persisting, and what cannot be told."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sarif_samples import bandit_of, ruff_of
from scan_world import ENGINES, FILES, RULES, counts, finding, record

from intelligentscan.domain.errors import StoreBroken
from intelligentscan.domain.scan import EngineCoverage, Finding
from intelligentscan.scanners import passes
from intelligentscan.scanners.file_sketch import FileSketch
from intelligentscan.scanners.findings_file import findings_of
from intelligentscan.scanners.fingerprint import Sighting, fingerprints
from intelligentscan.scanners.interface import ScanReport, Vcs
from intelligentscan.scanners.matching import match
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.scan_record import ScanRecord


def test_an_identical_scan_changes_nothing():
    scan = record(finding(), finding("bandit", "B602"), finding(text="y", line=9))
    matching = match(scan, scan)
    assert counts(matching) == (0, 0, 3, 0)
    assert {change.method for change in matching.current} == {passes.SAME_TEXT}
    assert all(change.previous == change.finding for change in matching.current)


def test_new_and_fixed_are_told_when_both_scans_looked():
    matching = match(record(finding(text="old")), record(finding(text="new")))
    assert counts(matching) == (1, 1, 0, 0)
    assert matching.current[0].state == "new"
    assert matching.gone[0].state == "fixed"


def test_equal_lines_are_matched_one_to_one():
    def twins(*lines: int) -> list[Finding]:
        prints = fingerprints([Sighting("ruff", "S602", "a.py", "x", line) for line in lines])
        return [finding(line=line, fingerprint=value) for line, value in zip(lines, prints, strict=True)]

    assert counts(match(record(*twins(1, 2, 3)), record(*twins(8)))) == (0, 2, 1, 0)
    assert counts(match(record(*twins(4)), record(*twins(1, 2)))) == (1, 0, 1, 0)


def test_the_same_line_seen_by_two_engines_stays_two_findings():
    both = record(finding("bandit", "B602"), finding("ruff", "S602"))
    assert counts(match(both, both)) == (0, 0, 2, 0)
    crossed = record(finding("bandit", "B602"), finding("ruff", "B602"))
    assert counts(match(crossed, record(finding("ruff", "B602")))) == (0, 1, 1, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engines": {"bandit": "1.9.4"}}, "ruff did not run in the second scan"),
        ({"rules_run": {**RULES, "ruff": ("S101",)}}, "the rule did not run in the second scan"),
        ({"failed_files": {"ruff": frozenset({"a.py"})}}, "the file could not be analysed by ruff in the second scan"),
        ({"uncertain": frozenset({"ruff"})}, "ruff failed in part in the second scan, without saying on which files"),
        ({"engines": {**ENGINES, "ruff": "0.18.0"}}, "ruff has another version in the second scan"),
        ({"scope": "src"}, "the two scans cover different folders of the repository"),
        ({"left_out": frozenset({"a.py"})}, "the path was excluded from the second scan"),
        ({"rulesets": {"ruff": "own 1"}}, "ruff had another rule set in the second scan"),
        ({"partial": True}, "the second scan is partial, and nothing counts as fixed in a partial scan"),
    ],
)
def test_absence_proves_nothing_when_the_second_scan_did_not_look(change, reason):
    matching = match(record(finding()), record(**change))
    assert counts(matching) == (0, 0, 0, 1)
    assert matching.gone[0].reason == reason
    assert matching.reasons() == {reason: 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engines": {"bandit": "1.9.4"}}, "ruff did not run in the first scan"),
        ({"rules_run": {**RULES, "ruff": ("S101",)}}, "the rule did not run in the first scan"),
        ({"failed_files": {"ruff": frozenset({"a.py"})}}, "the file could not be analysed by ruff in the first scan"),
        ({"engines": {**ENGINES, "ruff": "0.16.0"}}, "ruff has another version in the first scan"),
    ],
)
def test_nothing_is_new_where_the_first_scan_did_not_look(change, reason):
    matching = match(record(**change), record(finding()))
    assert counts(matching) == (0, 0, 0, 1)
    assert matching.current[0].reason == reason


def test_what_still_matches_persists_across_another_version():
    matching = match(record(finding()), record(finding(line=5), engines={**ENGINES, "ruff": "0.18.0"}))
    assert counts(matching) == (0, 0, 1, 0)


def test_a_deleted_file_is_fixed_and_an_added_file_is_new_whatever_ran():
    without = {"files": FILES - {"a.py"}, "engines": {"bandit": "1.9.4"}}
    assert counts(match(record(finding()), record(**without))) == (0, 1, 0, 0)
    assert counts(match(record(**without), record(finding()))) == (1, 0, 0, 0)


def test_a_folder_that_could_not_be_listed_is_not_a_deleted_file():
    blind = record(files=FILES - {"a.py"}, failed_files={"ruff": frozenset({"sub/"})})
    assert counts(match(record(finding(path="sub/deep/x.py")), blind)) == (0, 0, 0, 1)
    assert counts(match(record(finding(path="a.py")), blind)) == (0, 1, 0, 0)


def test_two_projects_without_a_file_in_common_are_not_compared():
    other = record(finding(path="z1.py"), files=frozenset(f"z{n}.py" for n in range(9)))
    first = record(finding(), files=frozenset(f"y{n}.py" for n in range(9)))
    matching = match(first, other)
    assert counts(matching) == (0, 0, 0, 2)
    assert matching.note == "the two scans have no file in common"


def test_reports_that_list_neither_files_nor_rules_are_compared_by_their_tool():
    blank = {"engines": {"examplescan": "3"}, "rules_run": {"examplescan": ()}, "files": frozenset()}
    before, after = (record(finding("examplescan", "X", text=text), **blank) for text in ("one", "two"))
    assert counts(match(before, after)) == (1, 1, 0, 0)


def test_suppressed_findings_are_neither_fixed_nor_new():
    silenced = finding(suppressed=True)
    assert [c.state for c in match(record(finding()), record(silenced)).current] == ["suppressed"]
    assert counts(match(record(finding()), record(silenced))) == (0, 0, 0, 0)
    assert counts(match(record(), record(silenced))) == (0, 0, 0, 0)
    assert counts(match(record(silenced), record())) == (0, 0, 0, 0)


def test_a_suppression_taken_back_reopens_the_finding():
    matching = match(record(finding(suppressed=True)), record(finding()))
    assert matching.current[0].state == "reopened"
    assert counts(matching) == (1, 0, 0, 0)


def test_a_result_marked_absent_is_as_good_as_gone():
    absent = finding(baseline_state="absent")
    matching = match(record(finding()), record(absent))
    assert [change.state for change in matching.current] == ["unmatched"]
    assert counts(matching) == (0, 1, 0, 0)


def test_a_renamed_rule_is_the_same_rule():
    named = finding(rule="hashlib-insecure-hash-function", fingerprint=finding(rule="S324").fingerprint)
    coded = finding(rule="S324")
    assert counts(match(record(named), record(coded))) == (0, 0, 1, 0)
    asked = record(rules_run={"ruff": ("hashlib-insecure-hash-function",)})
    assert counts(match(record(coded), asked)) == (0, 1, 0, 0)


FINDINGS = st.lists(
    st.builds(
        finding,
        engine=st.sampled_from(["bandit", "ruff"]),
        rule=st.sampled_from(["S602", "S101"]),
        path=st.sampled_from([*sorted(FILES), None]),
        text=st.sampled_from("xyz"),
        line=st.integers(1, 5),
        suppressed=st.booleans(),
    ),
    max_size=10,
)


@settings(deadline=None)
@given(FINDINGS, FINDINGS)
def test_every_finding_gets_exactly_one_state_and_no_partner_is_used_twice(before, after):
    rules = {"bandit": ("S602", "S101"), "ruff": ("S602", "S101")}
    matching = match(record(*before, rules_run=rules), record(*after, rules_run=rules))
    assert [change.finding for change in matching.current] == after
    partners = [id(change.previous) for change in matching.current if change.previous is not None]
    assert len(set(partners)) == len(partners)
    matched_open = sum(c.previous is not None and c.previous.counts for c in matching.current)
    assert matched_open + len(matching.gone) == sum(f.counts for f in before)
    assert matching.new + matching.persisting == sum(f.counts for f in after)
    assert matching.not_comparable == 0


@settings(deadline=None)
@given(FINDINGS)
def test_comparing_with_itself_changes_nothing(findings):
    scan = record(*findings)
    matching = match(scan, scan)
    assert (matching.new, matching.fixed, matching.not_comparable) == (0, 0, 0)
    assert matching.persisting == sum(f.counts for f in findings)


class TestProducerFingerprints:
    def prints(self, *values: str | None, key: str = "matchBasedId/v1", text: str = "old") -> ScanRecord:
        found = [
            finding(text=f"{text}{n}", line=n + 1, message=f"{text}{n}", producer_fingerprints={key: v} if v else {})
            for n, v in enumerate(values)
        ]
        return record(*found)

    def persisting(self, one: tuple[str | None, ...], other: tuple[str | None, ...], **more: str) -> int:
        return match(self.prints(*one, **more), self.prints(*other, text="new", **more)).persisting

    def test_a_value_that_one_result_of_each_scan_has_identifies_it(self):
        matching = match(self.prints("aaaaaaaa1", "bbbbbbbb2"), self.prints("bbbbbbbb2", "cccccccc3", text="new"))
        assert counts(matching) == (1, 1, 1, 0)
        assert (matching.current[0].method, matching.current[0].previous.line) == (passes.PRODUCER, 2)

    @pytest.mark.parametrize("value", ["requires login", "4", "", "not available"])
    def test_placeholders_and_counters_identify_nothing(self, value):
        assert self.persisting((value, "aaaaaaaa1"), (value, "bbbbbbbb2")) == 0

    def test_a_value_of_several_results_or_of_all_scans_identifies_nothing(self):
        assert self.persisting(("same-value", "same-value", "other-one"), ("same-value", "another-1")) == 0
        assert self.persisting(("constant-1", None), ("constant-1", None)) == 0

    def test_a_value_identifies_nothing_across_rules(self):
        before = record(finding(text="a", producer_fingerprints={"k": "aaaaaaaa1"}), finding(text="b", line=2))
        after = finding(rule="S101", text="c", producer_fingerprints={"k": "aaaaaaaa1"})
        assert match(before, record(after)).persisting == 0


class TestOldRuns:
    """Runs logged before sketches, contexts and methods were kept."""

    OLD = json.dumps(
        {"format": 1, "fingerprint_version": "1", "scope": "", "engines": ENGINES, "uncertain": [],
         "files": sorted(FILES), "rules_run": {engine: list(rules) for engine, rules in RULES.items()},
         "failed_files": {"ruff": ["c.py", "sub/"]}}
    )  # fmt: skip
    LINE = (
        '{"rule":"S602","engine":"ruff","severity":"high","severity_source":"s","message":"m","path":"a.py","line":%d,'
        '"column":1,"end_line":null,"snippet":"%s","symbol":null,"cwe":[],"fingerprint":"%s",'
        '"producer_fingerprints":{},"suppressed":false,"baseline_state":null,"kind":"fail"}'
    )

    def read(self, *lines: str) -> ScanRecord:
        return ScanRecord.from_json(self.OLD, findings_of(lines))

    def test_they_are_read_and_matched_by_text_and_fingerprint(self):
        old = self.read(self.LINE % (3, "call(x)", "f1"), self.LINE % (9, "shown differently", "f2"))
        kept = finding(text="# call( x )"[2:], line=30, fingerprint="f7")
        hidden = finding(text="[redacted]", line=90, fingerprint="f2")
        matching = match(old, record(kept, hidden))
        assert [c.method for c in matching.current] == [passes.SAME_TEXT, passes.FINGERPRINT]
        assert counts(matching) == (0, 0, 2, 0)

    def test_a_changed_line_of_the_same_number_is_recognised(self):
        old = self.read(self.LINE % (3, "call(one_argument, shell=True)", "f1"))
        assert counts(match(old, record(finding(text="call(other_argument, shell=True)", line=3)))) == (0, 0, 1, 0)

    def test_what_they_left_out_or_failed_on_is_not_fixed(self):
        assert counts(match(record(finding(path="sub/x.py"), finding(path="c.py")), self.read())) == (0, 0, 0, 2)
        assert counts(match(record(finding(path="b.py")), self.read())) == (0, 1, 0, 0)

    def test_fingerprints_made_in_another_way_are_not_compared_but_texts_are(self):
        other = record(finding(text="call(x)", line=8), finding(text="y", fingerprint="f1"), fingerprint_version="0")
        matching = match(self.read(self.LINE % (3, "call(x)", "f1")), other)
        assert counts(matching) == (1, 0, 1, 0)
        assert matching.current[0].method == passes.SAME_TEXT


class TestRecord:
    def coverage(self, engine: str, status: str = "complete", failed: int = 0) -> EngineCoverage:
        return EngineCoverage(
            engine=engine, version=ENGINES[engine], status=status, files_seen=3, files_analyzed=3 - failed,
            files_failed=failed, findings=0, duration_s=0.1,
        )  # fmt: skip

    def report(self, **more) -> ScanReport:
        facts = {"kind": "scan", "scanner": "s", "scanner_version": "1", "target": "t", "status": "complete"}
        return ScanReport(**{"findings": (), **facts, **more})

    def test_it_comes_back_from_its_artifact_as_it_was(self):
        failed = {"ruff": frozenset({"ü.py"})}
        sketches = {"a.py": FileSketch.of(["x=1", "", "y=2"])}
        scan = record(
            finding(), failed_files=failed, uncertain=frozenset({"bandit"}), scope="src", partial=True,
            left_out=frozenset({"b.py"}), commit="0" * 40, rulesets={"ruff": "x"}, sketches=sketches,
        )  # fmt: skip
        again = ScanRecord.from_json(scan.to_json(), scan.findings)
        assert again == scan

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"format": 3}', '{"format": 2}', "null", '{"format": 1, "engines": []}', "[" * 9999]
    )
    def test_a_changed_artifact_is_refused(self, text):
        with pytest.raises(StoreBroken):
            ScanRecord.from_json(text, ())

    def test_an_engine_that_failed_did_not_run(self):
        report = self.report(
            coverage=(self.coverage("ruff"), self.coverage("bandit", "failed", 3)),
            rules_run=RULES,
            failed_files={"bandit": ("a.py",)},
            files=("a.py",),
            vcs=Vcs(subpath="src"),
        )
        made = ScanRecord.of(report)
        assert made.engines == {"ruff": "0.17.6"}
        assert made.rules_run == {"ruff": RULES["ruff"]}
        assert made.scope == "src"

    def test_a_partial_import_without_file_names_is_uncertain(self):
        report = self.report(status="partial", rules_run={"examplescan": ()})
        assert ScanRecord.of(report).uncertain == {"examplescan"}
        assert ScanRecord.of(self.report(rules_run={"examplescan": ()})).engines == {"examplescan": "1"}
        assert ScanRecord.of(self.report(status="failed", rules_run={"examplescan": ()})).engines == {}


class TestRealScans:
    SOURCE = "import subprocess\n\n\ndef f(x):\n    subprocess.call(x, shell=True)\n    assert x\n    return eval(x)\n"

    def scan(self, root: Path) -> ScanRecord:
        readings = {"bandit": read_sarif(bandit_of(root), root=root), "ruff": read_sarif(ruff_of(root), root=root)}
        return ScanRecord(
            findings=tuple(finding for reading in readings.values() for finding in reading.findings),
            engines={engine: reading.versions[engine] for engine, reading in readings.items()},
            rules_run=dict.fromkeys(readings, ()),
            files=frozenset(path.relative_to(root).as_posix() for path in root.rglob("*.py")),
            failed_files={engine: frozenset(reading.failed_files) for engine, reading in readings.items()},
        )

    @pytest.fixture
    def root(self, tmp_path) -> Path:
        root = tmp_path.resolve() / "project"
        root.mkdir()
        (root / "a.py").write_text(self.SOURCE)
        (root / "b.py").write_text("assert 1\n")
        return root

    def test_edits_of_a_real_file_are_told_apart(self, root):
        before = self.scan(root)
        total = len(before.findings)
        assert total == 9

        (root / "a.py").write_text("# a\n# b\n" + self.SOURCE.replace("    assert x\n", ""))
        assert counts(match(before, self.scan(root))) == (0, 2, total - 2, 0)

        (root / "a.py").write_text(self.SOURCE + "\n\ndef g(x):\n    return eval(x)\n")
        assert counts(match(before, self.scan(root))) == (2, 0, total, 0)

        (root / "a.py").write_text(self.SOURCE + "def broken(:\n")
        matching = match(before, self.scan(root))
        assert matching.fixed == 0
        assert matching.not_comparable >= 4

        (root / "a.py").unlink()
        assert counts(match(before, self.scan(root))) == (0, total - 2, 2, 0)
