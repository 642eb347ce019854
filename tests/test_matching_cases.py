"""The cases that matching has to get right, one by one: real engines on edited sources where it is about sources."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sarif_samples import at, result, ruff_of, run
from scan_world import (
    BOTH,
    FOUND,
    HELPER,
    VAULT,
    committed,
    counts,
    finding,
    git,
    imported,
    record,
    scanned,
    write,
)

from intelligentscan.scanners import passes, similarity
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.fingerprint import Sighting, fingerprints
from intelligentscan.scanners.git_renames import renamed_between
from intelligentscan.scanners.matching import FindingChange, Matching, match
from intelligentscan.scanners.rule_aliases import cluster_of, clusters
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.scan_record import ScanRecord

MD5_TWIN = "\n\ndef other(data):\n    return hashlib.md5(data).hexdigest()\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path.resolve() / "project", {"vault.py": VAULT, "helper.py": HELPER})


@dataclass(frozen=True)
class Case:
    """An edit of the folder, and how many findings are new, fixed and persisting after it."""

    number: int
    title: str
    act: Callable[[Path], object]
    expected: tuple[int, int, int]
    moved: int = 0

    def __str__(self) -> str:
        return f"{self.number} {self.title}"


def edit(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda root: (root / "vault.py").write_text(change((root / "vault.py").read_text()))


def replaced(old: str, new: str) -> Callable[[Path], object]:
    def act(root: Path) -> None:
        assert old in VAULT
        edit(lambda text: text.replace(old, new))(root)

    return act


def rename(root: Path) -> None:
    (root / "vault.py").rename(root / "safe.py")


def into_a_class(text: str) -> str:
    head, body = text.split("\n\n\n", 1)
    return f"{head}\n\n\nclass Vault:\n" + re.sub(r"^(?=.)", "    ", body, flags=re.MULTILINE)


def functions(text: str) -> tuple[str, list[str]]:
    head, *rest = text.split("\n\n\n")
    return head, [part.rstrip("\n") for part in rest]


def reordered(text: str) -> str:
    head, parts = functions(text)
    return "\n\n\n".join([head, *parts[::-1]]) + "\n"


def move_a_function(root: Path) -> None:
    head, parts = functions(VAULT)
    (moved,) = (part for part in parts if part.startswith("def read"))
    write(root, {"vault.py": "\n\n\n".join([head, *(p for p in parts if p != moved)]) + "\n"})
    write(root, {"other.py": f'"""Other."""\n\nimport os\n\n\ndef first():\n    return os.name\n\n\n{moved}\n'})


def rename_edit_and_insert(root: Path) -> None:
    rename(root)
    text = VAULT.replace("mktemp()", "mktemp(suffix)").replace("def run", "LIMIT = 3\n\n\ndef run")
    write(root, {"safe.py": text})


def twin_above(text: str) -> str:
    head, parts = functions(text)
    return "\n\n\n".join([head, MD5_TWIN.strip(), *parts]) + "\n"


CASES = [
    Case(1, "identical rescan", lambda root: None, (0, 0, FOUND)),
    Case(2, "seven lines inserted above", edit(lambda text: "# x\n" * 7 + text), (0, 0, FOUND)),
    Case(3, "file renamed", rename, (0, 0, FOUND), moved=4),
    Case(4, "body re-indented into a class", edit(into_a_class), (0, 0, FOUND)),
    Case(
        5, "other line ends", lambda root: (root / "vault.py").write_text(VAULT.replace("\n", "\r\n"), newline=""),
        (0, 0, FOUND),
    ),
    Case(6, "the line after the finding edited", replaced("print(name)", "print(name, 1)"), (0, 0, FOUND)),
    Case(7, "the finding's line edited", replaced("md5(data)", "md5(payload)"), (0, 0, FOUND)),
    Case(8, "identical code added below", edit(lambda text: text + MD5_TWIN), (1, 0, FOUND)),
    Case(9, "identical code added above", edit(twin_above), (1, 0, FOUND)),
    Case(10, "one fixed", replaced("eval(text)", "int(text)"), (0, 1, FOUND - 1)),
    Case(
        11, "one fixed and another new of the same rule",
        edit(lambda text: text.replace("md5(", "sha256(") + MD5_TWIN.replace("data", "blob")), (1, 1, FOUND - 1),
    ),
    Case(12, "function moved to another file", move_a_function, (0, 0, FOUND), moved=1),
    Case(13, "file deleted", lambda root: (root / "helper.py").unlink(), (0, 1, FOUND - 1)),
    Case(14, "file copied", lambda root: shutil.copy(root / "helper.py", root / "copy.py"), (1, 0, FOUND)),
    Case(15, "functions reordered", edit(reordered), (0, 0, FOUND)),
    Case(16, "renamed, edited and lines inserted at once", rename_edit_and_insert, (0, 0, FOUND), moved=4),
    Case(27, "a rename of case only", lambda root: (root / "vault.py").rename(root / "Vault.py"), (0, 0, FOUND), 4),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_edits_of_the_source(root: Path, case: Case) -> None:
    before = await scanned(root)
    case.act(root)
    after = await scanned(root)

    there, back = match(before, after), match(after, before)

    new, fixed, persisting = case.expected
    assert counts(there) == (new, fixed, persisting, 0)
    assert there.moved == case.moved
    assert counts(back) == (fixed, new, persisting, 0)
    assert there.new - there.fixed == len(after.findings) - len(before.findings)


def the(matching: Matching, rule: str, path: str | None = None) -> FindingChange:
    """Return what became of the one finding of a rule."""
    changes = [c for c in (*matching.current, *matching.gone) if c.finding.rule == rule]
    (change,) = [c for c in changes if path in (None, c.finding.path)]
    return change


async def test_it_is_told_how_each_finding_was_recognised_and_where_it_was(root: Path) -> None:
    before = await scanned(root)
    rename_edit_and_insert(root)
    renamed = match(before, await scanned(root))
    assert the(renamed, "S324").method == passes.SAME_LINE
    assert the(renamed, "S306").method == passes.SIMILAR
    assert the(renamed, "S306").previous.path == "vault.py"
    assert renamed.renamed == {"vault.py": "safe.py"}

    (root / "safe.py").unlink()
    move_a_function(root)
    moved = match(before, await scanned(root))
    assert (the(moved, "S307").state, the(moved, "S307").finding.path) == ("moved", "other.py")
    assert the(moved, "S307").method in (passes.SAME_CONTEXT, passes.SAME_SYMBOL)
    assert not moved.renamed


async def test_9_of_equal_lines_the_one_where_the_diff_leads_is_the_old_one(root: Path) -> None:
    before = await scanned(root)
    edit(twin_above)(root)
    changes = match(before, await scanned(root)).current

    twins = [(c.state, c.finding.symbol) for c in changes if c.finding.rule == "S324"]
    assert twins == [("new", "other"), ("persisting", "digest")]


def test_17_a_rule_that_ruff_names_in_preview_mode_is_the_same_rule(root: Path) -> None:
    def read(*, preview: bool) -> ScanRecord:
        reading = read_sarif(ruff_of(root, preview=preview), root=root, engine="ruff")
        shown = [f for f in reading.findings if f.rule in ("S324", "S602", "S307", "S306", "S101")]
        return ScanRecord(findings=tuple(shown), engines=reading.versions, rules_run=reading.rules_run)

    assert counts(match(read(preview=False), read(preview=True))) == (0, 0, FOUND, 0)


@pytest.mark.parametrize(
    ("engine", "old", "new"),
    [
        ("ruff", "S324", "hashlib-insecure-hash-function"),
        ("bandit", "B303", "B324"),
        ("semgrep", "rules.python.no-eval", "home.me.config.python.no-eval"),
        ("semgrep-oss", "no-eval", "tmp.no-eval"),
    ],
)
def test_17_other_names_of_a_rule_are_known_per_engine(engine: str, old: str, new: str) -> None:
    facts = {"engines": {engine: "1"}, "rules_run": {engine: ()}}
    before, after = record(finding(engine, old), **facts), record(finding(engine, new, line=3), **facts)
    assert counts(match(before, after)) == (0, 0, 1, 0)
    other = record(finding("examplescan", new), engines={**facts["engines"], "examplescan": "1"}, rules_run={})
    assert match(before, other).persisting == 0


async def test_18_one_defect_seen_by_two_engines_stays_two_findings_of_one_cluster(root: Path) -> None:
    before, after = await scanned(root, BOTH), await scanned(root, BOTH)
    evals = [f for f in after.findings if f.rule in ("B307", "S307")]

    assert [f.engine for f in evals] == ["bandit", "ruff"]
    assert len({cluster_of(f) for f in evals}) == 1
    # bandit alone reports the import of subprocess
    assert clusters(after.findings) == FOUND + 1
    assert counts(match(before, after)) == (0, 0, len(after.findings), 0)


async def test_19_the_same_rule_twice_on_one_line_is_told_apart_by_column(root: Path) -> None:
    write(root, {"vault.py": "def f(a, b):\n    return eval(a) + eval(b)\n"})
    before = await scanned(root)
    write(root, {"vault.py": "# one\n\n\ndef f(a, b):\n    return eval(a) + eval(b)\n"})
    there = match(before, await scanned(root))

    pairs = [(c.previous.column, c.finding.column) for c in there.current if c.finding.rule == "S307"]
    assert pairs == [(12, 12), (22, 22)]
    write(root, {"vault.py": "def f(a, b):\n    return eval(a) + int(b)\n"})
    assert counts(match(before, await scanned(root))) == (0, 1, 2, 0)


async def test_20_a_finding_on_the_last_line_survives_what_is_written_after_it(root: Path) -> None:
    write(root, {"vault.py": "x = input()\neval(x)"})
    before = await scanned(root)
    write(root, {"vault.py": "x = input()\neval(x)\nprint(x)\n"})
    assert counts(match(before, await scanned(root))) == (0, 0, 2, 0)


def test_21_findings_without_a_place_or_without_a_line_are_matched_by_what_they_say() -> None:
    of_file = result("R1", "file is too long", at("a.py"))
    nowhere = result("R2", "the project has no licence")
    before, after = imported(run([of_file, nowhere])), imported(run([nowhere, of_file, result("R2", "something else")]))
    assert counts(match(before, after)) == (1, 0, 2, 0)


async def test_22_an_engine_that_did_not_run_again_fixes_nothing(root: Path) -> None:
    before, after = await scanned(root, BOTH), await scanned(root)
    there = match(before, after)
    assert (there.new, there.fixed, there.persisting) == (0, 0, FOUND)
    assert there.reasons() == {"bandit did not run in the second scan": FOUND + 1}


async def test_23_a_file_that_cannot_be_parsed_any_more_is_unknown_under_its_old_and_its_new_name(root: Path) -> None:
    before = await scanned(root)
    write(root, {"vault.py": VAULT + "def broken(:\n"})
    there = match(before, await scanned(root))
    assert (there.new, there.fixed) == (0, 0)
    assert set(there.reasons()) <= {"the file could not be analysed by ruff in the second scan"}

    rename(root)
    there = match(before, await scanned(root))
    assert there.renamed == {"vault.py": "safe.py"}
    assert (there.new, there.fixed) == (0, 0)
    assert set(there.reasons()) <= {"the file could not be analysed by ruff in the second scan"}


async def test_24_a_rule_that_does_not_run_any_more_fixes_nothing(root: Path) -> None:
    before = await scanned(root)
    narrow = ScanConfig.from_yaml("name: narrow\nengines:\n  ruff:\n    select: [S1, S3]\n")
    there = match(before, await scanned(root, narrow))
    assert counts(there) == (0, 0, FOUND - 1, 1)
    assert the(there, "S602").reason == "the rule did not run in the second scan"
    assert counts(match(await scanned(root, narrow), before)) == (0, 0, FOUND - 1, 1)


async def test_25_a_path_that_is_left_out_now_fixes_nothing(root: Path) -> None:
    write(root, {"sub/deep.py": HELPER})
    before = await scanned(root)
    after = await scanned(root, exclude=(root / "sub",))
    there = match(before, after)
    assert counts(there) == (0, 0, FOUND, 1)
    assert there.reasons() == {"the path was excluded from the second scan": 1}


@pytest.mark.parametrize("comment", ["# noqa: S307", "# noqa: S307  the text comes from our own table, see the manual"])
async def test_26_a_finding_that_is_silenced_is_suppressed_and_not_fixed(root: Path, comment: str) -> None:
    before = await scanned(root)
    replaced("eval(text)", f"eval(text)  {comment}")(root)
    after = await scanned(root)
    there, back = match(before, after), match(after, before)

    assert counts(there) == (0, 0, FOUND - 1, 0)
    assert (the(there, "S307").state, there.silenced) == ("suppressed", 1)
    assert (the(back, "S307").state, back.new, back.fixed) == ("reopened", 1, 0)


def test_28_ways_to_write_a_path_are_one_path() -> None:
    written = ("my%20dir/a.py", "my dir/a.py", "my dir\\a.py", "./my%20dir/a.py")
    scans = [imported(run([result("R1", "wrong", at(uri, 3))])) for uri in written]
    for other in scans[1:]:
        assert counts(match(scans[0], other)) == (0, 0, 1, 0)
        assert match(scans[0], other).moved == 0


async def test_29_without_git_and_with_uncommitted_changes_matching_is_the_same(root: Path) -> None:
    before = await scanned(root)
    committed(root)
    rename(root)
    after = await scanned(root)
    assert after.commit is not None
    assert counts(match(before, after)) == (0, 0, FOUND, 0)


async def test_30_what_was_fixed_and_is_back_is_reopened_also_after_more_scans(root: Path) -> None:
    weak = await scanned(root)
    replaced("eval(text)", "int(text)")(root)
    cured = await scanned(root)
    write(root, {"more.py": "x = 1\n"})
    later = await scanned(root)
    write(root, {"vault.py": "# moved down\n" + VAULT, "fresh.py": "eval(input())\n"})
    back = await scanned(root)

    first = match(weak, cured)
    second = match(cured, later, fixed_before=first.fixed_before)
    third = match(later, back, fixed_before=second.fixed_before)
    fourth = match(back, back, fixed_before=third.fixed_before)

    assert (first.fixed, second.new, second.fixed) == (1, 0, 0)
    assert (third.new, third.reopened) == (2, 1)
    assert the(third, "S307", "vault.py").state == "reopened"
    assert the(third, "S307", "vault.py").reason == "it was fixed in an earlier scan"
    assert the(third, "S307", "fresh.py").state == "new"
    assert (fourth.new, fourth.reopened, fourth.fixed_before) == (0, 0, ())


async def test_31_what_a_shallow_clone_does_not_know_of_renames_the_lines_tell(root: Path, tmp_path: Path) -> None:
    first = committed(root)
    before = await scanned(root)
    rename_edit_and_insert(root)
    second = committed(root)
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{root}", "shallow")
    shallow = (tmp_path / "shallow").resolve()

    assert await renamed_between(root, first, second) == {"vault.py": "safe.py"}
    assert await renamed_between(shallow, first, second) == {}
    after = await scanned(shallow)
    assert counts(match(before, after)) == (0, 0, FOUND, 0)


def test_32_thousands_of_equal_or_changed_lines_take_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    compare = similarity.Text.similarity

    def counted(one: similarity.Text, other: similarity.Text) -> float:
        nonlocal calls
        calls += 1
        return compare(one, other)

    monkeypatch.setattr(similarity.Text, "similarity", counted)
    prints = fingerprints([Sighting("ruff", "S602", "a.py", "x", line) for line in range(1, 3001)])
    many = [finding(line=line, fingerprint=value) for line, value in enumerate(prints, start=1)]
    assert counts(match(record(*many), record(*many[:-1]))) == (0, 1, 2999, 0)
    assert counts(match(record(*many[7:2000]), record(*many))) == (1007, 0, 1993, 0)
    assert calls == 0

    one = [finding(text=f"call(argument_{line})", line=line) for line in range(50_000)]
    other = [finding(text=f"call(argument_{line}, more)", line=line) for line in range(50_000)]
    matching = match(record(*one), record(*other))
    assert matching.persisting == 50_000
    assert calls <= similarity.MAX_COMPARED

    calls = 0
    same_line = [f.model_copy(update={"line": 1}) for f in one[:7_000]]
    matching = match(record(*same_line), record(*(f.model_copy(update={"line": 1}) for f in other[:7_000])))
    assert calls <= similarity.MAX_COMPARED
    assert matching.limits == ("For 7,000 findings no similar text was looked for, because too many changed at once.",)


def test_33_a_secret_that_was_exchanged_on_its_line_is_new_and_the_old_one_is_fixed() -> None:
    def secret(digest: str | None, line: int = 3) -> ScanRecord:
        return record(finding(text='password = "[redacted]"', line=line, secret_digest=digest))

    assert counts(match(secret("k1:aa"), secret("k1:aa", line=9))) == (0, 0, 1, 0)
    assert counts(match(secret("k1:aa"), secret("k1:bb"))) == (1, 1, 0, 0)
    # Digests of two keys, or one that is missing, say nothing.
    assert counts(match(secret("k1:aa"), secret("k2:bb"))) == (0, 0, 1, 0)
    assert counts(match(secret(None), secret("k1:bb"))) == (0, 0, 1, 0)
    rotated = match(secret("k1:aa"), secret("k1:bb"))
    again = match(secret("k1:bb"), secret("k1:cc"), fixed_before=rotated.fixed_before)
    assert again.reopened == 0
