"""Creating and finding experiments."""

from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import ExperimentDeleted, InvalidArgument
from intelligentscan.domain.experiment import Experiment, ExperimentList, ExperimentRow
from intelligentscan.domain.text import untrusted
from intelligentscan.services import cursor as cursors
from intelligentscan.services.locks import LockService
from intelligentscan.services.resolve import Resolver
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import PRODUCT_TAG, ExperimentRecord

_DESCRIPTION_TAG = "mlflow.note.content"


class ExperimentService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, resolver: Resolver, locks: LockService) -> None:
        self._store = store
        self._resolver = resolver
        self._locks = locks

    async def create(
        self,
        name: str,
        *,
        description: str | None = None,
        tags: dict[str, object] | None = None,
        product: str | None = None,
    ) -> Experiment:
        """Return the experiment of this name, making it if there is none; the same call again changes nothing.

        Raises:
            InvalidName: the name has invisible characters or is too long.
            ExperimentDeleted: a deleted experiment has this name.
        """
        wanted = names.experiment_name(name)
        all_tags = names.tags(tags)
        if text := names.description(description):
            all_tags[_DESCRIPTION_TAG] = text
        if product is not None:
            all_tags[PRODUCT_TAG] = names.model_name(product)
        record, created = await self._store.write(lambda s: s.tracking.create_experiment(wanted, all_tags))
        if record.deleted:
            raise ExperimentDeleted(
                f"A deleted experiment has the name '{untrusted(wanted, 80)}'.",
                next="call create_experiment with another name, or restore it with 'mlflow experiments restore'.",
                details={"experiment_id": record.experiment_id},
            )
        notes = []
        if not created and (all_tags.items() - record.tags.items()):
            notes.append("It was there before; its description, tags and product were left as they are.")
        lock = None if created else (await self._locks.of([record.experiment_id])).get(record.experiment_id)
        following = untrusted(lock.next_experiment, names.MAX_NAME) if lock else None
        if following is not None:
            notes.append(f"It is locked, because a model was registered from it; continue in '{following}'.")
        return Experiment(
            experiment_id=record.experiment_id,
            name=untrusted(record.name, names.MAX_NAME),
            created=created,
            locked=lock is not None,
            next_experiment=following,
            artifact_location=record.artifact_location,
            product=_product(record),
            notes=notes,
        )

    async def search(
        self,
        *,
        query: str | None = None,
        product: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> ExperimentList:
        """Return experiments whose name contains the query, the last changed first.

        Raises:
            InvalidCursor: the cursor belongs to another call.
        """
        cursors.checked_limit(limit)
        if query is not None and len(query) > names.MAX_NAME:
            raise InvalidArgument("The query is longer than any name.", next="search for a shorter part of the name.")
        token = cursors.decode(cursor, "experiments", query, product)
        tags = {PRODUCT_TAG: product} if product else {}
        page = await self._store.read(lambda s: s.tracking.search_experiments(query or None, tags, limit, token))
        locks = await self._locks.of(e.experiment_id for e in page.rows)
        return ExperimentList(
            experiments=[
                ExperimentRow(
                    experiment_id=e.experiment_id,
                    name=untrusted(e.name, names.MAX_NAME),
                    locked=e.experiment_id in locks,
                    next_experiment=untrusted(locks[e.experiment_id].next_experiment, names.MAX_NAME)
                    if e.experiment_id in locks
                    else None,
                    product=_product(e),
                    last_update=rfc3339(e.last_update),
                )
                for e in page.rows
            ],
            next_cursor=cursors.encode(page.next_token, "experiments", query, product),
            notes=await self._resolver.nearby() if token is None and _bare(page.rows) else [],
        )


def _bare(rows: tuple[ExperimentRecord, ...]) -> bool:
    """Tell whether the page shows nothing but MLflow's own Default experiment."""
    return all(e.experiment_id == "0" for e in rows)


def _product(record: ExperimentRecord) -> str | None:
    product = record.tags.get(PRODUCT_TAG)
    return untrusted(product, 100) if product else None
