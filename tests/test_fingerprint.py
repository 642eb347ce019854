"""The identity of findings: stable under harmless edits, different where it matters."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from sarif_samples import ruff_of

from intelligentscan.scanners.fingerprint import Sighting, fingerprints, normalised
from intelligentscan.scanners.sarif_reader import read_sarif

TEXT = st.text(alphabet="ab \t#=()", max_size=6)
SIGHTINGS = st.lists(
    st.builds(
        Sighting,
        engine=st.sampled_from(["bandit", "ruff"]),
        rule=st.sampled_from(["R1", "R2"]),
        path=st.sampled_from(["a.py", "b.py", None]),
        text=TEXT,
        line=st.integers(1, 6) | st.none(),
        column=st.integers(1, 3) | st.none(),
    ),
    max_size=12,
)


def test_white_space_and_line_ends_do_not_matter_and_comments_do():
    assert normalised("  x = f( 1 )\t\r\n") == normalised("x=f(1)")
    assert normalised("x = 1  # nosec") != normalised("x = 1")


def test_rule_path_text_and_occurrence_all_matter():
    base = Sighting("e", "R1", "a.py", "x", 1)
    others = [
        Sighting("e", "R2", "a.py", "x", 1),
        Sighting("e", "R1", "b.py", "x", 1),
        Sighting("e", "R1", "a.py", "y", 1),
        Sighting("e", "R1", "a.py", "x", 2),
    ]
    assert len(set(fingerprints([base, *others]))) == 5


def test_parts_cannot_run_into_each_other():
    pairs = [("R", "1a.py"), ("R1", "a.py"), ("R\n1:", "a.py")]
    assert len({fingerprints([Sighting("e", rule, path, "x")])[0] for rule, path in pairs}) == 3


def test_the_value_is_pinned_because_stored_baselines_depend_on_it():
    (value,) = fingerprints([Sighting("ruff", "S602", "src/a.py", "  call(x, shell=True)", 7, 3)])
    assert value == "8864ed849b2240f916dc305d9d60431362683d27f592da4353d25e91e0bb3cf0"


def test_two_findings_on_one_line_are_told_apart_by_their_column():
    one, two = fingerprints([Sighting("e", "R", "a.py", "f(f())", 1, 5), Sighting("e", "R", "a.py", "f(f())", 1, 2)])
    again = fingerprints([Sighting("e", "R", "a.py", "f(f())", 9, 2), Sighting("e", "R", "a.py", "f(f())", 9, 5)])
    assert [two, one] == again


def test_a_second_engine_does_not_change_the_first_ones_fingerprints():
    alone = fingerprints([Sighting("bandit", "R", "a.py", "x", 5)])
    both = fingerprints([Sighting("ruff", "R", "a.py", "x", 1), Sighting("bandit", "R", "a.py", "x", 5)])
    assert both[1] == alone[0]


@settings(deadline=None)
@given(SIGHTINGS, st.randoms(use_true_random=False))
def test_the_order_in_which_findings_come_changes_nothing(sightings, rng: random.Random):
    shuffled = list(sightings)
    rng.shuffle(shuffled)
    assert sorted(fingerprints(sightings)) == sorted(fingerprints(shuffled))


@settings(deadline=None)
@given(SIGHTINGS, st.integers(0, 50))
def test_lines_inserted_above_change_nothing(sightings, shift):
    numbered = [s for s in sightings if s.line is not None]
    moved = [Sighting(s.engine, s.rule, s.path, s.text, (s.line or 0) + shift, s.column) for s in numbered]
    assert fingerprints(numbered) == fingerprints(moved)


@settings(deadline=None)
@given(SIGHTINGS)
def test_within_one_engine_no_two_findings_share_a_fingerprint(sightings):
    prints = list(zip((s.engine for s in sightings), fingerprints(sightings), strict=True))
    assert len(set(prints)) == len(prints)


def test_real_findings_keep_their_fingerprints_when_the_file_is_edited_around_them(tmp_path):
    root = tmp_path.resolve()
    source = "import hashlib\n\ndef f(x):\n    hashlib.md5(x)\n    hashlib.md5(x)\n    assert x\n"

    def prints(text: str, *, newline: str = "\n") -> list[str]:
        (root / "a.py").write_bytes(text.replace("\n", newline).encode())
        return [finding.fingerprint for finding in read_sarif(ruff_of(root), root=root).findings]

    before = prints(source)
    assert len(set(before)) == 3
    assert prints("# one\n# two\n\n" + source) == before
    assert prints(source, newline="\r\n") == before
    body = "".join(f"    {line}\n" for line in source.splitlines()[2:])
    assert prints(f"import hashlib\n\nclass C:\n{body}") == before
    assert prints("\ufeff" + source) == before
