"""What the account of this process can reach, whatever it means to do: the fact behind each enforcement claim."""

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from intelligentscan.stores.guards.schema import read_schema

_BEYOND_SQL = ("pg_execute_server_program", "pg_write_server_files")
_REACH = text("""
WITH me AS (SELECT r.* FROM pg_catalog.pg_roles r WHERE r.rolname IN (session_user, current_user)),
spaces AS (SELECT n.* FROM pg_catalog.pg_namespace n WHERE n.nspname IN (:home, 'gov')),
tables AS (SELECT c.* FROM pg_catalog.pg_class c JOIN spaces s ON s.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'p')),
owners AS (SELECT relowner AS oid FROM tables UNION SELECT nspowner FROM spaces
           UNION SELECT p.proowner FROM pg_catalog.pg_proc p JOIN spaces s ON s.oid = p.pronamespace
           WHERE s.nspname = 'gov')
SELECT
  EXISTS (SELECT 1 FROM me WHERE rolsuper) AS superuser,
  EXISTS (SELECT 1 FROM me, owners WHERE pg_catalog.pg_has_role(me.oid, owners.oid, 'MEMBER')) AS owns,
  EXISTS (SELECT 1 FROM me, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
          AND pg_catalog.pg_has_role(me.oid, d.datdba, 'MEMBER')) AS owns_database,
  EXISTS (SELECT 1 FROM me WHERE rolcreaterole)
    AND pg_catalog.current_setting('server_version_num')::integer < 160000 AS makes_members,
  EXISTS (SELECT 1 FROM me, tables t WHERE pg_catalog.has_table_privilege(me.oid, t.oid, 'TRIGGER')) AS adds_triggers,
  EXISTS (SELECT 1 FROM me, pg_catalog.pg_roles o WHERE o.rolname = ANY(:beyond)
          AND pg_catalog.pg_has_role(me.oid, o.oid, 'MEMBER')) AS beyond_sql,
  EXISTS (SELECT 1 FROM me, tables t JOIN spaces s ON s.oid = t.relnamespace AND s.nspname = 'gov'
          WHERE pg_catalog.has_any_column_privilege(me.oid, t.oid, 'INSERT')) AS writes_governance
""")
_MEANS = {
    "superuser": "is a superuser",
    "owns": "owns MLflow's tables, the guards or the governance tables, or may become who does",
    "owns_database": "owns the database, and so may drop it",
    "makes_members": "may make itself a member of the role that owns the tables",
    "adds_triggers": "may add triggers to the tables",
    "beyond_sql": "may write files or run programs on the database's machine",
}


@dataclass(frozen=True, slots=True)
class Reach:
    """What the connected account could do.

    Attributes:
        account: the database's role, or the name of the operating system's user id on SQLite.
        superuser: whether nothing in the database can hold it back.
        alters_guards: whether it could take the guards away or go around them.
        writes_governance: whether it may add governance rows; which count only if they are signed.
        reasons: what lets it alter the guards, in words.
    """

    account: str
    superuser: bool
    alters_guards: bool
    writes_governance: bool
    reasons: tuple[str, ...]


def reach(connection: Connection) -> Reach:
    """Return what the connected account could do to the guards and to the governance tables."""
    if connection.dialect.name == "sqlite":
        return _of_file(connection)
    account = str(connection.exec_driver_sql("SELECT current_user").scalar_one())
    found = connection.execute(_REACH, {"home": read_schema(connection).home, "beyond": list(_BEYOND_SQL)}).one()
    facts = found._mapping
    reasons = tuple(said for name, said in _MEANS.items() if facts[name])
    return Reach(account, facts["superuser"], bool(reasons), facts["writes_governance"], reasons)


def _of_file(connection: Connection) -> Reach:
    row = connection.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar_one()
    path, user = Path(str(row)), os.geteuid()
    reasons = []
    if not row or os.access(path, os.W_OK, effective_ids=_EFFECTIVE):
        reasons.append("may write the store's file")
    elif path.stat().st_uid == user:
        reasons.append("owns the store's file")
    if row and os.access(path.parent, os.W_OK, effective_ids=_EFFECTIVE):
        reasons.append("may put another file in its place")
    return Reach(f"uid {user}", user == 0, bool(reasons), bool(reasons), tuple(reasons))


_EFFECTIVE = os.access in os.supports_effective_ids
