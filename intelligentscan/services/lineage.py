"""Where a run came from, as far as the run itself proves it: product, code, data, author."""

from dataclasses import dataclass, replace
from typing import Any

from intelligentscan.domain.text import untrusted
from intelligentscan.stores.interface import PRODUCT_TAG, RunRecord, Stores

_MAX_DATASETS = 50
_COMMIT_TAG = "mlflow.source.git.commit"
_COMMIT_PARAM = "git.commit"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Facts for the trail, and what names a person, which stays erasable.

    Attributes:
        product: the product of the experiment.
        facts: code version, data digests, who vouches for them.
        text: names of people.
    """

    product: str | None
    facts: dict[str, Any]
    text: dict[str, str]

    def of_product(self, product: str | None) -> "Lineage":
        """Return the lineage with the product that a registration settled on."""
        return replace(self, product=product)


def lineage_of(stores: Stores, run: RunRecord) -> Lineage:
    """Return what a run tells about itself; none of it was measured by us."""
    experiment = stores.tracking.experiment_by_id(run.experiment_id)
    datasets = stores.tracking.datasets(run.run_id)[:_MAX_DATASETS]
    author = run.tags.get("mlflow.user")
    facts: dict[str, Any] = {
        "code_version": run.tags.get(_COMMIT_TAG) or run.params.get(_COMMIT_PARAM),
        "data": [
            {"name": untrusted(d.name, 200), "digest": untrusted(d.digest, 100), "context": d.context} for d in datasets
        ],
        "run_author_is": "unverified" if author else "unknown",
        "lineage_origin": "self-reported",
    }
    product = experiment.tags.get(PRODUCT_TAG) if experiment else None
    return Lineage(product, facts, {"run_author": untrusted(author, 200)} if author else {})
