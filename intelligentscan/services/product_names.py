"""The products that signed events made: their names, tiers and first events."""

from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE
from intelligentscan.stores.governance.vouched import VouchedRow, vouched

ONBOARDED = "product.onboarded"
CHANGED = "product.changed"


def product_rows(read: GovernanceReads) -> dict[str, list[VouchedRow]]:
    """Return the rows of every product by its name, in the order of their making."""
    found: dict[str, list[VouchedRow]] = {}
    for row in vouched(read, "product", {"workspace": DEFAULT_WORKSPACE}, actions=(ONBOARDED, CHANGED)).rows:
        found.setdefault(row["product"], []).append(row)
    return found


def product_names(read: GovernanceReads) -> set[str]:
    """Return the names of the products."""
    return set(product_rows(read))
