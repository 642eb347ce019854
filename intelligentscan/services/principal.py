"""Who is asking: the real user of this process, never an environment variable or an argument."""

import os
import pwd

from intelligentscan.stores.governance.records import Principal


def real_user() -> str:
    """Return the login name of the process's real user id, or the number if it has no name."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def person() -> Principal:
    """Return the person at this process."""
    return Principal("os-user", real_user())
