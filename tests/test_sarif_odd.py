"""SARIF that is broken, absurd or hostile: what can be told is told, one bad result costs only itself."""

import json
from typing import Any

import pytest
from sarif_samples import at, log, result, run

from intelligentscan.app import Services
from intelligentscan.domain.errors import SarifInvalid
from intelligentscan.scanners.redaction import redact_sarif
from intelligentscan.scanners.sarif_document import parse_sarif, sarif_pieces
from intelligentscan.scanners.sarif_reader import SarifReading, read_sarif


def read(data: Any, **more: Any) -> SarifReading:
    return read_sarif(parse_sarif(data), **more)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("version", ["2.0.0", "1.0.0", "2.1", "2.2.0", "3", ""])
def test_other_versions_are_refused_with_what_to_do(version):
    with pytest.raises(SarifInvalid, match=r"only SARIF 2\.1\.0 is read") as caught:
        parse_sarif({"version": version, "runs": []})
    assert caught.value.next == "export as SARIF 2.1.0."


@pytest.mark.parametrize("version", ["2.1.0", "2.1.0-rtm.5", "2.1.0-csd.2.beta.2019-04-03"])
def test_the_version_and_its_drafts_are_read(version):
    assert parse_sarif({"version": version, "runs": []})["runs"] == []


def test_a_schema_address_stands_for_a_missing_version():
    assert parse_sarif({"$schema": "https://example.org/sarif-schema-2.1.0.json", "runs": []})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_that_json_may_have_is_read(encoding):
    text = json.dumps(log(run([result("R1", "grüße 😀")])), ensure_ascii=False)
    assert read(text.encode(encoding)).findings[0].message == "grüße 😀"


def test_of_two_equal_keys_the_last_counts_as_everywhere():
    data = b'{"version": "2.1.0", "runs": [{"results": [], "results": [{"ruleId": "A", "ruleId": "B"}]}]}'
    assert [finding.rule for finding in read(data).findings] == ["B"]


@pytest.mark.parametrize("depth", [150, 190, 250, 500])
def test_deep_nesting_in_one_result_costs_at_most_its_raw_copy(depth):
    text = json.dumps(log(run([result("DEEP"), result("GOOD")])))
    text = text.replace('"ruleId": "DEEP"', f'"ruleId": "DEEP", "properties": {{"deep": {nested(depth)}}}')
    document = parse_sarif(text)
    assert [finding.rule for finding in read_sarif(document).findings] == ["DEEP", "GOOD"]
    written = b"".join(sarif_pieces(redact_sarif(document, as_text=True)))
    assert [finding.rule for finding in read(written).findings] == ["DEEP", "GOOD"]


def test_nesting_beyond_every_report_is_refused():
    with pytest.raises(SarifInvalid, match="nested too deeply"):
        parse_sarif(f'{{"version": "2.1.0", "runs": {nested(50_000)}}}')


def test_huge_texts_and_numbers_are_bounded_where_they_are_kept():
    huge = "x" * 5_000_000
    odd = result(huge, huge, at(f"{huge}.py", 10**400), level=huge, baselineState=huge, fingerprints={huge: huge})
    reading = read(log(run([odd, result("GOOD")], huge)))
    assert len(reading.findings) == 2
    assert all(len(finding.model_dump_json()) < 10_000 for finding in reading.findings)
    assert len(reading.scanner) <= 250


def test_thirty_runs_are_read_each_by_its_own_rules():
    runs = [run([result(None, "m", ruleIndex=0)], f"Tool {n}", [{"id": f"R{n}"}]) for n in range(30)]
    reading = read(log(*runs))
    assert reading.runs == 30
    assert [(f.engine, f.rule) for f in reading.findings] == [(f"tool-{n}", f"R{n}") for n in range(30)]
    assert len(reading.rules_run) == 30


def test_runs_of_one_tool_count_as_one_and_one_silent_run_makes_it_unproven():
    reading = read(log(run([result("A")], rules=[{"id": "A"}, {"id": "B"}]), run(None)))
    assert len(reading.findings) == 1
    assert not reading.executed
    assert any(warning.startswith("run 1") for warning in reading.warnings)


@pytest.mark.parametrize(
    ("results", "executed", "rules"),
    [
        ([], True, {"examplescan": ()}),
        (None, False, {}),
        ({}, False, {}),
        ("none", False, {}),
    ],
)
def test_only_a_list_of_results_means_that_the_tool_ran(results, executed, rules):
    reading = read(log(run(results)))
    assert (reading.executed, reading.rules_run) == (executed, rules)


def test_parts_in_other_files_are_named_and_never_opened():
    references = {"results": [{"location": {"uri": "file:///etc/passwd"}}], "artifacts": [{"location": {"uri": "x"}}]}
    reading = read(log(run([result()], externalPropertyFileReferences=references), inlineExternalProperties=[{}]))
    assert len(reading.findings) == 1
    assert not reading.executed
    assert "parts of it are in other files, which are not read: artifacts, results" in reading.warnings[0]
    assert "inlineExternalProperties" in reading.warnings[1]


def test_a_message_that_is_plain_text_is_read_and_redacted_as_one():
    document = log(run([{"ruleId": "B105", "message": "Possible hardcoded password: 'hunter2hunter2'"}], "Bandit"))
    assert "hunter2" not in b"".join(sarif_pieces(redact_sarif(document, as_text=True))).decode()
    (finding,) = read(document).findings
    assert finding.message.startswith("Possible hardcoded password: ")
    assert "hunter2" not in finding.message


def test_what_a_suppression_says_is_kept_bounded():
    said = [{"kind": "external", "status": None, "justification": "agreed with Ana " + "x" * 9_000}]
    (finding,) = read(log(run([result(suppressions=said)]))).findings
    assert finding.suppressed
    assert finding.suppression is not None
    assert (finding.suppression.kind, len(finding.suppression.justification or "")) == ("external", 400)


def test_every_bad_result_is_named_up_to_a_bound():
    results = [None if number % 2 else result("R1", None) for number in range(1_000)]
    warnings = read(log(run([result()]), run(results))).warnings
    assert warnings[0] == "run 1, result 0: has no message; the rule's description is used"
    assert warnings[1] == "run 1, result 1: not an object, skipped"
    assert warnings[100] == "and 900 more"


# Each is taken out of a result, or could be, in some part of it.
_TOKEN = {"insertedContent": {"text": "token = 'planted77'"}}
TELLING = [
    result("R1", "see https://ana:planted77@example.org/x"),
    result("R1", "m", at("a.py", 1, snippet={"text": "password = 'planted77'"})),
    result("R1", "m", at("a.py", 1, snippet={"text": "x = 1", "rendered": {"text": "planted77"}})),
    result("R1", "m", at("a.py", 1, snippet={"binary": "cGxhbnRlZDc3"})),
    result("R1", "m", at("")),
    result("R1", "m", fixes=[{"artifactChanges": [{"replacements": [_TOKEN]}]}]),
    result("R1", "m", relatedLocations=[at("a.py", 1, snippet={"text": "secret = 'planted77'"})]),
    result("R1", "m", attachments=[{"contents": {"text": "pwd: 'planted77'"}}]),
    result("R1", "m", webRequest={"headers": {"Authorization": "planted77", "X-Api-Key": "planted77"}}),
    result("R1", "m", webRequest={"headers": {"Cookie": "planted77"}}),
    result("R1", "m", webResponse={"headers": {"Set-Cookie": "planted77"}}),
    result("R1", "m", properties={"environmentVariables": {"HOME": "planted77"}}),
    result("R1", "m", partialFingerprints={"email": "planted77", "a": "b@example.org"}),
    result("R1", "m", at("/home/ana/project/a.py", 1)),
    result("R1", "in file:///home/ana/project/a.py", at("a.py", 1, snippet={"text": "api_key = 'planted77'"})),
    result("B105", "Possible hardcoded password: 'planted77'", at("a.py", 1)),
    result("R1", "a\ud800b"),
    result("R1", "m", properties={"deep": json.loads(nested(199)), "score": float("inf")}),
    result("R1", "plain", at("a.py", 1, snippet={"text": "for name in names:"})),
    result("R1", f"uses AKIA{'Q7' * 8} and ghp_{'a1B2' * 9} and xoxb-{'12345678' * 3}-{'aB3' * 8}"),
    result("R1", f"-----BEGIN PRIVATE KEY-----\n{'MIIE' * 30}\n-----END PRIVATE KEY-----"),
    result("R1", f"Bearer eyJ{'hbGci' * 4}.eyJ{'zdWIi' * 4}.{'c2lnbmF0' * 4}"),
    result("R1", "m", properties={"note": f"sk_live_{'4e' * 12}"}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(TELLING)))
@pytest.mark.parametrize("rooted", [False, True])
def test_a_result_written_without_a_copy_is_what_its_redacted_copy_would_be(number, rooted, tmp_path):
    root = tmp_path / 'odd "name' if rooted else None
    document = log(run([TELLING[number]], "Bandit"))
    if root is not None:
        root.mkdir()
        document = json.loads(json.dumps(document).replace("/home/ana/project", json.dumps(str(root))[1:-1]))
    copied = json.dumps(redact_sarif(document, root=root), sort_keys=True)
    written = json.dumps(
        json.loads(b"".join(sarif_pieces(redact_sarif(document, root=root, as_text=True)))), sort_keys=True
    )
    assert written.replace("NaN", "null") == copied
    assert "planted77" not in written


def test_a_consumed_document_gives_the_same_and_is_empty_after():
    document = log(run([result(f"R{n}", "m", at("a.py", n + 1)) for n in range(5)]))
    plain = redact_sarif(document)
    assert redact_sarif(document, consume=True) == plain
    assert document["runs"][0]["results"] == [None] * 5


async def test_a_broken_file_is_refused_through_the_service_and_leaves_nothing(services: Services, project, look):
    await services.create_store()
    (project / "x.sarif").write_text('{"version": "2.1.0", "runs": [')
    before = look()
    with pytest.raises(SarifInvalid, match="is not JSON"):
        await services.scans.log("new", sarif_path=str(project / "x.sarif"), create_missing=True)
    assert look() == before
