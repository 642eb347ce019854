"""Reports and pictures for people: complete, bounded, and unable to act."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sarif_samples import bandit_of, ruff_of

from intelligentscan.domain.scan import EngineCoverage, Finding
from intelligentscan.domain.severity import SEVERITIES
from intelligentscan.scanners.interface import ScanReport, Vcs
from intelligentscan.scanners.matching import match
from intelligentscan.scanners.plots import severity_plot
from intelligentscan.scanners.report import MAX_ROWS, RunFacts, render_html, render_markdown
from intelligentscan.scanners.sarif_reader import parse_sarif, read_sarif
from intelligentscan.scanners.scan_record import ScanRecord

EXAMPLES = Path(__file__).parent.parent / "examples"
EVIL = "<script>alert(1)</script> ![x](http://evil.example/p) [a](javascript:b) | `c` \u202e\u200b\x1b[31m\n# big"


def finding(**more: Any) -> Finding:
    facts = {
        "rule": "S602", "engine": "ruff", "severity": "high", "severity_source": "s", "message": "a message",
        "path": "a.py", "line": 3, "fingerprint": "f",
    }  # fmt: skip
    return Finding(**{**facts, **more})


def coverage(**more: Any) -> EngineCoverage:
    facts = {
        "engine": "ruff", "version": "0.17.6", "status": "complete", "files_seen": 5, "files_analyzed": 5,
        "files_failed": 0, "findings": 1, "duration_s": 1.25, "network": "blocked",
    }  # fmt: skip
    return EngineCoverage(**{**facts, **more})


def report(*findings: Finding, **more: Any) -> ScanReport:
    facts = {
        "kind": "scan",
        "scanner": "ruff",
        "scanner_version": "0.17.6",
        "target": "/home/ana/shop",
        "status": "complete",
    }
    return ScanReport(**{"findings": findings, "coverage": (coverage(),), **facts, **more})


def both(made: ScanReport, facts: RunFacts | None = None) -> tuple[str, str]:
    return render_markdown(made, facts), render_html(made, facts)


class Page(HTMLParser):
    """Reads a page as a browser would: its tags with attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_counts_coverage_and_findings_are_in_both_forms():
    made = report(finding(severity="critical"), finding(severity="low", suppressed=True), finding())
    for text in both(made, RunFacts(run_id="r" * 32, experiment="scans", user="ana")):
        for part in (
            "2 open findings, the worst is critical.",
            "a.py:3",
            "S602",
            "0.17.6",
            "blocked",
            "r" * 32,
            "scans",
        ):
            assert part in text
        assert "/home/ana" not in text
    assert "| 1 | 1 | 0 | 0 | 0 |" in render_markdown(made)


def test_the_worst_and_the_new_come_first():
    findings = [
        finding(severity="low", message="m-low"),
        finding(severity="critical", message="m-old"),
        finding(severity="critical", message="m-new", path="z.py"),
    ]
    before = ScanRecord(findings=tuple(findings[:2]), engines={"ruff": "1"})
    after = ScanRecord(
        findings=(findings[0], findings[1], findings[2].model_copy(update={"fingerprint": "other"})),
        engines={"ruff": "1"},
    )
    facts = RunFacts(baseline_run_id="b" * 32, change=match(before, after))
    for text in both(report(*after.findings), facts):
        assert text.index("m-new") < text.index("m-old") < text.index("m-low")
        assert "persisting" in text
        assert "b" * 32 in text


def test_fixed_findings_and_reasons_for_not_comparing_are_told():
    before = ScanRecord(
        findings=(finding(path="gone.py"), finding(engine="bandit", rule="B101")),
        engines={"ruff": "1", "bandit": "1"},
    )
    change = match(before, ScanRecord(engines={"ruff": "1"}))
    for text in both(report(), RunFacts(change=change)):
        assert "gone.py:3" in text
        assert "bandit did not run in the second scan" in text


def test_what_was_not_scanned_is_told_with_its_reason():
    rows = (
        coverage(status="partial", files_failed=1, failures=["bad.py: not UTF-8"]),
        coverage(engine="bandit", version="", status="failed", files_seen=0, failures=["bandit could not be run"]),
    )
    failed = {"ruff": ("bad.py",), "bandit": tuple(f"f{n}.py" for n in range(80))}
    made = report(coverage=rows, failed_files=failed, status="partial", files_skipped=4, warnings=("a warning",) * 30)
    for text in both(made):
        for part in ("bad.py", "not UTF-8", "bandit could not be run", "4 entries were left out", "and 10 more"):
            assert part in text
        assert "partial: what was not analysed may hide more" in text
        assert "f3.py" not in text


def test_a_failed_scan_is_never_called_clean():
    for text in both(report(status="failed")):
        assert "The scan failed; nothing can be concluded from it." in text
        assert "No open finding" not in text


def test_long_lists_are_cut_with_a_note():
    made = report(*(finding(message=f"m{n}", line=n + 1) for n in range(MAX_ROWS + 234)))
    for text in both(made):
        assert "These are the first 1,000 of 1,234 open findings" in text
        assert "m1100" not in text


def test_text_of_the_target_cannot_act_in_markdown():
    made = report(
        finding(message=EVIL, path=EVIL, rule=EVIL, snippet=EVIL),
        target=EVIL, vcs=Vcs(repository=EVIL, branch=EVIL), warnings=(EVIL,), failed_files={EVIL: (EVIL,)},
    )  # fmt: skip
    unchanged = match(ScanRecord(), ScanRecord())
    text = render_markdown(made, RunFacts(user=EVIL, experiment=EVIL, baseline_run_id=EVIL, change=unchanged))
    assert "<script" not in text
    assert "](" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\n# big" not in text
    rows = [line for line in text.splitlines() if line.startswith("| high")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [6]


def test_text_of_the_target_cannot_act_in_html():
    attribute = '" onmouseover="alert(1)" style="x'
    made = report(
        finding(message=EVIL, path=attribute, rule=attribute, snippet=EVIL, engine=EVIL, cwe=[EVIL]),
        target=EVIL, vcs=Vcs(repository=attribute, branch=EVIL), warnings=(EVIL,), coverage=(coverage(network=EVIL),),
    )  # fmt: skip
    html = render_html(made, RunFacts(user=attribute))
    page = Page(html)
    assert "<script>alert(1)</script>" in page.text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "a", "iframe", "link", "object", "form", "base"})
    names = {name for _, attributes in page.tags for name in attributes}
    assert names <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "aria-label", "aria-hidden", "viewbox"),
        *("preserveaspectratio", "x", "y", "width", "height", "tabindex", "role", "scope"),
    }
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_the_page_forbids_everything_but_its_own_style():
    html = render_html(report(finding()))
    style = re.search(r"<style>(.*)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(
        attrs["content"] for tag, attrs in Page(html).tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style[1]
    assert "http" not in html.replace("http-equiv", "")


def test_tables_have_heads_for_readers_that_do_not_see():
    page = Page(render_html(report(finding())))
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert heads
    assert all(attributes.get("scope") in ("col", "row") for attributes in heads)


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_real_browser_shows_the_page_with_its_style_and_runs_nothing(tmp_path):
    (tmp_path / "report.html").write_text(render_html(report(finding(message=EVIL), target=EVIL)), encoding="utf-8")
    probe = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=500",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900",
        f"--screenshot={tmp_path / 'report.png'}", (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(probe, capture_output=True, text=True, timeout=120, check=True)
    assert "Content Security Policy" not in done.stderr
    assert _pixels(tmp_path / "report.png")[-1, 0] == pytest.approx(_rgb("#f6f7f9"), abs=0.01)


def _pixels(path: Path) -> Any:
    from matplotlib.image import imread

    return imread(path)[:, :, :3]


class TestPlot:
    def test_every_severity_has_a_bar_of_its_length_and_colour(self, tmp_path):
        counts = dict(zip(SEVERITIES, (1, 2, 3, 4, 5), strict=True))
        findings = [finding(severity=severity) for severity, number in counts.items() for _ in range(number)]
        image = _pixels(severity_plot(report(*findings, finding(suppressed=True)), tmp_path / "s.png"))
        assert image.shape == (510, 1080, 3)
        coloured = [int(((abs(image - _rgb(colour)) < 0.01).all(axis=2)).sum()) for colour in _COLOURS]
        assert coloured == sorted(coloured)
        assert coloured[0] > 1000
        assert coloured[4] / coloured[0] == pytest.approx(5, rel=0.1)

    def test_an_empty_scan_and_a_huge_one_can_be_drawn(self, tmp_path):
        for findings in ((), (finding(),) * 20_000):
            path = severity_plot(report(*findings), tmp_path / f"{len(findings)}.png")
            assert path.read_bytes().startswith(b"\x89PNG")

    def test_nothing_of_the_target_is_drawn_or_kept_in_the_file(self, tmp_path):
        plain, evil = (
            severity_plot(report(finding(message=text, path=text, rule=text), target=text), tmp_path / f"{n}.png")
            for n, text in enumerate(("a", r"$\frac{broken$ " + EVIL))
        )
        assert plain.read_bytes() == evil.read_bytes()

    def test_importing_the_reports_does_not_pay_for_drawing(self):
        code = (
            "import sys, intelligentscan.scanners.plots, intelligentscan.scanners.report\n"
            "print(sorted({'jinja2', 'matplotlib', 'numpy'} & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


_COLOURS = ("#4a1260", "#b3322a", "#d98a1f", "#5b9bd0", "#b8bec6")


def _rgb(colour: str) -> list[float]:
    return [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]


class TestExamples:
    def test_the_sample_application_shows_a_range_of_weaknesses_to_both_engines(self):
        root = EXAMPLES / "sample_app"
        for document in (bandit_of(root), ruff_of(root)):
            findings = read_sarif(document, root=root).findings
            assert len(findings) >= 25
            assert len({finding.rule for finding in findings}) >= 20
            assert {finding.severity for finding in findings} >= {"critical", "high", "medium", "low"}

    def test_the_example_report_of_a_third_scanner_fits_the_application(self):
        root = EXAMPLES / "sample_app"
        reading = read_sarif(parse_sarif((EXAMPLES / "import" / "examplescan.sarif").read_bytes()), root=root)
        assert len(reading.findings) == 9
        assert reading.not_findings == 1
        assert sum(finding.suppressed for finding in reading.findings) == 1
        assert all(finding.snippet for finding in reading.findings)
        assert "k7-lending" not in "".join(finding.model_dump_json() for finding in reading.findings)
