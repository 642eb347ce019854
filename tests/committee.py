"""A committee for tests: reviewers known by keys, a policy that asks for what a test is about, and a clock to set."""

from dataclasses import dataclass, field
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from intelligentscan._ssh_signature import fingerprint, public_of, sign_sshsig
from intelligentscan.app import Services
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.domain.review import DecisionMade, ReviewDetails
from intelligentscan.gates.interface import ReviewFacts
from intelligentscan.gates.policy import built_in
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.principal import real_user
from intelligentscan.services.review import ReviewService, now_ms
from intelligentscan.services.review_facts import review_facts
from intelligentscan.services.review_state import NAMESPACE
from intelligentscan.services.reviewer_keys import NAMESPACE as ENROL
from intelligentscan.services.reviewer_keys import statement
from intelligentscan.stores.interface import Stores

ME = real_user()


@dataclass
class Clock:
    """A time that only tests move."""

    now: int = field(default_factory=now_ms)

    def __call__(self) -> int:
        return self.now


@dataclass(frozen=True)
class Committee:
    """A store whose owner is the account of the tests, and people who decide with their keys.

    Attributes:
        services: the services of the store.
        reviews: their reviews, by a clock of the test.
        clock: that clock.
        keys: private keys by the names of their owners.
    """

    services: Services
    reviews: ReviewService
    clock: Clock
    keys: dict[str, Ed25519PrivateKey]

    async def decide(self, who: str | None, asked: str, verdict: Any = "approve") -> DecisionMade:
        """Decide as somebody, with the account alone if nobody is named."""
        return await self.reviews.decide(asked, verdict, f"{verdict} by {who}", key=self.keys[who] if who else None)

    async def outcome(self, who: str | None, asked: str, verdict: Any = "approve") -> str:
        """Decide; return the state of the review, or the code and text of the refusal."""
        try:
            return (await self.decide(who, asked, verdict)).review_status
        except IntelligentScanError as error:
            assert error.next, error
            return f"{error.code} {error}"

    async def request(self, version: int = 1, **evidence: object) -> str:
        """Request a review of `fm`; return its asked."""
        return (await self.reviews.request("fm", version, evidence or None)).review_id

    async def shown(self, asked: str) -> ReviewDetails:
        return await self.reviews.show(asked)

    async def facts(self, version: int = 1) -> ReviewFacts | None:
        """Return what a gate would hear about a version of `fm` now."""
        return await self.services.store.read(lambda s: facts_of(s, version, self.clock.now))

    async def signed(self, who: str, asked: str, verdict: Any = "approve") -> str:
        """Return what `ssh-keygen -Y sign` makes of the statement."""
        return sign_sshsig(self.keys[who], NAMESPACE, await self.reviews.statement(asked, verdict))


def facts_of(stores: Stores, version: int, now: int) -> ReviewFacts | None:
    with stores.governance.reading() as read:
        seal = read.seals("default", "fm", version)[version]
        policy = policy_in_force(read)
        return review_facts(read, "default", "fm", version, seal.manifest_digest, policy.digest, now)


async def committee(services: Services, *reviewers: str, **review: object) -> Committee:
    """Return a committee under the policy `solo`, or under one that asks for this of a review.

    With reviewers, the account of the tests is administrator and owner, and they are enrolled.
    """
    clock = Clock()
    reviews = ReviewService(
        services.store, services._archive, services._seals, services.trail, services._denials, clock
    )
    made = Committee(services, reviews, clock, {})
    if reviewers:
        await services.people.grant("administrator", ME)
        await services.people.grant("owner", ME)
        for who in reviewers:
            await enrol(made, who)
            await services.people.grant("reviewer", who, known_as="key holder")
    if review:
        await services.policies.activate(policy_text(**review), "for a test")
    return made


async def enrol(made: Committee, who: str) -> str:
    """Enrol a new key of somebody; return its fingerprint."""
    key = made.keys[who] = Ed25519PrivateKey.generate()
    public = public_of(key)
    proof = sign_sshsig(key, ENROL, statement(who, fingerprint(public)))
    known = "account" if who == ME else "key holder"
    return (await made.services.people.enrol(who, public, proof, known)).fingerprint  # type: ignore[arg-type]


def policy_text(**review: object) -> str:
    """Return the YAML of a policy like `solo`, whose section `review` says this."""
    data = built_in("solo").model_dump(mode="json")
    gates = data["tiers"]["standard"]["Production"]
    if review.get("four_eyes"):
        gates["segregation_of_duties"] = {}
    data |= {"policy": "ours", "confirmation": "none", "review": {**data["review"], **review}}
    return yaml.safe_dump(data)
