"""People: who has which role, products with their people, and the keys of reviewers. One use case per method."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from intelligentscan.domain.people import KnownAs, Product, ReviewerKey, Role, RoleChange, RoleList, Tier
from intelligentscan.services import product_record, reviewer_keys, role_changes
from intelligentscan.services.denials import Denials
from intelligentscan.services.reviewer_keys import ActiveKey, active_key
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Subject
from intelligentscan.stores.interface import Stores

__all__ = ["ActiveKey", "PeopleService", "active_key"]
T = TypeVar("T")


class PeopleService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, denials: Denials | None = None) -> None:
        self._store = store
        self._denials = denials or Denials(store)

    async def grant(
        self,
        role: Role,
        who: str,
        product: str | None = None,
        reason: str | None = None,
        known_as: KnownAs | None = None,
    ) -> RoleChange:
        """Give a role: an administrator's act; an owner gives `developer` too. Nothing changes if they have it.

        The first administrator makes themself, once; from then on roles decide who may do what.

        Args:
            role: which role.
            who: an account, or somebody known by an enrolled key.
            product: for this product; for every one if None. An administrator is one for every product.
            reason: why, for the trail.
            known_as: what `who` is, if both exist.

        Raises:
            NotPermitted: who asks may not give it.
            Refused: they review and build the same product then.
            NotFound: nobody is known by the name, or there is no such product.
        """
        change = role_changes.Change(role, who, product, reason, known_as)
        return await self._act("role grant", lambda s: role_changes.grant(s, change))

    async def revoke(
        self,
        role: Role,
        who: str,
        product: str | None = None,
        reason: str | None = None,
        known_as: KnownAs | None = None,
    ) -> RoleChange:
        """Take a role away; nothing changes if they do not have it.

        Args:
            role: which role.
            who: an account, somebody known by an enrolled key, or the id that `roles` shows in place of a name.
            product: for this product; the one for every product if None.
            reason: why, for the trail.
            known_as: what `who` is, if both exist.

        Raises:
            NotPermitted: who asks may not take it.
            Refused: it is the last administrator.
        """
        change = role_changes.Change(role, who, product, reason, known_as)
        return await self._act("role revoke", lambda s: role_changes.revoke(s, change))

    async def roles(self, product: str | None = None) -> RoleList:
        """Return who has which role; of one product with those that hold for every product."""
        return await self._store.read(lambda s: role_changes.roles(s, product))

    async def onboard(
        self,
        name: str,
        description: str | None = None,
        developers: Sequence[str] = (),
        tier: Tier | None = None,
    ) -> Product:
        """Make a product, owned by who asks; return it as it is if it is there.

        Its owner may call again to add developers or to describe it anew.

        Args:
            name: what models and experiments name as their product.
            description: text for people.
            developers: accounts, or people known by enrolled keys.
            tier: which gates apply; any but the default is an administrator's act.

        Raises:
            NotPermitted: the product is somebody else's, or the tier is an administrator's act.
            Refused: another product's name looks the same, or somebody reviews and builds it then.
        """
        wanted = product_record.Wanted(name, description, tuple(developers), tier)
        return await self._act("onboard_product", lambda s: product_record.onboard(s, wanted))

    async def products(self) -> list[Product]:
        """Return every product, in the order of their names."""
        return await self._store.read(product_record.products)

    async def product(self, name: str) -> Product:
        """Return a product.

        Raises:
            NotFound: there is no such product.
        """
        return await self._store.read(lambda s: product_record.product(s, name))

    async def enrol(
        self, who: str, public_key_text: str, proof: str | None = None, known_as: KnownAs | None = None
    ) -> ReviewerKey:
        """Enrol somebody's key, whose signatures count as theirs from then on: an administrator's act.

        As long as nobody is administrator, everybody enrols their own.

        Args:
            who: an account; or a name of their own for somebody whom we know by this key alone.
            public_key_text: a line as in `id_ed25519.pub`, or a public key in PEM.
            proof: signature by the key over `reviewer_keys.statement`: its owner agrees.
            known_as: what `who` is, if both exist.

        Raises:
            NotPermitted: who asks may not enrol it.
            SignatureInvalid: there is no proof, or it does not fit.
            Refused: the key is another person's, or was retired.
        """
        offered = reviewer_keys.offer(who, public_key_text, proof, known_as)
        return await self._act("review enrol", lambda s: reviewer_keys.enrol(s, offered))

    async def retire(self, fingerprint: str, reason: str | None, *, compromised: bool = False) -> ReviewerKey:
        """Let a key sign no more: an administrator's act; everybody retires their own.

        What it signed before goes on counting, unless somebody else may have had it: then no approval of it counts.

        Raises:
            NotPermitted: who asks may not retire it.
            NotFound: no such key is enrolled.
        """
        return await self._act(
            "review retire-key", lambda s: reviewer_keys.retire(s, fingerprint, reason, compromised=compromised)
        )

    async def keys(self) -> list[ReviewerKey]:
        """Return every key that was ever enrolled, in that order."""
        return await self._store.read(reviewer_keys.keys)

    async def _act(self, what: str, act: Callable[[Stores], T]) -> T:
        async with self._denials.noting(what, Subject(workspace=DEFAULT_WORKSPACE)):
            return await self._store.write(act)
