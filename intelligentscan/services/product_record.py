"""Products: onboarding one, and who has a role in it."""

import hashlib
from dataclasses import dataclass
from typing import cast

from intelligentscan.domain import names
from intelligentscan.domain.errors import NotPermitted, Refused, TooLarge
from intelligentscan.domain.people import EVERYWHERE, ROLES, Product, Role, Tier
from intelligentscan.domain.text import folded, untrusted
from intelligentscan.services import identities, rights
from intelligentscan.services.principal import person
from intelligentscan.services.product_names import CHANGED, ONBOARDED, no_product, product_rows
from intelligentscan.services.rights import Held, grant_command
from intelligentscan.services.role_changes import give
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, Principal, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.governance.vouched import VouchedRow
from intelligentscan.stores.interface import Stores

DEFAULT_TIER: Tier = "standard"
MAX_DEVELOPERS = 100
_SHOWN = 1_000
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """A product as somebody asked for it."""

    name: str
    description: str | None
    developers: tuple[str, ...]
    tier: Tier | None


def onboard(stores: Stores, wanted: Wanted) -> Product:
    """Make a product, or add to it what its owner may add.

    Raises:
        NotPermitted: the product is somebody else's, or the tier is an administrator's act.
        Refused: another product's name looks the same, or somebody reviews and builds it then.
    """
    name, description = names.model_name(wanted.name), names.description(wanted.description)
    if len(wanted.developers) > MAX_DEVELOPERS:
        raise TooLarge(
            f"{len(wanted.developers):,} developers were named; one call takes at most {MAX_DEVELOPERS}.",
            next="call again with fewer; the others can be added by further calls.",
        )
    with stores.governance.unit() as unit:
        existing = product_rows(unit.read)
        rows = existing.get(name)
        created = rows is None
        if rows is None:
            _refuse_lookalike(name, existing)
            tier = wanted.tier or DEFAULT_TIER
            if tier != DEFAULT_TIER:
                rights.require_administrator(unit.read)
            _append(unit, ONBOARDED, name, tier, description)
            give(unit, rights.held_roles(unit.read), person(), "owner", name)
        else:
            tier = cast("Tier", rows[-1]["tier"])
            if wanted.tier not in (None, tier):
                rights.require_administrator(unit.read)
                tier = wanted.tier or tier
                _append(unit, CHANGED, name, tier, None)
            if description is not None and description != _description(unit.read, rows):
                _refuse_unless_owner(unit.read, name, "describes")
                _append(unit, CHANGED, name, tier, description)
        _add_developers(unit, name, wanted.developers)
        return _product(unit.read, name, product_rows(unit.read)[name], rights.held_roles(unit.read), created=created)


def products(stores: Stores) -> list[Product]:
    """Return every product, in the order of their names."""
    if not stores.governance.installed():
        return []
    with stores.governance.reading() as read:
        held = rights.held_roles(read)
        return [_product(read, name, rows, held, created=False) for name, rows in sorted(product_rows(read).items())]


def product(stores: Stores, name: str) -> Product:
    """Return a product.

    Raises:
        NotFound: there is no such product.
    """
    wanted = names.model_name(name)
    if stores.governance.installed():
        with stores.governance.reading() as read:
            every = product_rows(read)
            if (rows := every.get(wanted)) is not None:
                return _product(read, wanted, rows, rights.held_roles(read), created=False)
            raise no_product(wanted, every)
    raise no_product(wanted)


def product_id(name: str) -> str:
    """Return the id of a product: the same for a name as long as the store exists."""
    return hashlib.sha256(f"{DEFAULT_WORKSPACE}\0{name}".encode()).hexdigest()[:_ID_DIGITS]


def _append(unit: GovernedUnit, action: str, name: str, tier: Tier, description: str | None) -> None:
    unit.append(
        Act(
            action,
            person(),
            Subject(workspace=DEFAULT_WORKSPACE),
            facts={"product": name, "product_id": product_id(name), "tier": tier},
            rows={"product": [{"workspace": DEFAULT_WORKSPACE, "product": name, "tier": tier}]},
            text={"description": description} if description else {},
        )
    )


def _add_developers(unit: GovernedUnit, name: str, developers: tuple[str, ...]) -> None:
    held = rights.held_roles(unit.read)
    there = {who for h, who in _in(unit.read, name, held) if h.role == "developer" and h.product == name}
    new = dict.fromkeys(identities.whose(unit.read, who) for who in developers)
    missing = [who for who in new if who not in there]
    if missing:
        _refuse_unless_owner(unit.read, name, "names developers of")
    for who in missing:
        give(unit, held, who, "developer", name)


def _refuse_unless_owner(read: GovernanceReads, name: str, does: str) -> None:
    """Let the owners of a product and administrators go on.

    Raises:
        NotPermitted: it is somebody else.
    """
    mine = rights.roles_of(read, person())
    if "owner" in mine.get(name, ()) or "owner" in mine.get(EVERYWHERE, ()):
        return
    if "administrator" in mine.get(EVERYWHERE, ()):
        return
    raise NotPermitted(
        f"The product '{untrusted(name, 80)}' is there and belongs to somebody else; only its owner {does} it.",
        next=f"call again with the name alone; or an administrator runs '{grant_command('owner', person(), name)}'.",
    )


def _refuse_lookalike(name: str, existing: dict[str, list[VouchedRow]]) -> None:
    alike = next((other for other in existing if folded(other) == folded(name)), None)
    if alike is not None:
        shown = untrusted(alike, 80)
        raise Refused(
            f"The product '{shown}' is there, and '{untrusted(name, 80)}' looks the same to people.",
            next=f"use '{shown}', or a name that differs in more than case.",
        )


def _description(read: GovernanceReads, rows: list[VouchedRow]) -> str | None:
    said = (read.text_of(row.event, "description") for row in reversed(rows) if "description" in row.texts)
    return next(said, None)


def _in(read: GovernanceReads, name: str, held: list[Held]) -> list[tuple[Held, Principal]]:
    """Return the roles that hold in a product, each with who bears it."""
    here = [h for h in held if h.product in (name, EVERYWHERE)]
    bearers = rights.bearers(read, here)
    return [(h, bearers[h.event]) for h in here if h.event in bearers]


def _product(read: GovernanceReads, name: str, rows: list[VouchedRow], held: list[Held], *, created: bool) -> Product:
    description = _description(read, rows)
    roles: dict[Role, list[str]] = {}
    for h, who in _in(read, name, held):
        shown = untrusted(who.name, 100)
        if h.role != "administrator" and shown not in roles.setdefault(h.role, []):
            roles[h.role].append(shown)
    return Product(
        product_id=product_id(name),
        name=untrusted(name, names.MAX_NAME),
        description=untrusted(description, _SHOWN) if description else None,
        workspace=DEFAULT_WORKSPACE,
        tier=cast("Tier", rows[-1]["tier"]),
        roles={role: roles[role] for role in ROLES if role in roles},
        created=created,
        event=rows[0].event,
    )
