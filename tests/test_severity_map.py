"""The severity map: complete for the rules it names, and few criticals."""

import json
import subprocess

import pytest
from sarif_samples import BIN

from intelligentscan.scanners.severity_map import (
    CRITICAL,
    PYTHON_RULES,
    Rating,
    canonical_rule,
    cwes,
    engine_rating,
    raised,
    shared_rule,
)


def test_every_security_rule_of_the_installed_ruff_has_a_row_under_its_name():
    done = subprocess.run(
        [str(BIN / "ruff"), "rule", "--all", "--output-format", "json"], capture_output=True, check=True
    )
    rules = {rule["code"]: rule["name"] for rule in json.loads(done.stdout) if rule["linter"] == "flake8-bandit"}
    assert len(rules) > 60
    for code, name in rules.items():
        assert PYTHON_RULES[code[1:]].name == name
        assert canonical_rule("ruff", name) == canonical_rule("ruff", code) == code


def test_the_ratings_are_bandits_own_where_it_has_one():
    from bandit.blacklists import calls, imports

    levels = {
        row["id"]: row["level"] for kind in (calls, imports) for rows in kind.gen_blacklist().values() for row in rows
    }
    assert len(levels) > 10
    for rule, level in levels.items():
        assert PYTHON_RULES[rule[1:]].severity == level.lower(), rule


def test_few_rules_are_critical_and_each_has_a_reason():
    assert set(CRITICAL) == {"102", "201", "307", "506", "602", "605"}
    assert all(len(reason) > 20 for reason in CRITICAL.values())


@pytest.mark.parametrize(("engine", "rule"), [("bandit", "B602"), ("ruff", "S602"), ("ruff", "unsafe-yaml-load")])
def test_named_rules_are_raised_and_say_from_where(engine, rule):
    rating = raised(engine, rule, "security issue", Rating("high", "x"))
    assert rating == Rating("critical", "severity map 1: raised from high (x)")


def test_constant_commands_and_other_engines_are_not_raised():
    assert raised("bandit", "B602", "call with shell=True seems safe", Rating("low", "x")).severity == "low"
    assert raised("other", "B602", "m", Rating("high", "x")).severity == "high"
    assert raised("bandit", "B301", "m", Rating("medium", "x")).severity == "medium"


def test_ruff_rules_without_a_row_are_rated_by_their_family():
    assert engine_rating("ruff", "S999", "m").severity == "medium"
    assert engine_rating("ruff", "F401", "m").severity == "info"
    assert engine_rating("bandit", "B101", "m") is None


def test_bandit_and_ruff_names_of_one_check_share_an_id_and_others_do_not():
    names = {("bandit", "B324"), ("ruff", "S324"), ("ruff", "hashlib-insecure-hash-function")}
    assert {shared_rule(*name) for name in names} == {"S324"}
    assert shared_rule("bandit", "B614") == "bandit:B614"
    assert shared_rule("examplescan", "S324") == "examplescan:S324"


def test_cwes_are_completed_for_ruff_and_corrected_for_bandit():
    assert cwes("ruff", "S608", ()) == ("CWE-89",)
    assert cwes("bandit", "B307", ("CWE-78",)) == ("CWE-94",)
    assert cwes("bandit", "B608", ("CWE-89",)) == ("CWE-89",)
    assert cwes("examplescan", "S608", ()) == ()
