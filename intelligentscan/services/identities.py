"""Whom a name means: an account of a machine, or somebody known by the key that they hold."""

import pwd

from intelligentscan.domain.errors import InvalidArgument, InvalidName, NotFound
from intelligentscan.domain.people import KnownAs
from intelligentscan.domain.text import untrusted, visible
from intelligentscan.services.principal import person
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import Principal, PrincipalKind

MAX_PERSON = 100
_KINDS: dict[KnownAs, PrincipalKind] = {"account": "os-user", "key holder": "person"}


def whose(read: GovernanceReads, name: str, known_as: KnownAs | None = None) -> Principal:
    """Return whom a name means.

    Args:
        read: open on the governance database.
        name: name of an account, or of somebody whose key was enrolled.
        known_as: which of the two it is; needed if both exist, or for an account of another machine.

    Raises:
        InvalidArgument: it can mean two people.
        NotFound: nobody is known by it.
    """
    said = person_name(name)
    if known_as == "account":
        return Principal("os-user", said)
    holder = Principal("person", said)
    is_holder, is_account = read.find_principal(holder) is not None, has_account(read, said)
    if is_holder and is_account and known_as is None:
        raise InvalidArgument(
            f"'{said}' is an account, and also somebody known by an enrolled key.",
            next="say which with --account or --key-holder: 'intelligentscan role grant' takes it.",
        )
    if is_holder:
        return holder
    if is_account and known_as is None:
        return Principal("os-user", said)
    raise NotFound(
        f"Nobody is known as '{untrusted(said, 80)}'.",
        next="name an account of this machine, or enrol their key first with 'intelligentscan review enrol'; "
        "'intelligentscan role grant' with --account takes an account of another machine.",
    )


def whose_key(read: GovernanceReads, name: str, known_as: KnownAs | None = None) -> Principal:
    """Return whom a key is to be enrolled for: an account if there is one of this name, else somebody new.

    Raises:
        InvalidArgument: it can mean two people.
    """
    said = person_name(name)
    if known_as is None and has_account(read, said):
        return whose(read, said)
    return Principal(_KINDS[known_as or "key holder"], said)


def known_as(principal: Principal) -> KnownAs | None:
    """Return how we know somebody; None for a service."""
    return next((how for how, kind in _KINDS.items() if kind == principal.kind), None)


def has_account(read: GovernanceReads, name: str) -> bool:
    """Tell whether this machine has such an account, or one has acted on this store."""
    if name == person().name or read.find_principal(Principal("os-user", name)) is not None:
        return True
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return False
    return True


def person_name(text: str) -> str:
    """Return somebody's name, checked.

    Raises:
        InvalidName: it is empty, too long, or holds what nobody can see.
    """
    if not text.strip() or len(text) > MAX_PERSON or visible(text) != text or text != text.strip():
        raise InvalidName(
            f"'{untrusted(text, 60)}' is no name of a person.",
            next=f"give 1 to {MAX_PERSON} printable characters without blanks at either end.",
        )
    return text
