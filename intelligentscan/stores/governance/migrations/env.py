"""Alembic's entry: runs the revisions in the transaction of whoever asked for them."""

from alembic import context
from sqlalchemy import inspect

from intelligentscan.stores.governance.migrations import version_schema, version_table

connection = context.config.attributes["connection"]
dialect = connection.dialect.name
schema = version_schema(dialect)
if schema is not None and schema not in inspect(connection).get_schema_names():
    connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
context.configure(
    connection=connection,
    version_table=version_table(dialect),
    version_table_schema=schema,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
