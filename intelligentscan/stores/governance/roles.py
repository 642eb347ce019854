"""The PostgreSQL roles that split who may do what, and what an account can reach with the one it has.

The owner owns MLflow's tables, the guards and the governance tables, and does nothing but migrations. The
app role reads and writes MLflow's rows: MLflow's clients and servers, and people. The NPTA is an app role
that may also add governance rows. The auditor reads. Nobody but the owner can disable a guard.

Roles are made without LOGIN: who gets in, and how, is the administrator's to decide.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from intelligentscan.domain.errors import InvalidArgument, NotAdopted, NotPermitted, Refused
from intelligentscan.stores.governance.tables import ERASABLE, EVERY, SCHEMA
from intelligentscan.stores.guards.schema import quoted, read_schema

_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_KEYWORDS = frozenset({"public", "none", "postgres", "current_user", "current_role", "session_user", "user"})
_PLAIN = "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_READ_WRITE = "SELECT, INSERT, UPDATE, DELETE"
_MLFLOW_VERSION = "alembic_version"
_ALMIGHTY = ("pg_write_all_data", "pg_execute_server_program", "pg_write_server_files", "pg_read_server_files")
_TABLES = text(
    "SELECT c.relname, pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :home AND c.relkind IN ('r', 'p')"
    " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY 1"
)
_SEQUENCES = text(
    "SELECT c.oid::pg_catalog.regclass::text, t.relname FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_depend d ON d.objid = c.oid AND d.deptype IN ('a', 'i')"
    " AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass JOIN pg_catalog.pg_class t ON t.oid = d.refobjid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :home AND c.relkind = 'S' ORDER BY 1"
)
_FUNCTIONS = text(
    "SELECT p.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc p"
    " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'gov' OR (n.nspname = :home"
    " AND EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t WHERE t.tgfoid = p.oid AND NOT t.tgisinternal)) ORDER BY 1"
)
_GRANTEES = text(
    "SELECT DISTINCT r.rolname FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace CROSS JOIN pg_catalog.aclexplode(c.relacl) a"
    " LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee"
    " WHERE n.nspname IN (:home, 'gov') AND c.relkind IN ('r', 'p') AND a.grantee <> c.relowner"
    " AND (r.rolname IS NULL OR r.rolname <> :owner) ORDER BY 1"
)


@dataclass(frozen=True, slots=True)
class RoleNames:
    """How the four roles are called in this cluster.

    Raises:
        InvalidArgument: a name is no plain lower-case identifier, or is used twice.
    """

    owner: str = "intelligentscan_owner"
    app: str = "intelligentscan_app"
    npta: str = "intelligentscan_npta"
    auditor: str = "intelligentscan_auditor"

    def __post_init__(self) -> None:
        for name in self.every:
            if not _NAME.fullmatch(name) or name in _KEYWORDS:
                raise InvalidArgument(
                    f"{name[:80]!r} cannot be the name of a role.",
                    next="use lower-case letters, digits and _, beginning with a letter, up to 63; not pg_….",
                )
        if len(set(self.every)) < len(self.every):
            raise InvalidArgument("Two roles have the same name.", next="give each of the four a name of its own.")

    @property
    def every(self) -> tuple[str, ...]:
        """The four names."""
        return tuple(getattr(self, each.name) for each in fields(self))


def init_roles(
    connection: Connection, names: RoleNames, tables: Collection[str] | None = None, *, dry_run: bool = False
) -> list[str]:
    """Make the roles and give them what they need, in the caller's transaction; run it again at any time.

    Args:
        connection: of an administrator: a superuser, or who owns the database and MLflow's tables.
        names: the roles' names.
        tables: the names of MLflow's tables; None for all tables beside them too.
        dry_run: only say what would be run.

    Returns:
        The statements, in order.

    Raises:
        NotAdopted: the store has no governance tables yet.
        NotPermitted: the account may not do it.
        Refused: one of the roles is there already and can do more than it should.
    """
    place = _Place.find(connection, tables)
    present = _present(connection, names.every)
    _refuse_powerful(connection, names, present)
    statements = list(_statements(connection, names, place, present))
    if dry_run:
        return statements
    try:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    except ProgrammingError as exc:
        if getattr(exc.orig, "sqlstate", None) != "42501":
            raise
        raise NotPermitted(
            f"The database's account may not make the roles: {str(exc.orig).splitlines()[0]}.",
            next="run 'intelligentscan db init-roles' with a tracking URI of the database's administrator.",
        ) from exc
    return statements


def for_administrator(connection: Connection, names: RoleNames, tables: Collection[str] | None = None) -> list[str]:
    """Return the statements that are left to the administrator: who may log in, and with which role.

    Call it before `init_roles`, as long as the present owners of MLflow's tables can still be told.
    """
    place = _Place.find(connection, tables)
    former = {owner for _, owner in place.relations} - set(names.every)
    plain = connection.execute(
        text("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(:former) AND NOT rolsuper ORDER BY 1"),
        {"former": sorted(former)},
    )
    return [
        *(f"ALTER ROLE {quoted(name)} LOGIN" for name in names.every),
        *(f"GRANT {quoted(names.app)} TO {quoted(owner)}" for (owner,) in plain),
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    """What the owner is to own.

    Attributes:
        home: the schema of MLflow's tables.
        relations: MLflow's tables, each with its owner.
        sequences: the sequences of those tables.
        governance: the plain names of the governance tables.
    """

    database: str
    home: str
    relations: tuple[tuple[str, str], ...]
    sequences: tuple[str, ...]
    governance: tuple[str, ...]

    @classmethod
    def find(cls, connection: Connection, wanted: Collection[str] | None) -> "_Place":
        if connection.dialect.name != "postgresql":
            raise Refused(
                "Roles exist on PostgreSQL alone.", next="protect a SQLite store by the permissions of its file."
            )
        schema = read_schema(connection)
        if not {"event", "experiment_lock"} <= set(schema.governance):
            raise NotAdopted(
                "This store is not governed yet: it has no governance tables and no guards.",
                next="run 'intelligentscan adopt' once, then 'intelligentscan db init-roles'.",
            )
        relations = connection.execute(_TABLES, {"home": schema.home}).fetchall()
        chosen = tuple((str(a), str(b)) for a, b in relations if wanted is None or a in wanted)
        own = {name for name, _ in chosen}
        sequences = connection.execute(_SEQUENCES, {"home": schema.home}).fetchall()
        database = str(connection.exec_driver_sql("SELECT pg_catalog.current_database()").scalar_one())
        return cls(
            database, schema.home, chosen, tuple(str(a) for a, table in sequences if table in own), schema.governance
        )

    @property
    def mlflow(self) -> list[str]:
        """MLflow's tables as they are called in SQL."""
        return [f"{quoted(self.home)}.{quoted(name)}" for name, _ in self.relations]

    def governing(self, names: Collection[str] | None = None) -> list[str]:
        """The governance tables as they are called in SQL."""
        return [f"{SCHEMA}.{quoted(name)}" for name in self.governance if names is None or name in names]


def _present(connection: Connection, names: Collection[str]) -> set[str]:
    query = text("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(:names)")
    return {str(name) for (name,) in connection.execute(query, {"names": list(names)})}


def _refuse_powerful(connection: Connection, names: RoleNames, present: set[str]) -> None:
    for name in present:
        above = {*_ALMIGHTY, names.owner} - {name}
        if name == names.auditor:
            above |= {names.app, names.npta}
        if name == names.app:
            above |= {names.npta}
        found = connection.execute(
            text(
                "SELECT r.rolsuper OR r.rolcreaterole OR r.rolreplication, ARRAY(SELECT o.rolname"
                " FROM pg_catalog.pg_roles o WHERE o.rolname = ANY(:above) AND o.oid <> r.oid"
                " AND pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER') ORDER BY 1)"
                " FROM pg_catalog.pg_roles r WHERE r.rolname = :name"
            ),
            {"name": name, "above": sorted(above)},
        ).one()
        if found[0] or found[1]:
            why = (
                f"it is a member of {', '.join(found[1])}"
                if found[1] and not found[0]
                else "it administers the cluster"
            )
            raise Refused(
                f"The role {name!r} can do more than it should: {why}.",
                next=f"take that from it, or choose another name than {name!r}.",
            )


def _statements(connection: Connection, names: RoleNames, place: _Place, present: set[str]) -> Iterator[str]:
    owner, app, npta, auditor = (quoted(name) for name in names.every)
    home = quoted(place.home)
    yield from (f"CREATE ROLE {quoted(name)} {_PLAIN}" for name in names.every if name not in present)
    if not _may_hand_over(connection, names.owner, present):
        yield f"GRANT {owner} TO CURRENT_USER"
    yield f"GRANT {app} TO {npta}"
    yield f"GRANT CONNECT ON DATABASE {quoted(place.database)} TO {owner}, {app}, {auditor}"
    yield f"GRANT CREATE ON DATABASE {quoted(place.database)} TO {owner}"  # migrations ask for the schema again
    # Whoever owns a schema may drop the tables in it, and with them their guards.
    yield f"ALTER SCHEMA {home} OWNER TO {owner}"
    yield f"ALTER SCHEMA {SCHEMA} OWNER TO {owner}"
    yield f"REVOKE CREATE ON SCHEMA {home} FROM PUBLIC"
    yield f"REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC"
    yield f"GRANT USAGE ON SCHEMA {home} TO {app}, {auditor}"
    yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {app}, {npta}, {auditor}"
    for table in (*place.mlflow, *place.governing()):
        yield f"ALTER TABLE {table} OWNER TO {owner}"
    for (function,) in connection.execute(_FUNCTIONS, {"home": place.home}):
        yield f"ALTER FUNCTION {function} OWNER TO {owner}"
    yield from _granted(connection, place, names)
    # What later migrations make, the owner makes.
    later = f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA"
    yield f"{later} {home} GRANT {_READ_WRITE} ON TABLES TO {app}"
    yield f"{later} {home} GRANT USAGE, SELECT ON SEQUENCES TO {app}"
    yield f"{later} {home} GRANT SELECT ON TABLES TO {auditor}"
    yield f"{later} {SCHEMA} GRANT SELECT ON TABLES TO {app}, {auditor}"
    yield f"{later} {SCHEMA} GRANT SELECT, INSERT ON TABLES TO {npta}"


def _granted(connection: Connection, place: _Place, names: RoleNames) -> Iterator[str]:
    app, npta, auditor = (quoted(name) for name in (names.app, names.npta, names.auditor))
    mlflow, governing = ", ".join(place.mlflow), ", ".join(place.governing())
    others = [
        "PUBLIC" if not name else quoted(name)
        for (name,) in connection.execute(_GRANTEES, {"home": place.home, "owner": names.owner})
    ]
    if others:
        listed = ", ".join(others)
        yield f"REVOKE ALL ON {governing} FROM {listed}"
        # A trigger of one's own could change a row after the guard has seen it.
        yield f"REVOKE TRUNCATE, REFERENCES, TRIGGER ON {mlflow} FROM {listed}"
    yield f"GRANT {_READ_WRITE} ON {mlflow} TO {app}"
    if any(name == _MLFLOW_VERSION for name, _ in place.relations):
        yield f"REVOKE INSERT, UPDATE, DELETE ON {quoted(place.home)}.{_MLFLOW_VERSION} FROM {app}"
    if place.sequences:
        yield f"GRANT USAGE, SELECT ON SEQUENCE {', '.join(place.sequences)} TO {app}"
    yield f"GRANT SELECT ON {mlflow}, {governing} TO {auditor}"
    # People need to see what is locked and who promoted what; they connect with the app role.
    yield f"GRANT SELECT ON {governing} TO {app}, {npta}"
    yield f"GRANT INSERT ON {', '.join(place.governing(EVERY))} TO {npta}"
    yield f"GRANT DELETE ON {', '.join(place.governing(ERASABLE))} TO {npta}"


def _may_hand_over(connection: Connection, owner: str, present: set[str]) -> bool:
    """Tell whether the account can give its tables to the owner's role."""
    superuser = bool(
        connection.exec_driver_sql("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").scalar_one()
    )
    if superuser or owner not in present:
        return superuser
    query = text("SELECT pg_catalog.pg_has_role(current_user, :owner, 'MEMBER')")
    return bool(connection.execute(query, {"owner": owner}).scalar_one())
