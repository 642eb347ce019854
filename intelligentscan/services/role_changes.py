"""Giving and taking roles, and listing who has which."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import InvalidArgument, NotPermitted, Refused
from intelligentscan.domain.people import EVERYWHERE, KnownAs, Role, RoleChange, RoleGrant, RoleList
from intelligentscan.domain.text import folded, untrusted
from intelligentscan.services import identities, rights
from intelligentscan.services.identities import known_as
from intelligentscan.services.locks import checked_reason
from intelligentscan.services.principal import person
from intelligentscan.services.product_names import no_product, product_names
from intelligentscan.services.rights import ROLE_GRANTED, ROLE_REVOKED, Held, grant_command
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, Principal, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import Stores

_NOT_YET = "As long as nobody is administrator, roles refuse nobody."
_FROM_NOW = "From now on roles decide who may do what; 'intelligentscan role list' shows them."
_ERASED = "Where an id stands for a person, the name was erased or changed; nobody has that role."


@dataclass(frozen=True, slots=True)
class Change:
    """A role to give or to take, as somebody asked for it."""

    role: Role
    who: str
    product: str | None
    reason: str | None
    known_as: KnownAs | None

    def checked(self) -> "Change":
        """Return it with its product and reason checked.

        Raises:
            InvalidArgument: a part of it cannot be.
        """
        product = names.model_name(self.product) if self.product is not None else None
        if self.role == "administrator" and product is not None:
            raise InvalidArgument(
                "An administrator is one for every product.", next="call again without --product; or choose owner."
            )
        reason = self.reason if self.reason and self.reason.strip() else None
        return replace(self, product=product, reason=checked_reason(reason, "role") if reason else None)


def grant(stores: Stores, asked: Change) -> RoleChange:
    """Give a role.

    Raises:
        NotPermitted: who asks may not give it.
        Refused: they review and build the same product then.
        NotFound: nobody is known by the name, or there is no such product.
    """
    change = asked.checked()
    with stores.governance.unit() as unit:
        held = rights.held_roles(unit.read)
        first = change.role == "administrator" and not rights.enforced(unit.read)
        if not first:
            _refuse_unless_giver(unit.read, held, change)
        who = identities.whose(unit.read, change.who, change.known_as)
        if first:
            _refuse_first(unit.read, who)
        if change.product is not None and change.product not in (there := product_names(unit.read)):
            raise no_product(change.product, there)
        mine = rights.own_roles(unit.read, held, who)
        before = next((h for h in mine if (h.role, h.product) == (change.role, change.product or EVERYWHERE)), None)
        if before is not None:
            return _change(change, who, granted=True, changed=False, event=before.event)
        event = give(unit, held, who, change.role, change.product, change.reason, first=first)
        return _change(change, who, granted=True, changed=True, event=event, notes=[_FROM_NOW] if first else [])


def revoke(stores: Stores, asked: Change) -> RoleChange:
    """Take a role away.

    Raises:
        NotPermitted: who asks may not take it.
        Refused: it is the last administrator.
    """
    change = asked.checked()
    with stores.governance.unit() as unit:
        held = rights.held_roles(unit.read)
        _refuse_unless_giver(unit.read, held, change)
        same = [h for h in held if (h.role, h.product) == (change.role, change.product or EVERYWHERE)]
        found = _bearer(unit.read, same, change)
        if found is None:
            who = identities.whose(unit.read, change.who, change.known_as)
            return _change(change, who, granted=False, changed=False, event=None)
        if change.role == "administrator":
            _refuse_last(rights.bearers(unit.read, same), found)
        who = unit.read.principal_of(found.person) or Principal("os-user", found.person)
        row = _row(change.role, change.product, found.person, granted=0)
        event = unit.append(_act(ROLE_REVOKED, change, found.person, row))
        return _change(change, who, granted=False, changed=True, event=event.seq)


def roles(stores: Stores, product: str | None) -> RoleList:
    """Return who has which role; of one product with those that hold for every product.

    Raises:
        NotFound: there is no such product.
    """
    wanted = names.model_name(product) if product is not None else None
    if not stores.governance.installed():
        if wanted is not None:
            raise no_product(wanted)
        return RoleList(grants=[], enforced=False, notes=[_NOT_YET])
    with stores.governance.reading() as read:
        if wanted is not None and wanted not in (there := product_names(read)):
            raise no_product(wanted, there)
        every = rights.held_roles(read)
        held = [h for h in every if wanted is None or h.product in (wanted, EVERYWHERE)]
        bearers = rights.bearers(read, held)
        enforced = any(h.role == "administrator" for h in every)
    notes = [] if enforced else [_NOT_YET]
    return RoleList(
        grants=[_grant(h, bearers.get(h.event)) for h in held],
        enforced=enforced,
        notes=notes + ([_ERASED] if len(bearers) < len(held) else []),
    )


def give(
    unit: GovernedUnit,
    held: Iterable[Held],
    who: Principal,
    role: Role,
    product: str | None,
    reason: str | None = None,
    *,
    first: bool = False,
) -> int:
    """Append the event that gives a role, and return its number; whether it may be given is checked before.

    Raises:
        Refused: they review and build the same product then.
    """
    refuse_both_sides(unit.read, held, who, role, product)
    change = Change(role, who.name, product, reason, None)
    holder = unit.principal(who)
    row = _row(role, product, holder, granted=1)
    return unit.append(_act(ROLE_GRANTED, change, holder, row, first=first)).seq


def refuse_both_sides(
    read: GovernanceReads, held: Iterable[Held], who: Principal, role: Role, product: str | None
) -> None:
    """Refuse that one person builds and reviews the same product; spellings of one name are one person.

    Raises:
        Refused: names the role that stands against it, and the command that takes it.
    """
    opposed = [
        h
        for h in held
        if h.role in rights.conflicting(role) and (product is None or h.product in (EVERYWHERE, product))
    ]
    known = rights.bearers(read, opposed)
    for h in opposed:
        bearer = known.get(h.event)
        if bearer is not None and folded(bearer.name) == folded(who.name):
            of = f"of '{untrusted(h.product, 80)}'" if h.product else "of every product"
            taken = grant_command(h.role, bearer, h.product or None).replace(" grant ", " revoke ", 1)
            raise Refused(
                f"{untrusted(bearer.name, 100)} is {h.role} {of}; who builds a product cannot be its reviewer.",
                next=f"choose somebody else; or an administrator takes that role first: '{taken}'.",
                details={"role": h.role, "event": h.event},
            )


def _refuse_unless_giver(read: GovernanceReads, held: Iterable[Held], change: Change) -> None:
    """Let administrators go on; and the owner of a product, who names its developers.

    Raises:
        NotPermitted: it is somebody else.
    """
    if change.role == "developer" and change.product is not None:
        mine = rights.own_roles(read, held, person())
        if any(h.role == "owner" and h.product == change.product for h in mine):
            return
    rights.require_administrator(read)


def _refuse_first(read: GovernanceReads, who: Principal) -> None:
    """Let somebody become the first administrator only by themself, and only once in the whole trail."""
    if who != person():
        raise NotPermitted(
            "The first administrator can only make themself.",
            next=f"'{grant_command('administrator', person(), None)}', and then for somebody else.",
        )
    if (event := rights.first_administrator(read)) is not None:
        raise NotPermitted(
            f"The first administrator was made before (event {event}); that happens only once.",
            next=f"look at 'intelligentscan history', and restore the store from a backup in which event {event} "
            "still counts.",
        )


def _refuse_last(bearers: dict[int, Principal], leaving: Held) -> None:
    if set(bearers) <= {leaving.event}:
        raise Refused(
            "This is the last administrator; without one nobody could give roles any more.",
            next=f"make somebody else one first: '{grant_command('administrator', None, None)}'.",
        )


def _bearer(read: GovernanceReads, same: list[Held], change: Change) -> Held | None:
    """Return which of these grants is meant, None if none of them."""
    by_id = next((h for h in same if h.person == change.who), None)
    if by_id is not None:
        return by_id
    bearers = rights.bearers(read, same)
    wanted = [
        h
        for h in same
        if (who := bearers.get(h.event)) is not None
        and who.name == change.who
        and change.known_as in (None, known_as(who))
    ]
    if len(wanted) > 1:
        identities.whose(read, change.who, change.known_as)  # says how to choose
    return wanted[0] if wanted else None


def _row(role: Role, product: str | None, principal_id: str, *, granted: int) -> dict[str, Any]:
    return {
        "workspace": DEFAULT_WORKSPACE,
        "product": product or EVERYWHERE,
        "role": role,
        "person": principal_id,
        "granted": granted,
    }


def _act(action: str, change: Change, principal_id: str, row: dict[str, Any], *, first: bool = False) -> Act:
    facts: dict[str, Any] = {"role": change.role, "product": change.product, "person": principal_id}
    return Act(
        action,
        person(),
        Subject(workspace=DEFAULT_WORKSPACE),
        facts=facts | ({"first": True} if first else {}),
        rows={"role": [row]},
        text={"reason": change.reason} if change.reason else {},
    )


def _grant(held: Held, who: Principal | None) -> RoleGrant:
    return RoleGrant(
        person=untrusted(who.name, 100) if who else held.person,
        known_as=known_as(who) if who else None,
        role=held.role,
        product=held.product or None,
        since=rfc3339(held.at) or "",
        event=held.event,
    )


def _change(
    change: Change, who: Principal, *, granted: bool, changed: bool, event: int | None, notes: list[str] | None = None
) -> RoleChange:
    return RoleChange(
        person=untrusted(who.name, 100),
        role=change.role,
        product=change.product,
        granted=granted,
        changed=changed,
        event=event,
        notes=notes or [],
    )
