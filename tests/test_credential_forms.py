"""Credentials are taken out wherever their form gives them away, and ordinary text stays as it is."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from planted_secrets import Planted
from sarif_samples import at, log, result, run

from intelligentscan._credential_forms import (
    REDACTED,
    is_secret_name,
    may_hold_credentials,
    opens_private_key,
    without_credentials,
    without_key_lines,
)
from intelligentscan._log import LogFormatter
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.redaction import redact_sarif
from intelligentscan.scanners.sarif_document import sarif_pieces
from intelligentscan.scanners.sarif_reader import read_sarif

SEEDS = range(5)
SENTENCES = [(seed, number) for seed in SEEDS for number in range(13)]
ORDINARY = (
    "password_hash = hashlib.md5(pw)",
    "token = self.tokens.value",
    "password = user_input2",
    "max_tokens: 4000",
    "tokenizer: bert-base-uncased-v2",
    'Possible hardcoded password assigned to: "API_TOKEN_2"',
    "secret-scanning-rule-42: message",
    "Use of weak MD5 hash for security. Consider usedforsecurity=False",
    "https://docs.example.org/en/latest/secrets.html#tokens and ana@example.org, ssh://git@host/x",
    "a risk-based, disk-bound task-list",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "The public key is -----BEGIN PUBLIC KEY-----",
    "",
)
PLACES = ("message", "snippet", "context", "property", "flow", "fix", "uri", "rule", "print", "note")


def _result(place: str, text: str) -> dict[str, Any]:
    """Return a result that is not about a secret and holds the text in one place."""
    made = result(text if place == "rule" else "R1", text if place == "message" else "m", at("a.py", 1))
    physical = made["locations"][0]["physicalLocation"]
    match place:
        case "snippet":
            physical["region"]["snippet"] = {"text": text}
        case "context":
            physical["contextRegion"] = {"snippet": {"text": f"a()\n{text}\nb()"}}
        case "property":
            made["properties"] = {"a": [{"b": text}]}
        case "flow":
            made["codeFlows"] = [{"message": {"text": text}}]
        case "fix":
            made["fixes"] = [{"description": {"text": text}}]
        case "uri":
            physical["artifactLocation"]["uri"] = f"x/{text}"
        case "print":
            made["partialFingerprints"] = {"a/v1": text}
        case "note":
            made["suppressions"] = [{"kind": "external", "justification": text}]
    return made


class TestForms:
    @pytest.mark.parametrize(("seed", "number"), SENTENCES)
    def test_every_kind_is_recognised_in_a_sentence(self, seed: int, number: int) -> None:
        planted = Planted(seed)
        said = planted.sentences[number]
        for text in (said, f"a\n{said}\nb", f"'{said}'", " ".join([said] * 3)):
            shown = without_credentials(text)
            assert planted.found_in([("text", shown.encode())]) == []
            assert REDACTED in shown
            assert without_credentials(shown) == shown
            assert planted.found_in([("text", untrusted(text, 40).encode())]) == []

    @pytest.mark.parametrize("text", ORDINARY)
    def test_ordinary_text_stays_as_it_is(self, text: str) -> None:
        assert without_credentials(text) == without_key_lines(text) == text

    @pytest.mark.parametrize("place", PLACES)
    def test_results_written_down_at_once_are_looked_at_as_closely_as_copied_ones(self, place: str) -> None:
        for seed in SEEDS:
            planted = Planted(seed)
            for text in (*planted.sentences, f'api_key = "{planted["api_key"]}"', *ORDINARY):
                document = log(run([_result(place, text)]))
                copied = redact_sarif(document)
                written = b"".join(sarif_pieces(redact_sarif(document, as_text=True)))
                assert json.loads(written) == json.loads(json.dumps(copied))
                assert planted.found_in([("document", written)]) == []

    def test_a_part_of_a_private_key_is_recognised_in_source_without_its_armour(self) -> None:
        planted = Planted(3)
        lines = planted.values["pem"]
        for first, last in ((0, 2), (1, 4), (2, 5), (3, 5)):
            text = "\n".join(["call(a)", *lines[first:last], "x"])
            shown = without_key_lines(text)
            assert planted.found_in([("text", shown.encode())]) == []
            assert shown.startswith("call(a)\n")
        assert opens_private_key([*planted.private_key.splitlines()[:3]])
        assert not opens_private_key([*planted.private_key.splitlines(), "after"])

    @pytest.mark.parametrize(
        ("name", "secret"),
        [
            ("api_key", True), ("db.password", True), ("GITHUB_TOKEN", True), ("client_secret", True), ("token", True),
            ("max_tokens", False), ("tokenizer", False), ("key", False), ("learning_rate", False), ("monkey", False),
        ],
    )  # fmt: skip
    def test_names_that_say_what_their_values_are(self, name: str, secret: bool) -> None:
        assert is_secret_name(name) is secret

    def test_a_log_repeats_no_credential_of_a_traceback_and_moves_no_terminal(self) -> None:
        planted = Planted(2)
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
        logger = logging.getLogger("intelligentscan.tests.log")
        logger.propagate = False
        logger.addHandler(handler)
        try:
            raise ValueError("\n".join(planted.sentences) + "\x1b[2J")
        except ValueError:
            logger.exception("failed with %s", planted.sentences[3])
        assert "Traceback" in stream.getvalue()
        assert "\x1b" not in stream.getvalue()
        assert planted.found_in([("log", stream.getvalue().encode())]) == []

    def test_a_finding_inside_a_private_key_shows_nothing_of_it(self, tmp_path: Path) -> None:
        planted = Planted(4)
        (tmp_path / "a.py").write_text(f'X = """{planted.private_key}"""\n')
        reading = read_sarif(log(run([result("R1", "m", at("a.py", line)) for line in range(1, 8)])), root=tmp_path)
        shown = "".join(finding.model_dump_json() for finding in reading.findings)
        assert planted.found_in([("findings", shown.encode())]) == []

    def test_a_clean_result_needs_no_second_look(self) -> None:
        text = json.dumps(result("R1", "a message about keys and tokens", at("a.py", 1))).encode()
        assert not may_hold_credentials(text, text.lower())
