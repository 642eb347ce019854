"""The promotion policy in force: read from signed events, shown, and replaced by an administrator's act.

Until a policy was activated the built-in `solo` decides. The policy that was activated last is kept as canonical
JSON in the event itself: neither a later release nor a row written past the trail changes what it says.
"""

import re

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import GovernanceUnready, InvalidArgument, NotFound, Refused
from intelligentscan.domain.policy import BUILT_IN_POLICIES, PolicyInForce, PolicyList, PolicyRow, PromotionPolicy
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.policy import (
    DEFAULT_POLICY,
    built_in,
    canonical,
    digest_of,
    from_canonical,
    from_yaml,
)
from intelligentscan.services.denials import Denials
from intelligentscan.services.locks import checked_reason
from intelligentscan.services.principal import person
from intelligentscan.services.rights import enforced, grant_command, require
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import Act, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.governance.vouched import VouchedRow, vouched
from intelligentscan.stores.interface import Stores

POLICY_ACTIVATED = "policy.activated"
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


class PolicyService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, denials: Denials | None = None) -> None:
        self._store = store
        self._denials = denials or Denials(store)

    async def in_force(self) -> PolicyInForce:
        """Return the policy that decides now.

        Raises:
            GovernanceUnready: this release cannot read it.
        """

        def look(stores: Stores) -> PolicyInForce:
            if not stores.governance.installed():
                return policy_in_force(None)
            with stores.governance.reading() as read:
                return policy_in_force(read)

        return await self._store.read(look)

    async def list(self) -> PolicyList:
        """Return the policies that are built in, and those that were activated before, the newest first."""
        return PolicyList(policies=_listed(await self._store.read(_activated_in)))

    async def show(self, name: str | None = None) -> PromotionPolicy:
        """Return a policy.

        Args:
            name: name of one that is built in or was activated before, or the beginning of a digest that `list`
                shows; the policy in force if None.

        Raises:
            NotFound: there is none.
        """
        if name is None:
            return (await self.in_force()).policy
        return _named(await self._store.read(_activated_in), name.strip())

    async def activate(self, policy: str, reason: str) -> PolicyInForce:
        """Bring a policy into force: an administrator's act, which stays in the trail.

        Reviews that were made under another policy count no more. Activating the policy that was activated last
        changes nothing.

        Args:
            policy: name of a policy, as `show` takes it; or the YAML of one.
            reason: why.

        Raises:
            InvalidArgument: the YAML is no policy, or there is no reason.
            NotFound: no policy has this name.
            NotPermitted: whoever asks is no administrator.
            Refused: it asks for reviewers, and nobody is administrator who could give that role.
        """
        because = checked_reason(reason, "policy activate")
        given = policy.strip()
        own = _own(policy) if "\n" in policy or ":" in policy else None

        def act(stores: Stores) -> PolicyInForce:
            with stores.governance.unit() as unit:
                return _activate(unit, own, given, because)

        async with self._denials.noting("policy activate", Subject()):
            return await self._store.write(act)


def policy_in_force(read: GovernanceReads | None) -> PolicyInForce:
    """Return the policy that decides now.

    Args:
        read: open on the governance database, in the transaction of the act that it decides; None if there is none.

    Raises:
        GovernanceUnready: this release cannot read the policy that was activated last.
    """
    last = _newest(_activated(read)) if read is not None else None
    if read is None or last is None:
        policy = built_in(DEFAULT_POLICY)
        return PolicyInForce(policy=policy, digest=digest_of(policy), activated=False, since=None, by=None, event=None)
    who = read.principal_of(last.actor)
    return PolicyInForce(
        policy=_read(last),
        digest=last["digest"],
        activated=True,
        since=rfc3339(last.at),
        by=untrusted(who.name, 200) if who else None,
        event=last.event,
    )


def _activated(read: GovernanceReads) -> list[VouchedRow]:
    """Return every activation, the oldest first."""
    return list(vouched(read, "policy", {}, actions=(POLICY_ACTIVATED,)).rows)


def _activated_in(stores: Stores) -> list[VouchedRow]:
    if not stores.governance.installed():
        return []
    with stores.governance.reading() as read:
        return _activated(read)


def _newest(rows: list[VouchedRow]) -> VouchedRow | None:
    return max(rows, key=lambda row: row.event, default=None)


def _read(row: VouchedRow) -> PromotionPolicy:
    try:
        if sha256_hex(row["document"].encode()) != row["digest"]:
            raise ValueError("digest")
        return from_canonical(row["document"])
    except ValueError as exc:
        raise GovernanceUnready(
            f"The policy that event {row.event} brought into force cannot be read by this release; nothing can be "
            "weighed.",
            next="use the release that activated it, or an administrator activates another one: "
            "'intelligentscan policy list', then 'intelligentscan policy activate'.",
        ) from exc


def _listed(rows: list[VouchedRow]) -> list[PolicyRow]:
    newest = _newest(rows)
    in_force = newest["digest"] if newest else digest_of(built_in(DEFAULT_POLICY))
    last = {row["digest"]: row for row in rows}
    listed: list[PolicyRow] = []
    for name in BUILT_IN_POLICIES:
        policy = built_in(name)
        digest = digest_of(policy)
        then = last.pop(digest, None)
        listed.append(_row(name, policy.version, digest, in_force, built=True, at=then.at if then else None))
    for digest, row in sorted(last.items(), key=lambda item: -item[1].event):
        version = int(row.facts.get("version", 1))
        listed.append(_row(row["policy"], version, digest, in_force, built=False, at=row.at))
    return listed


def _row(name: str, version: int, digest: str, in_force: str, *, built: bool, at: int | None) -> PolicyRow:
    return PolicyRow(
        policy=name,
        version=version,
        digest=digest,
        in_force=digest == in_force,
        built_in=built,
        at=rfc3339(at),
    )


def _named(rows: list[VouchedRow], name: str) -> PromotionPolicy:
    """Return the policy of a name, a built-in one before one that was activated, or of a digest."""
    if name in BUILT_IN_POLICIES:
        return built_in(name)
    newest_first = sorted(rows, key=lambda row: -row.event)
    for row in newest_first:
        if row["policy"] == name:
            return _read(row)
    if _DIGEST.fullmatch(name):
        known = {digest_of(built_in(each)): built_in(each) for each in BUILT_IN_POLICIES}
        found = {d for d in (*known, *(row["digest"] for row in rows)) if d.startswith(name)}
        if len(found) == 1:
            digest = found.pop()
            return known.get(digest) or _read(next(row for row in newest_first if row["digest"] == digest))
    raise NotFound(
        f"There is no policy '{untrusted(name, 60)}'.",
        next="'intelligentscan policy list' shows those there are; to bring your own, name its YAML file.",
    )


def _own(text: str) -> PromotionPolicy:
    policy = from_yaml(text)
    if policy.policy in BUILT_IN_POLICIES and digest_of(policy) != digest_of(built_in(policy.policy)):
        raise InvalidArgument(
            f"The name '{policy.policy}' belongs to a policy that ships, and this one says something else.",
            next="give yours another name in its field 'policy', so that nobody takes it for that one.",
        )
    return policy


def _activate(unit: GovernedUnit, own: PromotionPolicy | None, name: str, reason: str) -> PolicyInForce:
    require(unit.read, "administer", None)
    rows = _activated(unit.read)
    policy = own or _named(rows, name)
    document, digest = canonical(policy), digest_of(policy)
    last = _newest(rows)
    if last is not None and last["digest"] == digest:
        return policy_in_force(unit.read)
    if (policy.review.four_eyes or policy.review.authenticated) and not enforced(unit.read):
        raise Refused(
            f"The policy '{policy.policy}' asks for other people's approval, and nobody is administrator: anybody "
            "could put it out of force again.",
            next=f"become administrator first: '{grant_command('administrator', person(), None)}'; "
            "then activate it again.",
        )
    unit.append(
        Act(
            POLICY_ACTIVATED,
            person(),
            facts={
                "policy": digest,
                "name": policy.policy,
                "version": policy.version,
                "replaces": last["digest"] if last else digest_of(built_in(DEFAULT_POLICY)),
            },
            rows={"policy": [{"policy": policy.policy, "digest": digest, "document": document}]},
            text={"reason": reason},
        )
    )
    return policy_in_force(unit.read)
