"""Lists of reviews: pages of the record, each review with its state now."""

from sqlalchemy import and_, select

from intelligentscan.domain.review import ReviewStatus
from intelligentscan.services.review_state import Review, load
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE

_PAGE = 100
_MAX_PAGES = 20


def pages(
    read: GovernanceReads, status: ReviewStatus | None, name: str | None, limit: int, before: int | None, now: int
) -> tuple[list[Review], int | None]:
    """Return reviews in a state, and the event to go on before; looks at a bounded number of them."""
    found: list[Review] = []
    for _ in range(_MAX_PAGES):
        page, last = _page(read, name, before, now)
        for review in page:
            if status in (None, review.status):
                if len(found) == limit:
                    return found, found[-1].row.event
                found.append(review)
        if last is None:
            return found, None
        before = last
    return found, before


def _page(read: GovernanceReads, name: str | None, before: int | None, now: int) -> tuple[list[Review], int | None]:
    """Return up to a page of reviews, the newest first, and the event to go on before if there may be more."""
    review, event = read.tables.review, read.tables.event
    wanted = [review.c.workspace == DEFAULT_WORKSPACE]
    wanted += [review.c.name == name] if name is not None else []
    wanted += [review.c.event < before] if before is not None else []
    query = select(review.c.event, review.c.name, review.c.version).where(*wanted)
    rows = read.connection.execute(query.order_by(review.c.event.desc()).limit(_PAGE)).all()
    if not rows:
        return [], None
    models, versions = sorted({r.name for r in rows}), sorted({r.version for r in rows})
    about = and_(event.c.workspace == DEFAULT_WORKSPACE, event.c.name.in_(models), event.c.version.in_(versions))
    match = {"workspace": DEFAULT_WORKSPACE, "name": models, "version": versions}
    shown = {r.event for r in rows}
    page = [each for each in reversed(load(read, match, about, now)) if each.row.event in shown]
    return page, rows[-1].event if len(rows) == _PAGE else None
