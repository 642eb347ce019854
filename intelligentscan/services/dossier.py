"""The dossier of a review: what is known about a version, per criterion, each fact with who says so.

It is put together from the record, the sealed bytes and the run, by a bounded number of calls. The same facts give
the same bytes, so that its digest tells whether two requests are about the same evidence. Texts of people and runs
are escaped and bounded in it, so that it can be shown as it is.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from intelligentscan._digest import sha256_hex
from intelligentscan.domain import names
from intelligentscan.domain.errors import StoreBroken
from intelligentscan.domain.metrics import higher_is_better
from intelligentscan.domain.review import CRITERIA, Criterion, EvidenceItem, Origin
from intelligentscan.domain.text import untrusted
from intelligentscan.services.sealed_model import CARD, SealedModel, card_fields, sealed_model
from intelligentscan.stores.governance.canonical import canonical, canonical_object
from intelligentscan.stores.interface import DatasetRecord, RunRecord, VersionRecord

FORMAT = "intelligentscan.dossier.v1"
GIVEN = "given with the request"
SHOWN_ID = 12
"""How much of a review's id a command in a message names; six characters are enough for it."""

MAX_DOCUMENT = 4 * 2**20
_MAX_VALUES = 100
_MAX_ARTIFACTS = 40
_MAX_TEXT = 1_000
_FAIRNESS = re.compile(
    r"(?<![a-z])(fair(ness)?|bias(ed)?|demographic|parity|equali[sz]ed|disparate|disparity|subgroups?|protected)(?![a-z])",
    re.IGNORECASE,
)
_LIMITS = re.compile(r"(?<![a-z])(limit(s|ed|ation|ations)?|risks?|out.of.scope|caveats?)(?![a-z])", re.IGNORECASE)
_SHOWS = (".png", ".jpg", ".jpeg", ".svg", ".html", ".pdf", ".json", ".csv", ".md", ".txt", ".sarif", ".parquet")
_LACKS: dict[Criterion, str] = {
    "accuracy": "the run has logged no metric and no plot",
    "safety": "we have no scan of the run's code",
    "bias": "no fairness metric or plot was logged",
    "risks": "neither a use case nor known limits are written",
    "documentation": "the version has no description and no model card",
}


@dataclass(frozen=True, slots=True)
class ArtifactFact:
    """A file that a run has logged; its digest where we have hashed it."""

    path: str
    size: int | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class ScanFact:
    """A scan, as the trail or its run tells; of imported ones we know only what their run says."""

    origin: Origin
    facts: Mapping[str, Any]
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """What a dossier is made from.

    Attributes:
        version: the version as the registry has it.
        manifest_digest: of its sealed bytes.
        run: the run that it came from; None if it is gone.
        model: what the sealed files say.
        model_description: text of the registered model.
        use_case: what it was registered for.
        code_version: the commit that the run names.
        datasets: the data that the run has logged.
        artifacts: the files that the run has logged, but for its models.
        scans: scans of the same commit.
        champion: number of the version in Production, if it is another one.
        champion_metrics: metrics of that version's run.
        given: what came with the request.
    """

    version: VersionRecord
    manifest_digest: str
    run: RunRecord | None
    model: SealedModel = field(default_factory=SealedModel)
    model_description: str | None = None
    use_case: str | None = None
    code_version: str | None = None
    datasets: Sequence[DatasetRecord] = ()
    artifacts: Sequence[ArtifactFact] = ()
    scans: Sequence[ScanFact] = ()
    champion: int | None = None
    champion_metrics: Mapping[str, float] = field(default_factory=dict)
    given: Mapping[Criterion, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dossier:
    """Evidence per criterion, and its canonical form."""

    items: tuple[EvidenceItem, ...]
    missing: tuple[Criterion, ...]
    document: bytes

    @property
    def digest(self) -> str:
        """sha256 of the document."""
        return sha256_hex(self.document)


def assemble(material: Material) -> Dossier:
    """Return the dossier of a version."""
    items = tuple(_items(material))
    speaks = {item.criterion for item in items if _speaks(item)}
    missing = tuple(criterion for criterion in CRITERIA if criterion not in speaks)
    document = canonical(
        {
            "format": FORMAT,
            "name": material.version.name,
            "version": material.version.version,
            "run_id": material.run.run_id if material.run else None,
            "manifest_digest": material.manifest_digest,
            "evidence": [item.model_dump(mode="json") for item in items],
            "missing": list(missing),
        }
    )
    return Dossier(items, missing, document)


def items_of(document: bytes) -> tuple[EvidenceItem, ...]:
    """Return the evidence of a dossier that was kept.

    Raises:
        StoreBroken: it is no dossier.
    """
    try:
        kept = canonical_object(document.decode())
        return tuple(EvidenceItem.model_validate(item) for item in kept["evidence"])
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreBroken("The dossier of the review cannot be read.", next="call request_review again.") from exc


def given_in(items: Iterable[EvidenceItem]) -> dict[Criterion, object]:
    """Return what came with the request that a dossier was made for."""
    return {item.criterion: item.value for item in items if item.what == GIVEN}


def lacking(criterion: str, review_id: str, name: str, version: int) -> str:
    """Return what a criterion lacks, and what would give it.

    Args:
        criterion: the criterion.
        review_id: the review.
        name: the registered model.
        version: its version.
    """
    known, short = cast("Criterion", criterion), review_id[:SHOWN_ID]
    again = f"request_review name='{untrusted(name, names.MAX_NAME)}' version={version}"
    scan = f"scan_vulnerabilities on a clean checkout of its commit, then {again}; or "
    return (
        f"{criterion}: {_LACKS.get(known, 'there is no evidence')}; call {scan if known == 'safety' else ''}"
        f"{again} evidence={{'{criterion}': …}}, or a person runs "
        f"'intelligentscan review attest {short} {criterion} --text …'"
    )


def _speaks(item: EvidenceItem) -> bool:
    """Tell whether an item is evidence for its criterion, or only goes with it."""
    return item.what not in _CONTEXT


_COMPARED, _REQUIREMENTS, _PICKLED = "compared with the champion", "requirements", "files that run code when loaded"
_SEALED, _ENVIRONMENT, _CODE, _DATA, _PARAMS = "sealed model", "environment", "code version", "data", "params"
_CONTEXT = frozenset({_COMPARED, _REQUIREMENTS, _PICKLED, _SEALED, _ENVIRONMENT, _CODE, _DATA, _PARAMS})


def _items(material: Material) -> Iterator[EvidenceItem]:
    yield from _accuracy(material)
    yield from _safety(material)
    yield from _bias(material)
    yield from _risks(material)
    yield from _documentation(material)
    for criterion in CRITERIA:
        if (value := material.given.get(criterion)) not in (None, "", {}):
            yield _item(criterion, GIVEN, value)


def _accuracy(material: Material) -> Iterator[EvidenceItem]:
    metrics = material.run.metrics if material.run else {}
    ours = {k: v for k, v in metrics.items() if not k.startswith("system/") and not _FAIRNESS.search(_words(k))}
    if ours:
        yield _item("accuracy", "metrics", _numbers(ours))
    shown = [a for a in material.artifacts if not _FAIRNESS.search(_words(a.path)) and _is_shown(a.path)]
    yield from _artifacts("accuracy", shown)
    both = sorted(ours.keys() & material.champion_metrics.keys())[:_MAX_VALUES]
    if material.champion is not None and both:
        theirs = material.champion_metrics
        compared = {
            untrusted(key, 100): {
                "this": _number(ours[key]),
                "champion": _number(theirs[key]),
                "better": ours[key] > theirs[key] if higher_is_better(key) else ours[key] < theirs[key],
            }
            for key in both
        }
        yield _item("accuracy", _COMPARED, {"version": material.champion, "metrics": compared})


def _safety(material: Material) -> Iterator[EvidenceItem]:
    for scan in material.scans:
        yield _item("safety", "scan", dict(scan.facts), scan.origin, scan.digest)
    if material.model.requirements:
        digest = material.model.environment.get("requirements.txt")
        yield _item("safety", _REQUIREMENTS, list(material.model.requirements), "measured by us", digest)
    if material.model.digest is not None:
        found = list(material.model.pickled)
        yield _item("safety", _PICKLED, found or "none", "measured by us", material.manifest_digest)


def _bias(material: Material) -> Iterator[EvidenceItem]:
    metrics = material.run.metrics if material.run else {}
    if fair := {k: v for k, v in metrics.items() if _FAIRNESS.search(_words(k))}:
        yield _item("bias", "fairness metrics", _numbers(fair))
    yield from _artifacts("bias", [a for a in material.artifacts if _FAIRNESS.search(_words(a.path))])


def _risks(material: Material) -> Iterator[EvidenceItem]:
    if material.use_case and material.use_case.strip():
        yield _item("risks", "use case", untrusted(material.use_case, _MAX_TEXT))
    known = {k: v for k, v in material.version.tags.items() if _LIMITS.search(_words(k)) and v.strip()}
    for key in sorted(known)[:_MAX_VALUES]:
        yield _item("risks", untrusted(key, 100), untrusted(known[key], _MAX_TEXT))
    if (said := material.version.description) and _LIMITS.search(said):
        yield _item("risks", "description", untrusted(said, _MAX_TEXT))


def _documentation(material: Material) -> Iterator[EvidenceItem]:
    version, model = material.version, material.model
    for what, text in (("description", version.description), ("description of the model", material.model_description)):
        if text and text.strip():
            yield _item("documentation", what, untrusted(text, _MAX_TEXT))
    card = {k: v for k, v in version.tags.items() if k.startswith(CARD) and v.strip()}
    if card:
        told = {untrusted(k.removeprefix(CARD), 100): untrusted(card[k], _MAX_TEXT) for k in sorted(card)[:_MAX_VALUES]}
        yield _item("documentation", "model card", told)
    if model.digest is not None:
        found = {"signature": model.signature, "input_example": model.input_example, "flavors": list(model.flavors)}
        yield _item("documentation", _SEALED, found, "measured by us", model.digest)
    for path, digest in sorted(model.environment.items()):
        yield _item("documentation", _ENVIRONMENT, path, "measured by us", digest)
    if material.code_version:
        yield _item("documentation", _CODE, untrusted(material.code_version, 100))
    if material.datasets:
        data = sorted(
            (
                {
                    "name": untrusted(d.name, 200),
                    "digest": untrusted(d.digest, 100),
                    "context": untrusted(d.context or "", 60),
                }
                for d in material.datasets[:_MAX_VALUES]
            ),
            key=lambda d: (d["name"], d["digest"], d["context"]),
        )
        yield _item("documentation", _DATA, data)
    if material.run and material.run.params:
        params = dict(sorted(material.run.params.items())[:_MAX_VALUES])
        yield _item("documentation", _PARAMS, {untrusted(k, 100): untrusted(v, 200) for k, v in params.items()})


def _artifacts(criterion: Criterion, found: Sequence[ArtifactFact]) -> Iterator[EvidenceItem]:
    ordered = sorted(found, key=lambda a: a.path)
    for each in ordered[:_MAX_ARTIFACTS]:
        yield _item(criterion, "artifact", {"path": untrusted(each.path, 300), "size": each.size}, digest=each.digest)
    if (more := len(ordered) - _MAX_ARTIFACTS) > 0:
        yield _item(criterion, "artifacts that are not listed", more)


def _item(
    criterion: Criterion, what: str, value: object, origin: Origin = "self-reported", digest: str | None = None
) -> EvidenceItem:
    return EvidenceItem(criterion=criterion, what=what, value=value, origin=origin, digest=digest)


def _numbers(metrics: Mapping[str, float]) -> dict[str, float | str]:
    return {untrusted(key, 100): _number(metrics[key]) for key in sorted(metrics)[:_MAX_VALUES]}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _words(text: str) -> str:
    """Return a key or path with its words apart."""
    return re.sub(r"[_\-./ ]+|(?<=[a-z])(?=[A-Z])", " ", text)


def _is_shown(path: str) -> bool:
    return path.lower().endswith(_SHOWS)


__all__ = [
    "ArtifactFact", "Dossier", "Material", "ScanFact", "SealedModel", "assemble", "card_fields", "given_in",
    "items_of", "lacking", "sealed_model",
]  # fmt: skip
