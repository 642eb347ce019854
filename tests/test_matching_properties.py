"""Properties of matching on real files with real findings, edited at random.

What the engine itself stops or starts to report after an edit is known here, because each edit tells where every line
went; only that may be new or fixed.
"""

import ast
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sarif_samples import ruff_of
from scan_world import counts, write

from intelligentscan.scanners.finding_context import placed
from intelligentscan.scanners.matching import match
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.scan_record import ScanRecord
from intelligentscan.scanners.source_lines import SourceLines

REPOSITORY = Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("tests", "tools", "intelligentscan")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
    if path.name != "__init__.py" and 1_500 < path.stat().st_size < 25_000
]
Lines = list[str]
Where = dict[tuple[str, int], tuple[str, int]]
"""Where each line of the first version is in the second: path and line by path and line."""

quick = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.reuse, Phase.generate],  # a smaller random seed is no simpler example
)
chosen = st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3, unique=True)
randoms = st.integers(0, 2**32).map(random.Random)


def scan(root: Path) -> ScanRecord:
    reading = read_sarif(ruff_of(root), root=root, engine="ruff")
    around = placed(reading.findings, SourceLines(root))
    return ScanRecord(
        findings=around.findings,
        engines=reading.versions,
        rules_run={"ruff": ()},
        files=frozenset(path.relative_to(root).as_posix() for path in root.rglob("*.py")),
        failed_files={"ruff": frozenset(reading.failed_files)} if reading.failed_files else {},
        sketches=around.sketches,
    )


def inserted(name: str, lines: Lines, rng: random.Random) -> tuple[Lines, Where]:
    """Insert comments, and now and then a block that looks like its neighbours, at random places."""
    result: Lines = []
    where: Where = {}
    for number, line in enumerate(lines, start=1):
        if rng.random() < 0.1 and not (result and result[-1].endswith("\\")):
            result += [f"# inserted {rng.randrange(5)}"] * rng.randrange(1, 4)
        result.append(line)
        where[name, number] = (name, len(result))
    return result, where


def reordered(name: str, lines: Lines, rng: random.Random) -> tuple[Lines, Where]:
    """Put the functions and classes of a module in another order, each with what stands above it."""
    nodes = [node for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    first = [min([node.lineno, *(d.lineno for d in node.decorator_list)]) for node in nodes]
    blocks = [range(start, (node.end_lineno or start) + 1) for start, node in zip(first, nodes, strict=True)]
    order = list(range(len(blocks)))
    rng.shuffle(order)
    result: Lines = []
    where: Where = {}
    following = iter(order)
    number = 1
    starts = {block.start: block for block in blocks}
    while number <= len(lines):
        block = blocks[next(following)] if number in starts else range(number, number + 1)
        for old in block:
            result.append(lines[old - 1])
            where[name, old] = (name, len(result))
        number += len(starts[number]) if number in starts else 1
    return result, where


def renamed(name: str, lines: Lines, rng: random.Random) -> tuple[Lines, Where]:
    new = rng.choice([f"moved/{name}", f"other_{name}", f"a/b/{rng.randrange(9)}_{name}"])
    return lines, {(name, number): (new, number) for number in range(1, len(lines) + 1)}


Edit = Callable[[str, Lines, random.Random], tuple[Lines, Where]]


def both_scans(
    folder: Path, paths: Sequence[Path], edits: Sequence[Edit], rng: random.Random
) -> tuple[ScanRecord, ScanRecord, Counter[str], Counter[str]]:
    """Return the scans before and after, and of each the rules of findings that only this one has."""
    before, after = folder / "before", folder / "after"
    where: Where = {}
    for number, path in enumerate(paths):
        name, lines = f"{number}_{path.name}", path.read_text().split("\n")
        write(before, {name: "\n".join(lines)})
        here: Where = {(name, n): (name, n) for n in range(1, len(lines) + 1)}
        current = name
        for edit in edits:
            lines, went = edit(current, lines, rng)
            here = {start: went.get(at, at) for start, at in here.items()}
            current = next(iter(went.values()))[0]
        where |= here
        write(after, {current: "\n".join(lines)})
    one, other = scan(before), scan(after)
    went_to = Counter((f.rule, *where[f.path or "", f.line or 0]) for f in one.findings)
    found = Counter((f.rule, f.path, f.line) for f in other.findings)
    lost, added = (went_to - found), (found - went_to)
    return one, other, Counter(rule for rule, *_ in lost.elements()), Counter(rule for rule, *_ in added.elements())


def check(folder: Path, paths: Sequence[Path], edits: Sequence[Edit], rng: random.Random) -> None:
    before, after, lost, added = both_scans(folder, paths, edits, rng)
    # The engine reports what it reports; of what is in both versions nothing may be new or fixed.
    both = min(lost.total(), added.total())
    there, back = match(before, after), match(after, before)
    assert lost.total() - both <= there.fixed <= lost.total()
    assert there.fixed - there.new == lost.total() - added.total()
    assert counts(back) == (there.fixed, there.new, there.persisting, there.not_comparable)
    assert there.not_comparable == 0


@quick
@given(chosen, randoms)
def test_inserting_lines_makes_nothing_new_and_nothing_fixed(tmp_path_factory, paths, rng):
    check(tmp_path_factory.mktemp("p"), paths, [inserted], rng)


@quick
@given(chosen, randoms)
def test_renaming_files_makes_nothing_new_and_nothing_fixed(tmp_path_factory, paths, rng):
    check(tmp_path_factory.mktemp("p"), paths, [renamed], rng)


@quick
@given(chosen, randoms)
def test_reordering_functions_makes_nothing_new_and_nothing_fixed(tmp_path_factory, paths, rng):
    check(tmp_path_factory.mktemp("p"), paths, [reordered], rng)


@quick
@given(chosen, randoms)
def test_all_of_it_at_once_makes_nothing_new_and_nothing_fixed(tmp_path_factory, paths, rng):
    check(tmp_path_factory.mktemp("p"), paths, [reordered, inserted, renamed], rng)


@quick
@given(chosen, randoms)
def test_an_identical_rescan_changes_nothing(tmp_path_factory, paths, rng):
    before, after, lost, added = both_scans(tmp_path_factory.mktemp("p"), paths, [], rng)
    assert not lost
    assert not added
    assert before.findings == after.findings
    assert counts(match(before, after)) == (0, 0, len(before.findings), 0)


def mixed(folder: Path, paths: Sequence[Path], rng: random.Random) -> tuple[ScanRecord, ScanRecord]:
    """Return scans of two versions that differ by deleted, doubled and exchanged lines too."""

    def cut(name: str, lines: Lines, rng: random.Random) -> tuple[Lines, Where]:
        kept: Lines = []
        for line in lines:
            sentence = line.strip().startswith(("assert ", "subprocess", "return "))
            kept += [line] * (rng.choice([0, 1, 2]) if sentence and rng.random() < 0.3 else 1)
        return kept, {(name, n): (name, n) for n in range(1, len(lines) + 1)}

    edits = [inserted, cut, *([renamed] if rng.random() < 0.5 else [])]
    before, after, _, _ = both_scans(folder, paths, edits, rng)
    return before, after


@quick
@given(chosen, randoms)
def test_what_is_new_one_way_is_fixed_the_other_way_and_the_totals_add_up(tmp_path_factory, paths, rng):
    before, after = mixed(tmp_path_factory.mktemp("p"), paths, rng)
    whole = replace(after, failed_files={}, partial=False)
    there, back = match(before, whole), match(whole, before)
    assert counts(back) == (there.fixed, there.new, there.persisting, there.not_comparable)
    assert there.moved == back.moved
    assert there.new - there.fixed == len(after.findings) - len(before.findings)


@quick
@given(chosen, randoms)
def test_findings_in_another_order_get_the_same_partners(tmp_path_factory, paths, rng):
    before, after = mixed(tmp_path_factory.mktemp("p"), paths, rng)

    def shuffled(record: ScanRecord) -> ScanRecord:
        findings = list(record.findings)
        rng.shuffle(findings)
        return replace(record, findings=tuple(findings))

    def told(record: ScanRecord, other: ScanRecord) -> list[str]:
        matching = match(record, other)
        pairs = [(c.state, c.finding.location, c.finding.rule, c.method, c.previous) for c in matching.current]
        return sorted(map(repr, [*pairs, *((c.state, c.finding, c.reason) for c in matching.gone)]))

    assert told(before, after) == told(shuffled(before), shuffled(after))
