"""The products that signed events made: their names, tiers and first events."""

import shlex
from collections.abc import Iterable

from intelligentscan.domain.errors import NotFound
from intelligentscan.domain.text import untrusted
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE
from intelligentscan.stores.governance.vouched import VouchedRow, vouched

ONBOARDED = "product.onboarded"
CHANGED = "product.changed"
_SHOWN = 10


def product_rows(read: GovernanceReads) -> dict[str, list[VouchedRow]]:
    """Return the rows of every product by its name, in the order of their making."""
    found: dict[str, list[VouchedRow]] = {}
    for row in vouched(read, "product", {"workspace": DEFAULT_WORKSPACE}, actions=(ONBOARDED, CHANGED)).rows:
        found.setdefault(row["product"], []).append(row)
    return found


def no_product(name: str, there: Iterable[str] = ()) -> NotFound:
    """Return the refusal of a name that is no product's.

    Args:
        name: the name.
        there: the names of the products that there are.
    """
    shown, known = untrusted(name, 80), sorted(there)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    named = ", ".join(f"'{untrusted(each, 80)}'" for each in known[:_SHOWN])
    are = f"there are {named}{more}; " if known else "none is onboarded yet; "
    return NotFound(
        f"There is no product '{shown}'.",
        next=f"{are}'intelligentscan product onboard {shlex.quote(shown)}' makes it.",
    )


def product_names(read: GovernanceReads) -> set[str]:
    """Return the names of the products."""
    return set(product_rows(read))
