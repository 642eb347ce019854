"""Redaction: passwords and keys that findings repeat are taken out before anything is stored or shown.

Three things happen to a document. Findings about a password lose every literal, every fix and every
hash they carry. The values they named are then taken out of all other text. And literals given to
password-like names go from every snippet, whether or not a rule looked for them. What cannot be
recognised this way (a password nobody reported, under a harmless name) stays: redaction lowers the
risk of a report, it does not make one public.
"""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic_core import PydanticSerializationError, to_json

from intelligentscan._credential_forms import (
    is_secret_name,
    may_hold_credentials,
    without_credentials,
    without_key_lines,
)
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.fingerprint import Sighting, fingerprints
from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.reported_secrets import MAX_DEPTH, collect_secrets, without_secret
from intelligentscan.scanners.sarif_document import json_bytes
from intelligentscan.scanners.sarif_rules import (
    RuleBook,
    as_object,
    is_secret_result,
    objects,
)
from intelligentscan.scanners.sarif_uris import spellings
from intelligentscan.scanners.secret_text import (
    REDACTED,
    Secrets,
    without_named_literals,
)
from intelligentscan.scanners.severity_map import canonical_rule

_TOO_DEEP = "[nested too deeply]"
_CODE = frozenset({"snippet", "contents", "insertedContent"})
_EXEMPT = frozenset(
    re.findall(
        r"\S+",
        """
        $schema version semanticVersion uri uriBaseId helpUri informationUri downloadUri repositoryUri ruleId id guid
        level kind baselineState status mimeType encoding sourceLanguage language columnKind correlationGuid revisionId
        branch startTimeUtc endTimeUtc timeUtc fullyQualifiedName severity issue_severity issue_confidence
        """,
    )
)
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"})
# In lower case: what stands in the JSON text of every result of which `_Redactor` takes something out.
_TELLING = (
    b'"environmentvariables"',
    b'"contents"',
    b'"insertedcontent"',
    b'"binary"',
    *sorted({b'%b"' % name.rpartition("-")[2].encode() for name in _HEADERS}),
)
_LONG_KEY = 15
"""No key of this length or less can hold a credential that is known by its form."""
_PERSONAL = frozenset({"author", "email", "committer", "commitmessage", "date", "message", "commitsha"})


def is_personal(key: str, value: str) -> bool:
    """Tell whether an entry of a result's fingerprints is about a person or a commit instead of the finding."""
    return "@" in value or _is_about_people(key)


@lru_cache(1024)
def _is_about_people(key: str) -> bool:
    return key.lower().replace("_", "").replace("-", "") in _PERSONAL


def redact_sarif(
    document: Sarif,
    *,
    root: Path | None = None,
    secrets: Secrets | None = None,
    collected: bool = False,
    consume: bool = False,
    as_text: bool = False,
) -> Sarif:
    """Return a copy of a SARIF log without passwords, and without the path of the root if one is given.

    Args:
        document: a SARIF log as its scanner wrote it; it is not changed, unless it may be consumed.
        root: the scanned folder; its absolute path is taken out, and its files are read to learn the values.
        secrets: values found elsewhere in the same scan, taken out as well.
        collected: whether `secrets` holds the values of this document already, as those of a reading of it do.
        consume: whether the results of the document may be dropped one by one, so that two of it never fill the memory.
        as_text: whether each result is returned as its JSON text, as `sarif_pieces` takes it: a tenth of the memory.
        What is nested more than 200 levels deep is cut off.
    """
    known = Secrets() if collected else collect_secrets(document, root=root)
    if secrets is not None:
        known.update(secrets)
    redactor = _Redactor(known, root, consume=consume, as_text=as_text)
    return {
        key: redactor.run_list(value) if key == "runs" else redactor.value(value, key, 1)
        for key, value in document.items()
    }


def redact_findings(findings: Iterable[Finding], secrets: Secrets) -> tuple[Finding, ...]:
    """Return findings without the values, for those that another scanner of the same scan reported.

    A finding whose line held a value gets a new fingerprint, made of the redacted line.
    """
    result = list(findings)
    if not secrets:
        return tuple(result)
    refreshed: list[int] = []
    sightings: list[Sighting] = []
    for index, finding in enumerate(result):
        update: dict[str, str] = {}
        message = secrets.redact(finding.message)
        if message != finding.message:
            update["message"] = message
        if finding.snippet is not None and (snippet := secrets.redact(finding.snippet, code=True)) != finding.snippet:
            update["snippet"] = snippet
        if not update:
            continue
        shown = finding.snippet if finding.snippet is not None else finding.message
        text = secrets.redact_unmistakable(shown)
        if text != shown:
            rule = canonical_rule(finding.engine, finding.rule)
            refreshed.append(index)
            sightings.append(Sighting(finding.engine, rule, finding.path, text, finding.line, finding.column))
        result[index] = finding.model_copy(update=update)
    for index, value in zip(refreshed, fingerprints(sightings), strict=True):
        result[index] = result[index].model_copy(update={"fingerprint": value})
    return tuple(result)


class _Redactor:
    """Copies a document and takes out values, paths and headers on the way.

    In `tool` only unmistakable values are taken out: its texts are the scanner's own, and everyday
    words among the values would make holes in them.
    """

    def __init__(
        self,
        secrets: Secrets,
        root: Path | None,
        *,
        in_tool: bool = False,
        consume: bool = False,
        as_text: bool = False,
    ) -> None:
        self._secrets = secrets
        self._in_tool = in_tool
        self._consume = consume
        self._as_text = as_text
        self._tool = self if in_tool else _Redactor(secrets, root, in_tool=True)
        self._root = _root_pattern(root)
        self._root_forms = _root_forms(root)
        self._seen: dict[tuple[str, bool], str] = {}

    def run_list(self, runs: Any) -> Any:
        if not isinstance(runs, list):
            return self.value(runs, "runs", 1)
        return [self._run(run) if isinstance(run, dict) else self.value(run, "runs", 2) for run in runs]

    def _run(self, run: Sarif) -> Sarif:
        rules = RuleBook(run)
        copy: Sarif = {}
        for key, value in run.items():
            if key == "results" and isinstance(value, list):
                copy[key] = results = []
                for index, item in enumerate(value):
                    results.append(self._result(item, rules) if isinstance(item, dict) else self._kept(item, key))
                    if self._consume:
                        value[index] = None
            else:
                copy[key] = (self._tool if key == "tool" else self).value(value, key, 3)
        return copy

    def _result(self, result: Sarif, rules: RuleBook) -> Any:
        facts = rules.of(result)
        if is_secret_result(facts, result):
            result = without_secret(result, rules.only_secrets)
        elif "partialFingerprints" in result or "fingerprints" in result:
            result = {key: _impersonal(value) if key in _FINGERPRINTS else value for key, value in result.items()}
        return self._kept(result, "result")

    def _kept(self, result: Any, key: str) -> Any:
        if not self._as_text:
            return self.value(result, key, 4)
        # Writing a result down is several times as fast as copying it, and most hold nothing to take out.
        text = self._untouched(result)
        return json_bytes(self.value(result, key, 4)) if text is None else text

    def _untouched(self, result: Any) -> bytes | None:
        """Return the JSON text of a result in which there is nothing to take out, None if there may be something.

        Whatever `value` takes out has to be recognised here by a word that goes with it.
        """
        if self._secrets or self._root_forms is None or not isinstance(result, dict):
            return None
        try:
            text = to_json(result, inf_nan_mode="null")
        except (PydanticSerializationError, RecursionError):
            return None
        if b"@" in text or b'"uri":""' in text or text.count(b"{") + text.count(b"[") > MAX_DEPTH // 2:
            return None
        if any(form in text for form in self._root_forms):
            return None
        lowered = text.lower()
        if may_hold_credentials(text, lowered):
            return None
        for word in _TELLING:
            if word in lowered:
                return None
        # The source that a result shows in its usual places is looked at as such; any other needs a copy.
        shown = lowered.count(b'"snippet"')
        for location in objects(result.get("locations")) if shown else ():
            physical = as_object(location.get("physicalLocation"))
            for region in (physical.get("region"), physical.get("contextRegion")):
                if isinstance(region, dict) and (content := region.get("snippet")) is not None:
                    shown -= 1
                    if not isinstance(content, dict) or self._content(content) != content:
                        return None
        return text if not shown else None

    def value(self, value: Any, key: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        if isinstance(value, str):
            return self._text(value, key)
        if isinstance(value, dict):
            return self._object(value, key, depth)
        if isinstance(value, list):
            return [self.value(item, key, depth + 1) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None  # JSON has no such number
        return value

    def _object(self, value: Sarif, key: str, depth: int) -> Sarif:
        if key == "environmentVariables":
            return dict.fromkeys(value, REDACTED)
        if key in _CODE:
            return self._content(value)
        copy: Sarif = {}
        # A large report has millions of entries, so numbers and texts are taken over without another call.
        for name, item in value.items():
            inner = name if isinstance(name, str) else str(name)
            if inner == "binary":  # base64, in which nothing can be recognised
                continue
            shown = self._key(inner) if len(inner) > _LONG_KEY or "/" in inner else inner
            if item.__class__ is int or item is None:
                copy[shown] = item
            elif not isinstance(item, str):
                copy[shown] = self.value(item, inner, depth + 1)
            elif inner == "uri" and item:
                if uri := self._text(item, inner):
                    copy[inner] = uri
            elif inner.lower() in _HEADERS or is_secret_name(inner):
                copy[shown] = REDACTED
            else:
                copy[shown] = self._text(item, inner)
        return copy

    def _content(self, content: Sarif) -> Sarif:
        """Copy an artifactContent: its text only, since binary and rendered forms repeat it unreadably."""
        text = content.get("text")
        if not isinstance(text, str):
            return {"text": REDACTED} if content else {}
        if self._secrets.overflow:
            return {"text": REDACTED}
        shown = self._seen.get((text, True))
        if shown is None:
            shown = without_credentials(without_key_lines(without_named_literals(text)))
            shown = self._secrets.redact(shown, code=True)
            shown = self._without_root(shown)
            self._remember(text, True, shown)
        return {"text": shown}

    def _text(self, text: str, key: str) -> str:
        shown = self._seen.get((text, False)) if key not in _EXEMPT else None
        if shown is None:
            shown = self._without_root(without_credentials(text))
            if key not in _EXEMPT:
                known = self._secrets
                shown = known.redact_unmistakable(shown) if self._in_tool else known.redact(shown)
                self._remember(text, False, shown)
        return shown

    def _key(self, key: str) -> str:
        key = without_credentials(key)
        return self._without_root(key) if self._root is not None and "/" in key else key

    def _without_root(self, text: str) -> str:
        return self._root.sub("", text) if self._root is not None and "/" in text else text

    def _remember(self, text: str, code: bool, shown: str) -> None:
        if len(self._seen) < 20_000 and len(text) < 10_000:
            self._seen[text, code] = shown


_FINGERPRINTS = ("partialFingerprints", "fingerprints")


def _impersonal(prints: Any) -> Any:
    if not isinstance(prints, dict):
        return prints
    return {key: value for key, value in prints.items() if not (isinstance(value, str) and is_personal(key, value))}


def _spelled(root: Path | None) -> set[str]:
    folders = [folder for folder in spellings(root) if folder.strip("/")]
    return {form for folder in folders for form in (folder, quote(folder))}


def _root_forms(root: Path | None) -> tuple[bytes, ...] | None:
    """Return how the root shows in JSON text; None if its name looks different there."""
    forms = tuple(form.rstrip("/").encode("utf-8", "replace") for form in _spelled(root))
    return forms if all(json_bytes(form.decode()) == b'"%b"' % form for form in forms) else None


def _root_pattern(root: Path | None) -> re.Pattern[str] | None:
    forms = _spelled(root)
    if not forms:
        return None
    alternatives = "|".join(re.escape(form.rstrip("/")) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?:file:/{{2,3}}(?=/)|file:)?(?<![\w.\-])(?:{alternatives})(?:/|(?![\w\-]|\.\w))")
