"""Who may ask for what: roles, the acts that they allow, products, and the keys of reviewers."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from intelligentscan.domain.noun import Noun

Role = Literal["administrator", "owner", "developer", "reviewer", "auditor"]
Right = Literal[
    "read", "register", "stage", "release", "withdraw", "request_review", "attest", "decide", "revoke", "administer",
]  # fmt: skip
Tier = Literal["standard", "scan-config"]
KnownAs = Literal["account", "key holder"]
"""How we know somebody: by an account of the machine, or by the key that they hold."""
ROLES: tuple[Role, ...] = get_args(Role)
EVERYWHERE = ""
"""In place of a product: the role holds for every product."""

MATRIX: dict[Right, frozenset[Role]] = {
    "read": frozenset({"administrator", "owner", "developer", "reviewer", "auditor"}),
    "register": frozenset({"owner", "developer"}),
    "stage": frozenset({"owner", "developer"}),
    "release": frozenset({"owner"}),
    "withdraw": frozenset({"owner", "reviewer"}),
    "request_review": frozenset({"owner", "developer"}),
    "attest": frozenset({"owner", "developer", "reviewer"}),
    "decide": frozenset({"reviewer"}),
    "revoke": frozenset({"reviewer"}),
    "administer": frozenset({"administrator"}),
}
"""The roles that each act asks for; one of them is enough. As long as nobody is administrator, nobody is refused.

An administrator gives roles, and can do nothing else by that: who decides who may is not the one who does.
"""


class RoleGrant(Noun):
    """A role that somebody has."""

    person: Annotated[str, Field(description="Untrusted text.")]
    known_as: KnownAs | None = None
    role: Role
    product: Annotated[str | None, Field(description="None: for every product.")]
    since: str
    event: int


class RoleList(Noun):
    """Who has which role."""

    grants: list[RoleGrant]
    enforced: Annotated[bool, Field(description="False as long as nobody is administrator: nobody is refused then.")]
    notes: list[str] = []


class RoleChange(Noun):
    """A role that was just given or taken."""

    person: Annotated[str, Field(description="Untrusted text.")]
    role: Role
    product: str | None
    granted: bool
    changed: bool
    event: int | None
    notes: list[str] = []


class Product(Noun):
    """An onboarded AI product, and who has a role in it."""

    product_id: str
    name: str
    description: Annotated[str | None, Field(description="Untrusted text.")]
    workspace: str
    tier: Tier
    roles: Annotated[dict[str, list[str]], Field(description="Role to people; untrusted text.")]
    created: Annotated[bool, Field(description="False if it was there before.")] = True
    event: int | None = None


class ReviewerKey(Noun):
    """A key whose signatures count as somebody's own."""

    fingerprint: Annotated[str, Field(description="sha256 of the public key's blob, in hex.")]
    person: Annotated[str, Field(description="Untrusted text.")]
    known_as: KnownAs | None = None
    public: str
    active: bool
    compromised: Annotated[
        bool, Field(description="Somebody else may have had it; what it approved does not count.")
    ] = False
    since: str
    event: int
