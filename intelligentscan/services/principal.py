"""Who is asking: the real user of this process, never an environment variable or an argument."""

import os
import pwd


def real_user() -> str:
    """Return the login name of the process's real user id, or the number if it has no name."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
