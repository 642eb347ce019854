"""Who may ask for what: the roles that signed events gave, and the one refusal of those who lack them.

The truth is in the trail. A row that somebody wrote into the table past it gives nothing, and a revocation that
somebody removed still counts.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from intelligentscan.domain.errors import NotPermitted
from intelligentscan.domain.people import EVERYWHERE, MATRIX, ROLES, Right, Role
from intelligentscan.domain.text import untrusted, visible
from intelligentscan.services.principal import person as acting_person
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Principal
from intelligentscan.stores.governance.vouched import VouchedRow, vouched

ROLE_GRANTED = "role.granted"
ROLE_REVOKED = "role.revoked"

_BUILDERS: frozenset[Role] = frozenset({"owner", "developer"})
_REVIEWERS: frozenset[Role] = frozenset({"reviewer"})
_TO = {
    "read": "reading this",
    "register": "registering a model",
    "stage": "moving a version to Staging",
    "release": "moving a version to Production",
    "withdraw": "taking a version out of its stage",
    "request_review": "requesting a review",
    "attest": "attesting a criterion",
    "decide": "deciding a review",
    "revoke": "revoking a decision",
    "administer": "an administrator's act",
}
_LEAST: dict[Right, Role] = {
    "read": "auditor",
    "register": "developer",
    "stage": "developer",
    "release": "owner",
    "withdraw": "owner",
    "request_review": "developer",
    "attest": "developer",
    "decide": "reviewer",
    "revoke": "reviewer",
    "administer": "administrator",
}


@dataclass(frozen=True, slots=True)
class Held:
    """A role that somebody has now.

    Attributes:
        person: principal id.
        role: the role.
        product: the product that it is for; `EVERYWHERE` for every one.
        event: the event that gave it.
        at: when, in ms since the epoch.
        row: the row that the event vouches for.
    """

    person: str
    role: Role
    product: str
    event: int
    at: int
    row: VouchedRow


def held_roles(read: GovernanceReads) -> list[Held]:
    """Return every role that somebody has now, in the order in which they were given."""
    last: dict[tuple[str, str, str], VouchedRow] = {}
    for row in _role_rows(read):
        key = (row["product"], row["role"], row["person"])
        last.pop(key, None)
        last[key] = row
    return [
        Held(row["person"], cast("Role", row["role"]), row["product"], row.event, row.at, row)
        for row in last.values()
        if row["granted"] and row["role"] in ROLES
    ]


def administrators(read: GovernanceReads) -> set[str]:
    """Return the principal ids of the administrators."""
    return _administrators(held_roles(read))


def enforced(read: GovernanceReads) -> bool:
    """Tell whether roles decide: not as long as nobody is administrator."""
    return bool(administrators(read))


def first_administrator(read: GovernanceReads) -> int | None:
    """Return the event that made the first administrator, whether or not they still are one."""
    return next((row.event for row in _role_rows(read) if row.facts.get("first") is True), None)


def roles_of(read: GovernanceReads, principal: Principal) -> dict[str, frozenset[Role]]:
    """Return the roles of somebody by product; those for every product under `EVERYWHERE`."""
    return _by_product(own_roles(read, held_roles(read), principal))


def own_roles(read: GovernanceReads, held: Iterable[Held], principal: Principal) -> list[Held]:
    """Return those of the roles that were given to this principal."""
    known = read.find_principal(principal)
    return [h for h in held if h.person == known]


def bearers(read: GovernanceReads, held: Iterable[Held]) -> dict[int, Principal]:
    """Return who bears these roles, by event; nobody does if the name was erased or changed since."""
    given = list(held)
    people = read.principals(h.person for h in given)
    return {h.event: people[h.person] for h in given if h.person in people}


def require(read: GovernanceReads, right: Right, product: str | None, person: Principal | None = None) -> None:
    """Refuse what somebody's roles do not allow. As long as nobody is administrator, nobody is refused.

    Args:
        read: open on the governance database, in the transaction of the act.
        right: what is asked for.
        product: the product that it concerns; None if it belongs to none, and then only roles for every product count.
        person: who asks; the person at this process if None.

    Raises:
        NotPermitted: none of their roles allows it; names the command with which an administrator gives one.
    """
    held = held_roles(read)
    if _administrators(held):
        _require(read, held, right, product, person or acting_person())


def require_administrator(read: GovernanceReads) -> None:
    """Refuse everybody but administrators, and everybody as long as there is none.

    Raises:
        NotPermitted: the person at this process is no administrator.
    """
    held, me = held_roles(read), acting_person()
    if not _administrators(held):
        raise NotPermitted(
            "There is no administrator yet, and only one can do this.",
            next=f"become the first one: '{grant_command('administrator', me, None)}'; "
            "from then on roles decide who may do what.",
        )
    _require(read, held, "administer", None, me)


def conflicting(role: Role) -> frozenset[Role]:
    """Return the roles of the same product that nobody may have together with a role."""
    if role in _BUILDERS:
        return _REVIEWERS
    return _BUILDERS if role in _REVIEWERS else frozenset()


def grant_command(role: Role, who: Principal | None, product: str | None) -> str:
    """Return the command that gives a role; for somebody else than who asked if `who` is None."""
    name = shlex.quote(visible(who.name)) if who else "NAME"
    holder = " --key-holder" if who and who.kind == "person" else ""
    of = f" --product {shlex.quote(visible(product))}" if product and role != "administrator" else ""
    return f"intelligentscan role grant {role} {name}{holder}{of}"


def _role_rows(read: GovernanceReads) -> tuple[VouchedRow, ...]:
    return vouched(read, "role", {"workspace": DEFAULT_WORKSPACE}, actions=(ROLE_GRANTED, ROLE_REVOKED)).rows


def _administrators(held: Iterable[Held]) -> set[str]:
    return {h.person for h in held if h.role == "administrator" and h.product == EVERYWHERE}


def _require(read: GovernanceReads, held: list[Held], right: Right, product: str | None, who: Principal) -> None:
    here = (EVERYWHERE, product or EVERYWHERE)
    has = {h.role for h in own_roles(read, held, who) if h.product in here}
    if not has & MATRIX[right]:
        raise _not_permitted(right, product, who, has)


def _by_product(held: Iterable[Held]) -> dict[str, frozenset[Role]]:
    found: dict[str, frozenset[Role]] = {}
    for h in held:
        found[h.product] = found.get(h.product, frozenset()) | {h.role}
    return found


def _not_permitted(right: Right, product: str | None, who: Principal, has: set[Role]) -> NotPermitted:
    name = untrusted(who.name, 100)
    asked = [role for role in ROLES if role in MATRIX[right]]
    of = f" of the product '{untrusted(product, 80)}'" if product else ""
    of = of or ("" if right == "administer" else " of every product")
    least = _LEAST[right]
    # Who builds a product cannot become its reviewer, so a command that says so would not work.
    possible = not (conflicting(least) & has)
    does = f"an administrator runs '{grant_command(least, who if possible else None, product)}'"
    return NotPermitted(
        f"{name} is not {' or '.join(asked)}{of}; {_TO[right]} needs that role.",
        next=f"{does}." if possible else f"somebody else does it; {does} for another person.",
        details={"right": right, "product": product, "roles": list(asked)},
    )
