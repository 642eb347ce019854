"""Severity map: how bad a finding is when its scanner does not say, which names mean one rule, and what is critical.

The rows below carry the ratings that bandit itself gives, so that the same weakness weighs the same
whether bandit (`B602`) or ruff (`S602`) reports it; ruff's SARIF marks everything as an error. The CWE
of a row is the one a reviewer would look under: bandit files `exec` and `eval` under OS command
injection, and XML parsing under input validation.
"""

from dataclasses import dataclass

from intelligentscan.domain.severity import Severity

SEVERITY_MAP_VERSION = "1"


@dataclass(frozen=True, slots=True)
class PythonRule:
    """One check that ruff took over from bandit: the number both share, ruff's name, rating and CWE."""

    number: str
    name: str
    severity: Severity
    cwe: str


@dataclass(frozen=True, slots=True)
class Rating:
    """A severity and where it came from."""

    severity: Severity
    source: str


def _rows() -> dict[str, PythonRule]:
    rows: tuple[tuple[str, str, Severity, int], ...] = (
        ("101", "assert", "low", 703),
        ("102", "exec-builtin", "medium", 94),
        ("103", "bad-file-permissions", "medium", 732),
        ("104", "hardcoded-bind-all-interfaces", "medium", 605),
        ("105", "hardcoded-password-string", "low", 259),
        ("106", "hardcoded-password-func-arg", "low", 259),
        ("107", "hardcoded-password-default", "low", 259),
        ("108", "hardcoded-temp-file", "medium", 377),
        ("110", "try-except-pass", "low", 703),
        ("112", "try-except-continue", "low", 703),
        ("113", "request-without-timeout", "medium", 400),
        ("201", "flask-debug-true", "high", 94),
        ("202", "tarfile-unsafe-members", "high", 22),
        ("301", "suspicious-pickle-usage", "medium", 502),
        ("302", "suspicious-marshal-usage", "medium", 502),
        ("303", "suspicious-insecure-hash-usage", "medium", 327),
        ("304", "suspicious-insecure-cipher-usage", "high", 327),
        ("305", "suspicious-insecure-cipher-mode-usage", "medium", 327),
        ("306", "suspicious-mktemp-usage", "medium", 377),
        ("307", "suspicious-eval-usage", "medium", 94),
        ("308", "suspicious-mark-safe-usage", "medium", 79),
        ("310", "suspicious-url-open-usage", "medium", 22),
        ("311", "suspicious-non-cryptographic-random-usage", "low", 330),
        ("312", "suspicious-telnet-usage", "high", 319),
        ("313", "suspicious-xmlc-element-tree-usage", "medium", 611),
        ("314", "suspicious-xml-element-tree-usage", "medium", 611),
        ("315", "suspicious-xml-expat-reader-usage", "medium", 611),
        ("316", "suspicious-xml-expat-builder-usage", "medium", 611),
        ("317", "suspicious-xml-sax-usage", "medium", 611),
        ("318", "suspicious-xml-mini-dom-usage", "medium", 611),
        ("319", "suspicious-xml-pull-dom-usage", "medium", 611),
        ("320", "suspicious-xmle-tree-usage", "medium", 611),
        ("321", "suspicious-ftp-lib-usage", "high", 319),
        ("323", "suspicious-unverified-context-usage", "medium", 295),
        ("324", "hashlib-insecure-hash-function", "high", 327),
        ("401", "suspicious-telnetlib-import", "high", 319),
        ("402", "suspicious-ftplib-import", "high", 319),
        ("403", "suspicious-pickle-import", "low", 502),
        ("404", "suspicious-subprocess-import", "low", 78),
        ("405", "suspicious-xml-etree-import", "low", 611),
        ("406", "suspicious-xml-sax-import", "low", 611),
        ("407", "suspicious-xml-expat-import", "low", 611),
        ("408", "suspicious-xml-minidom-import", "low", 611),
        ("409", "suspicious-xml-pulldom-import", "low", 611),
        ("410", "suspicious-lxml-import", "low", 611),
        ("411", "suspicious-xmlrpc-import", "high", 611),
        ("412", "suspicious-httpoxy-import", "high", 284),
        ("413", "suspicious-pycrypto-import", "high", 327),
        ("415", "suspicious-pyghmi-import", "high", 319),
        ("501", "request-with-no-cert-validation", "high", 295),
        ("502", "ssl-insecure-version", "high", 327),
        ("503", "ssl-with-bad-defaults", "medium", 327),
        ("504", "ssl-with-no-version", "low", 327),
        ("505", "weak-cryptographic-key", "medium", 326),
        ("506", "unsafe-yaml-load", "medium", 502),
        ("507", "ssh-no-host-key-verification", "high", 295),
        ("508", "snmp-insecure-version", "medium", 319),
        ("509", "snmp-weak-cryptography", "medium", 319),
        ("601", "paramiko-call", "medium", 78),
        ("602", "subprocess-popen-with-shell-equals-true", "high", 78),
        ("603", "subprocess-without-shell-equals-true", "low", 78),
        ("604", "call-with-shell-equals-true", "medium", 78),
        ("605", "start-process-with-a-shell", "high", 78),
        ("606", "start-process-with-no-shell", "low", 78),
        ("607", "start-process-with-partial-path", "low", 78),
        ("608", "hardcoded-sql-expression", "medium", 89),
        ("609", "unix-command-wildcard-injection", "high", 155),
        ("610", "django-extra", "medium", 89),
        ("611", "django-raw-sql", "medium", 89),
        ("612", "logging-config-insecure-listen", "medium", 94),
        ("701", "jinja2-autoescape-false", "high", 79),
        ("702", "mako-templates", "medium", 79),
        ("704", "unsafe-markup-use", "medium", 79),
    )
    return {n: PythonRule(n, name, severity, f"CWE-{cwe}") for n, name, severity, cwe in rows}


PYTHON_RULES = _rows()
_BY_NAME = {rule.name: rule for rule in PYTHON_RULES.values()}

# Whoever controls the input of the reported call runs code of their choice in this process or its shell, and the rule
# reports that call itself, not an import. Left out on purpose: pickle (301), because trained models are read with it
# from trusted disks all day and a flood of criticals hides the real ones; and what needs a second weakness or a
# position on the network (TLS off 501, SQL text 608, weak hashes 324).
CRITICAL = {
    "102": "exec runs the text it is given",
    "201": "Werkzeug's debugger offers a Python console to whoever reaches the port",
    "307": "eval runs the text it is given",
    "506": "this YAML loader builds any Python object the document names",
    "602": "a shell reads a command line that is not constant",
    "605": "a shell reads a command line that is not constant",
}
_CONSTANT_COMMAND = "seems safe"  # both scanners word it so when the command is a literal
_CORRECTED_CWES = {"B102": ("CWE-94",), "B307": ("CWE-94",)}


# Checkov marks everything as an error, so its level says nothing; unchecked defaults of a template are rarely holes.
_ONE_FOR_ALL: dict[str, Severity] = {"checkov": "medium"}
# detect-secrets rates nothing: a key of a known form is one, what merely looks random or follows a word may be none.
_SECRETS: dict[str, Severity] = {
    "base64-high-entropy-string": "low",
    "hex-high-entropy-string": "low",
    "public-ip-ipv4": "info",
    "secret-keyword": "medium",
}
_OTHER_CWES = {
    ("hadolint", "DL3002"): "CWE-250",
    ("hadolint", "DL3004"): "CWE-250",
    ("zizmor", "zizmor/artipacked"): "CWE-522",
    ("zizmor", "zizmor/cache-poisoning"): "CWE-349",
    ("zizmor", "zizmor/dangerous-triggers"): "CWE-863",
    ("zizmor", "zizmor/excessive-permissions"): "CWE-250",
    ("zizmor", "zizmor/hardcoded-container-credentials"): "CWE-798",
    ("zizmor", "zizmor/insecure-commands"): "CWE-94",
    ("zizmor", "zizmor/template-injection"): "CWE-94",
    ("zizmor", "zizmor/unpinned-uses"): "CWE-829",
}
_SHARED = {
    ("checkov", "CKV_DOCKER_4"): "DL3020",
    ("checkov", "CKV_DOCKER_7"): "DL3006",
    ("checkov", "CKV2_DOCKER_1"): "DL3004",
    ("hadolint", "DL3004"): "DL3004",
    ("hadolint", "DL3006"): "DL3006",
    ("hadolint", "DL3007"): "DL3006",
    ("hadolint", "DL3020"): "DL3020",
}


def python_rule(engine: str, rule: str) -> PythonRule | None:
    """Return the row of a bandit or ruff rule, whichever of its names was used, or None."""
    if engine == "ruff":
        return PYTHON_RULES.get(rule[1:]) if rule[:1] == "S" else _BY_NAME.get(rule)
    if engine == "bandit" and rule[:1] == "B":
        return PYTHON_RULES.get(rule[1:])
    return None


def canonical_rule(engine: str, rule: str) -> str:
    """Return the id under which a rule is matched between scans: ruff's names and codes become the code.

    The engine is not part of it: two engines that report one line stay two findings, and
    matching keeps them apart by their engine.
    """
    if engine == "ruff" and (row := _BY_NAME.get(rule)):
        return f"S{row.number}"
    return rule


def shared_rule(engine: str, rule: str) -> str:
    """Return one id for what two engines both check (B602 and S602), else the canonical rule of the engine."""
    row = python_rule(engine, rule)
    if row is not None:
        return f"S{row.number}"
    return _SHARED.get((engine, rule)) or f"{engine}:{canonical_rule(engine, rule)}"


def engine_rating(engine: str, rule: str, message: str) -> Rating | None:
    """Return what the map itself says of a rule that its scanner does not rate; None if it has no opinion."""
    if engine == "detect-secrets":
        return Rating(_SECRETS.get(rule, "high"), f"severity map {SEVERITY_MAP_VERSION}")
    if engine in _ONE_FOR_ALL:
        return Rating(_ONE_FOR_ALL[engine], f"severity map {SEVERITY_MAP_VERSION}")
    if engine != "ruff":
        return None
    row = python_rule(engine, rule)
    if row is None:
        return Rating("medium" if rule.startswith("S") else "info", f"severity map {SEVERITY_MAP_VERSION}")
    severity: Severity = "low" if _CONSTANT_COMMAND in message else row.severity
    return Rating(severity, f"severity map {SEVERITY_MAP_VERSION}")


def raised(engine: str, rule: str, message: str, rating: Rating) -> Rating:
    """Return the rating, raised to critical for the few rules named in `CRITICAL`."""
    row = python_rule(engine, rule)
    if row is None or row.number not in CRITICAL or rating.severity == "critical":
        return rating
    if _CONSTANT_COMMAND in message or rating.severity == "low":
        return rating
    source = f"severity map {SEVERITY_MAP_VERSION}: raised from {rating.severity} ({rating.source})"
    return Rating("critical", source)


def cwes(engine: str, rule: str, reported: tuple[str, ...]) -> tuple[str, ...]:
    """Return the CWEs of a finding: the scanner's own, corrected or completed where the map knows better."""
    if engine == "bandit" and rule in _CORRECTED_CWES:
        return _CORRECTED_CWES[rule]
    if reported:
        return reported
    if (known := _OTHER_CWES.get((engine, rule))) is not None:
        return (known,)
    row = python_rule(engine, rule) if engine == "ruff" else None
    return (row.cwe,) if row else ()
