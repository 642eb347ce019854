"""The active locks as the guards see them, and the line in which a locked experiment is named."""

import re
from dataclasses import dataclass

from sqlalchemy import Connection

from intelligentscan.stores.governance.tables import table_name

_LONGEST = 120
# control characters, separators of lines and signs that turn the reading direction
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class ActiveLock:
    """A lock that was not taken back."""

    experiment_id: int
    experiment_name: str
    next_experiment: str


def active_locks(connection: Connection) -> tuple[ActiveLock, ...]:
    """Return the active locks, oldest first."""
    dialect = connection.dialect.name
    lock, unlock = table_name("experiment_lock", dialect), table_name("experiment_unlock", dialect)
    rows = connection.exec_driver_sql(
        f"SELECT l.experiment_id, l.experiment_name, l.next_experiment FROM {lock} AS l "  # noqa: S608
        f"WHERE NOT EXISTS (SELECT 1 FROM {unlock} AS u WHERE u.lock_event = l.event) ORDER BY l.event"
    )
    return tuple(ActiveLock(*row) for row in rows)


def locked_text(lock: ActiveLock) -> str:
    """Return the refusal that names the experiment and the next one: one bounded line."""
    name, further = shown(lock.experiment_name), shown(lock.next_experiment)
    return f"EXPERIMENT_LOCKED: experiment '{name}' was locked by a registration; continue in '{further}'."


def shown(name: str) -> str:
    """Return a name cut to a bearable length, without characters that would break the line."""
    return _UNSEEN.sub("?", name if len(name) <= _LONGEST else f"{name[:_LONGEST]}...")
