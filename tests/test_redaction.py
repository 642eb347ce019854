"""Passwords that scanners repeat never leave the scanning room."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sarif_samples import at, bandit_of, log, result, ruff_of, run

from intelligentscan._credential_forms import without_credentials
from intelligentscan.scanners.redaction import redact_findings, redact_sarif
from intelligentscan.scanners.reported_secrets import collect_secrets
from intelligentscan.scanners.sarif_document import parse_sarif, sarif_pieces
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.secret_text import (
    REDACTED,
    Secrets,
    string_literals,
    without_literals,
    without_named_literals,
    without_quoted,
)

SOURCE = '''\
import subprocess
TOKEN = "tok-4711-live"; subprocess.call("ls " + name, shell=True)
password = "hunter2"
subprocess.call("cat " + name, shell=True)  # not hunter2 again
def login(user, password="it's-a-s3cret"):
    return connect(host="db.internal", password="Sw0rdfish!")
secret = """first-line-77
second-line-88
"""
if password == "open-sesame-1984":
    eval(name)
harmless = "another-hunter-here"
'''
VALUES = (
    "tok-4711-live",
    "hunter2",
    "it's-a-s3cret",
    "Sw0rdfish!",
    "first-line-77",
    "second-line-88",
    "open-sesame-1984",
)


@pytest.fixture
def project(tmp_path) -> Path:
    project = tmp_path.resolve() / "project"
    project.mkdir()
    (project / "a.py").write_text(SOURCE)
    return project


class TestRealEngines:
    @pytest.mark.parametrize("scanner", [bandit_of, ruff_of])
    @pytest.mark.parametrize("with_root", [True, False])
    def test_no_password_is_left_in_what_is_read_or_stored(self, project, scanner, with_root):
        document = scanner(project)
        untouched = copy.deepcopy(document)
        root = project if with_root else None
        reading = read_sarif(document, root=root)
        texts = [finding.model_dump_json() for finding in reading.findings]
        texts.append(json.dumps(redact_sarif(document, root=root)["runs"][0]["results"]))
        for value in VALUES:
            assert not [text for text in texts if value in text], value
        assert len(reading.findings) >= 7
        assert document == untouched

    def test_bandits_own_document_did_hold_the_passwords(self, project):
        text = json.dumps(bandit_of(project))
        assert all(json.dumps(value)[1:-1] in text for value in VALUES)

    def test_a_neighbours_context_is_redacted_and_still_shows_the_code(self, project):
        runs = redact_sarif(bandit_of(project), root=project)["runs"]
        (neighbour,) = [
            r["locations"][0]["physicalLocation"]
            for r in runs[0]["results"]
            if r["ruleId"] == "B602" and r["locations"][0]["physicalLocation"]["region"]["startLine"] == 4
        ]
        assert f'password = "{REDACTED}"' in neighbour["contextRegion"]["snippet"]["text"]
        assert f"not {REDACTED} again" in neighbour["region"]["snippet"]["text"]

    def test_the_machines_path_is_taken_out_everywhere(self, project):
        document = bandit_of(project)
        document["runs"][0]["invocations"][0]["commandLine"] = f"bandit -r {project}"
        document["runs"][0]["originalUriBaseIds"] = {"SRCROOT": {"uri": f"file://{project}/"}}
        text = json.dumps(redact_sarif(document, root=project))
        assert str(project) in json.dumps(document)
        assert str(project) not in text
        assert '"uri": "a.py"' in text

    def test_one_engine_takes_out_what_another_one_named(self, project):
        (project / "a.py").write_text(
            'import subprocess\nsubprocess.call("x" + name, shell=True)  # see open-sesame-1984\n'
        )
        ruff = read_sarif(ruff_of(project), root=project)
        (shown,) = [finding for finding in ruff.findings if finding.rule == "S602"]
        assert "open-sesame-1984" in shown.snippet
        (safe,) = [f for f in redact_findings(ruff.findings, Secrets(["open-sesame-1984"])) if f.rule == "S602"]
        assert "open-sesame-1984" not in safe.model_dump_json()
        assert safe.fingerprint != shown.fingerprint
        assert redact_findings(ruff.findings, Secrets(["not there 1"])) == ruff.findings

    def test_ruffs_message_keeps_the_name_of_the_variable(self, project):
        messages = [f.message for f in read_sarif(ruff_of(project), root=project).findings if f.rule == "S105"]
        assert 'Possible hardcoded password assigned to: "password"' in messages


class TestFingerprints:
    def test_a_password_finding_has_no_hash_that_a_guess_could_confirm(self, tmp_path):
        seen = set()
        for value in ("hunter2-one", "hunter2-two"):
            folder = tmp_path.resolve() / value
            folder.mkdir()
            (folder / "a.py").write_text(f'password = "{value}"\n')
            for document in (bandit_of(folder), ruff_of(folder)):
                (finding,) = read_sarif(document, root=folder).findings
                seen.add((finding.rule, finding.fingerprint))
        assert len(seen) == 2

    def test_producer_hashes_of_password_findings_are_dropped(self):
        prints = {"primaryLocationLineHash": "39fa:1"}
        document = log(run([result("hardcoded-password", "m", at("a.py", 1), partialFingerprints=prints)]))
        assert read_sarif(document).findings[0].producer_fingerprints == {}
        assert "39fa" not in json.dumps(redact_sarif(document))


class TestOtherProducers:
    def test_a_secret_scanners_unquoted_match_is_taken_out_with_the_mail_of_the_author(self):
        key = "AKIAIOSFODNN7EXAMPLE"
        prints = {"commitSha": "0a1b2c", "author": "Ana", "email": "ana@example.org", "date": "2026-01-01"}
        where = at("deploy.sh", 3, snippet={"text": f"export AWS_KEY={key}"})
        document = log(
            run(
                [
                    result("aws-access-token", f"found {key} in deploy.sh", where, partialFingerprints=prints),
                    result("jwt", "found", at("b.sh", 1, snippet={"text": "eyJhbGciOiJIUzI1NiJ9.e30.abc123def456"})),
                ],
                "gitleaks",
            )
        )
        text = json.dumps(redact_sarif(document)) + "".join(f.model_dump_json() for f in read_sarif(document).findings)
        for part in (key, "eyJhbGci", "ana@example.org", "Ana"):
            assert part not in text
        assert read_sarif(document).findings[0].snippet == f"export AWS_KEY={REDACTED}"

    @pytest.mark.parametrize(
        "rule",
        [
            {"id": "X1", "properties": {"tags": ["CWE-798: Use of Hard-coded Credentials"]}},
            {"id": "X1", "relationships": [{"target": {"id": "259", "toolComponent": {"name": "CWE"}}}]},
            {"id": "X1", "name": "HardcodedCredential"},
            {"id": "generic.secrets.detected"},
        ],
    )
    def test_rules_about_secrets_are_recognised_by_id_name_tag_or_cwe(self, rule):
        where = at("a.py", 1, snippet={"text": 'connect("a-very-long-Value")'})
        document = log(run([result(rule["id"], "key 'a-very-long-Value' found", where)], rules=[rule]))
        finding = read_sarif(document).findings[0]
        assert finding.message == f"key '{REDACTED}' found"
        assert finding.snippet == f'connect("{REDACTED}")'

    def test_every_place_of_a_document_where_a_value_shows_is_redacted(self):
        value = "s3cr3t-Value"
        flow = [
            {"threadFlows": [{"locations": [{"location": {**at("a.py", 2), "message": {"text": f"from {value}"}}}]}]}
        ]
        noisy = result(
            "R2",
            f"message with {value}",
            at("b.py", 1, snippet={"text": f"call({value})", "rendered": {"text": value}}),
            codeFlows=flow,
            fixes=[{"artifactChanges": [{"replacements": [{"insertedContent": {"text": value}}]}]}],
            properties={"note": value, "nested": [{"deep": value}]},
            webRequest={"headers": {"Authorization": "Bearer abc", "Accept": value}},
        )
        secret = result("hardcoded-password", f"'{value}'", at("a.py", 1, snippet={"text": f'password = "{value}"'}))
        whole = run(
            [noisy, secret],
            artifacts=[
                {"location": {"uri": "a.py"}, "contents": {"text": f"x\ny = '{value}'\n", "binary": "c2VjcmV0"}}
            ],
            invocations=[
                {"executionSuccessful": True, "environmentVariables": {"HOME": "/home/ana"}, "arguments": [value]}
            ],
            properties={"about": value},
        )
        text = json.dumps(redact_sarif(log(whole)))
        for part in (value, "Bearer abc", "c2VjcmV0", "/home/ana"):
            assert part not in text

    def test_arguments_and_properties_of_password_findings_are_dropped(self):
        message = {"id": "default", "arguments": ["hunter2"]}
        raw = {"Raw": "hunter2", "issue_severity": "LOW", "verified": True}
        document = log(run([{"ruleId": "leaked-secret", "message": message, "properties": raw}]))
        (safe,) = redact_sarif(document)["runs"][0]["results"]
        assert safe["message"] == {"id": "default", "arguments": [REDACTED]}
        assert safe["properties"] == {"issue_severity": "LOW", "verified": True}

    def test_passwords_in_urls_are_taken_out_of_any_text(self):
        document = log(run([result("R1", "uses postgres://app:pw@db/x and ssh://git@host/y")]))
        document["runs"][0]["versionControlProvenance"] = [{"repositoryUri": "https://u:tok@example.org/r.git"}]
        text = json.dumps(redact_sarif(document))
        assert "app:pw" not in text
        assert "u:tok" not in text
        assert "ssh://git@host/y" in text
        assert "app:pw" not in read_sarif(document).findings[0].message

    def test_paths_rules_and_the_scanners_own_texts_stay_readable(self):
        rules = [{"id": "R1", "shortDescription": {"text": "the word password in a rule"}}]
        secret = result("hardcoded-password", "m", at("password/user.py", 1, snippet={"text": 'password = "user"'}))
        other = result("R1", "a user chose a password", at("password/user.py", 2, snippet={"text": 'x = "user"'}))
        safe = redact_sarif(log(run([secret, other], rules=rules)))["runs"][0]
        assert safe["tool"]["driver"]["rules"] == rules
        first, second = safe["results"]
        assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "password/user.py"
        assert second["message"]["text"] == "a user chose a password"
        assert second["locations"][0]["physicalLocation"]["region"]["snippet"]["text"] == f'x = "{REDACTED}"'

    def test_absurd_nesting_is_cut_off_and_costs_nothing_else(self):
        deep: list[object] = []
        for _ in range(400):
            deep = [deep]
        for as_text in (False, True):
            safe = redact_sarif(log(run([result(properties={"deep": deep}), result("R2")])), as_text=as_text)
            text = b"".join(sarif_pieces(safe)).decode()
            assert "[nested too deeply]" in text
            assert [found.rule for found in read_sarif(parse_sarif(text)).findings] == ["R1", "R2"]

    def test_a_long_unfinished_quote_shows_nothing_of_its_value(self):
        value = "k" + "0123456789" * 500
        document = log(run([result("B105", f"Possible hardcoded password: '{value}'")], "Bandit"))
        assert "0123" not in read_sarif(document).findings[0].message
        assert "0123" not in collect_secrets(document).redact(f"again {value}")


class TestText:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ('password = "x"', 'password = "[redacted]"'),
            ('d["api_key"]="x"', 'd["api_key"]="[redacted]"'),
            ('{"token": "x", "user": "y"}', '{"token": "[redacted]", "user": "y"}'),
            ('f(host="h", db_password=b"x")', 'f(host="h", db_password=b"[redacted]")'),
            ("SESSION_KEY: Final[str] = 'x'", "SESSION_KEY: Final[str] = '[redacted]'"),
            ("# don't set password = 'x'", "# don't set password = '[redacted]'"),
            ('if password == "x":', 'if password == "[redacted]":'),
            ('getpass("Password: ") + "x"', 'getpass("Password: ") + "x"'),
            ('password = os.environ["PASSWORD"]', 'password = os.environ["PASSWORD"]'),
            ('title = "password"', 'title = "password"'),
            ('password = "never closed', 'password = "[redacted]'),
        ],
    )
    def test_literals_given_to_password_like_names_go_even_if_no_rule_looked(self, text, shown):
        assert without_named_literals(text) == shown

    def test_a_password_finding_loses_all_literals_or_everything_but_the_name(self):
        assert without_literals('connect("h", pw)  # "old"') == 'connect("[redacted]", pw)  # "[redacted]"'
        assert without_literals("password: hunter2 # note") == "password: [redacted]"
        assert without_literals("hunter2") == "[redacted]"

    def test_quoted_parts_of_messages_go_up_to_the_last_quote(self):
        assert (
            without_quoted("Possible hardcoded password: 'it's 'odd''") == "Possible hardcoded password: '[redacted]'"
        )

    def test_urls_lose_tokens_and_passwords_but_not_plain_user_names(self):
        text = "https://a:b@h/x https://ghp_0123456789abcdef@h/y ssh://git@h/z mail@example.org"
        assert (
            without_credentials(text) == "https://[redacted]@h/x https://[redacted]@h/y ssh://git@h/z mail@example.org"
        )

    def test_short_everyday_and_partial_words_are_left_alone(self):
        secrets = Secrets(["abc", "password", "swordfish"])
        assert secrets.redact("abc password swordfishes") == "abc password swordfishes"
        assert secrets.redact("swordfish, 'password'", code=True) == "[redacted], '[redacted]'"

    def test_many_values_with_one_beginning_cost_no_more_than_a_few(self):
        secrets = Secrets(f"AKIA{number:08d}" for number in range(20_000))
        text = "x AKIA00019999 y " * 1000
        assert secrets.redact(text) == "x [redacted] y " * 1000

    def test_beyond_the_bound_no_code_is_shown_at_all(self, monkeypatch):
        monkeypatch.setattr("intelligentscan.scanners.secret_text.MAX_VALUES", 1)
        results = [result("B105", "m", at("a.py", n, snippet={"text": f'password = "value-{n}"'})) for n in range(1, 4)]
        results.append(result("R1", "m", at("a.py", 9, snippet={"text": "call(value)"})))
        assert "call(value)" not in json.dumps(redact_sarif(log(run(results, "Bandit"))))

    @settings(deadline=None)
    @given(st.text(max_size=200))
    def test_literals_lie_within_the_text_and_do_not_overlap(self, text):
        end = 0
        for literal in string_literals(text):
            assert end <= literal.opened < literal.start <= literal.end <= len(text)
            end = literal.end

    @settings(deadline=None)
    @given(st.text(alphabet="abcXYZ019-_$ ", min_size=6, max_size=20), st.text(max_size=30), st.text(max_size=30))
    def test_a_quoted_password_never_survives(self, value, before, after):
        line = f'password = "{value}"'
        where = at("a.py", 1, snippet={"text": line})
        named = result("B105", f"Possible hardcoded password: '{value}'", where)
        document = log(run([named, result("R9", f"{before} {value} {after}", where)], "Bandit"))
        text = json.dumps([redact_sarif(document), [f.model_dump() for f in read_sarif(document).findings]])
        strong = any(c.isalpha() for c in value) and any(c.isdigit() for c in value) and len(value.strip()) >= 6
        if strong:
            assert value.strip() not in text
        assert f'"{value}"' not in text
