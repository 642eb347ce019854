"""GitHub's line hash: the values that its upload action gives, and none where one would tell of a password.

The expected values are those that the action's own tests publish.
"""

from pathlib import Path

import pytest
from sarif_samples import at, log, result, run

from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.line_hash import line_hashes, with_line_hashes
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.secret_text import Secrets
from intelligentscan.scanners.source_lines import SourceLines

GREETINGS = [
    "e9496ae3ebfced30:1", "fb7c023a8b9ccb3f:1", "ce8ba1a563dcdaca:1", "e20e36e16fcb0cc8:1", "b3edc88f2938467e:1",
    "c8e28b0b4002a3a0:1", "c129715d7a2bc9a3:1",
]  # fmt: skip
UNENDED = [
    "8b7cf3e952e7aeb2:1", "b1ae1287ec4718d9:1", "bff680108adb0fcc:1", "c6805c5e1288b612:1", "b86d3392aea1be30:1",
    "e6ceba753e1a442:1",
]  # fmt: skip
REPEATED = [
    *(f"a7f2ff13bc495cf2:{n}" for n in range(1, 7)),
    "a7f2ff1481e87703:1", "a9cf91f7bbf1862b:1", "55ec222b86bcae53:1", "cc97dc7b1d7d8f7b:1", "c129715d7a2bc9a3:1",
]  # fmt: skip


def finding(line: int | None, **more: object) -> Finding:
    facts = {
        "rule": "R1", "engine": "x", "severity": "low", "severity_source": "test", "message": "m", "path": "a.py",
        "line": line, "fingerprint": "f",
    }  # fmt: skip
    return Finding(**{**facts, **more})


@pytest.mark.parametrize(
    ("text", "hashes"),
    [
        ("", ["c129715d7a2bc9a3:1"]),
        (
            " a\nb\n  \t\tc\n d",
            ["271789c17abda88f:1", "54703d4cd895b18:1", "180aee12dab6264:1", "a23a3dc5e078b07b:1"],
        ),
        (" hello; \t\nworld!!!\n\n\n  \t\tGreetings\n End", UNENDED),
        (" hello; \t\nworld!!!\n\n\n  \t\tGreetings\n End\n", GREETINGS),
        (" hello; \t\nworld!!!\r\r\r  \t\tGreetings\r End\r", GREETINGS),
        (" hello; \t\r\nworld!!!\r\n\r\n\r\n  \t\tGreetings\r\n End\r\n", GREETINGS),
        (" hello; \t\nworld!!!\r\n\n\r  \t\tGreetings\r End\r\n", GREETINGS),
        ("Lorem ipsum dolor sit amet.\n" * 10, REPEATED),
    ],
    ids=["empty", "short", "no last line end", "LF", "CR", "CRLF", "mixed", "repeated"],
)
def test_the_published_values_are_reproduced(text, hashes):
    assert line_hashes(text, range(1, 100)) == dict(enumerate(hashes, start=1))


@pytest.mark.parametrize("line", [1, 3, 6, 7, 11])
def test_one_line_asked_for_alone_has_the_same_hash(line):
    assert line_hashes("Lorem ipsum dolor sit amet.\n" * 10, [line, 0, 99]) == {line: REPEATED[line - 1]}


def test_characters_beyond_the_basic_plane_count_as_two():
    def rolled(units: list[int]) -> str:
        value = 0
        for unit in units:
            value = (value * 37 + unit) % 2**64
        return f"{value:x}:1"

    assert line_hashes("\U0001f600x", [1]) == {1: rolled([0xD83D, 0xDE00, ord("x"), 0xFFFF, *[0] * 96])}


def test_a_byte_order_mark_counts_as_a_character_and_line_ends_do_not_matter(tmp_path: Path):
    (tmp_path / "a.py").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "b.py").write_bytes(b"one\ntwo\n")
    findings = [finding(line, path=path) for path in ("a.py", "b.py") for line in (1, 2)]
    first, second, third, fourth = (f.line_hash for f in with_line_hashes(findings, SourceLines(tmp_path), Secrets()))
    assert first == line_hashes("\ufeffone\ntwo\n", [1])[1] != third
    assert second == fourth == line_hashes("one\ntwo\n", [2])[2]


def test_what_has_no_line_or_no_readable_file_has_no_hash(tmp_path: Path):
    (tmp_path / "a.py").write_text("one\n")
    findings = [finding(None), finding(9), finding(1, path="missing.py"), finding(1, path=None), finding(1)]
    hashed = with_line_hashes(findings, SourceLines(tmp_path), Secrets())
    assert [f.line_hash is not None for f in hashed] == [False, False, False, False, True]


def test_lines_whose_reach_holds_something_redacted_have_no_hash(tmp_path: Path):
    far = "".join(f"value_{number} = compute(value_{number}, {number})\n" for number in range(9))
    (tmp_path / "a.py").write_text(f"{far}login(\n    user,\n    'planted-value-77')\ntoken = 'abcdef'\n{far}")
    hashed = with_line_hashes(
        [finding(line) for line in range(1, 22)], SourceLines(tmp_path), Secrets(["planted-value-77"])
    )
    without = [f.line for f in hashed if f.line_hash is None]
    # Three lines ahead reach into them by 100 characters; three behind may belong to the same expression.
    assert without == list(range(7, 17))


def test_a_finding_about_a_password_has_no_hash(tmp_path: Path):
    (tmp_path / "a.py").write_text("x = 'abc'\n")
    document = log(run([result("B105", "Possible hardcoded password: 'abc'", at("a.py", 1))], "Bandit"))
    reading = read_sarif(document, root=tmp_path)
    (hashed,) = with_line_hashes(reading.findings, SourceLines(tmp_path), reading.secrets)
    assert hashed.line_hash is None
