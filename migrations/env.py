"""Run the migrations, on the service's engine or, for the `alembic` command, on a new one."""

import logging

from alembic import context
from sqlalchemy import URL, Engine
from sqlmodel import SQLModel

import models  # noqa: F401  # fills SQLModel.metadata
from db import make_engine
from schema import VERSION_TABLE, migration_connection
from settings import DatabaseSettings, read_settings


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    """Leave the tables of other applications out of `alembic check`."""
    return kind != "table" or name in SQLModel.metadata.tables


def _migrate(engine: Engine) -> None:
    with migration_connection(engine) as connection:
        context.configure(
            connection=connection,
            target_metadata=SQLModel.metadata,
            version_table=VERSION_TABLE,
            include_name=_is_ours,
        )
        context.run_migrations()


def _print(url: URL) -> None:
    """Print the statements, for `alembic upgrade head --sql`, without connecting."""
    context.configure(
        url=url, version_table=VERSION_TABLE, literal_binds=True, transactional_ddl=True
    )
    # Without a connection, nobody checks whether a table of the same name is the service's own.
    context.get_context().impl.static_output(
        "-- Stop at the first error: run this with psql -v ON_ERROR_STOP=1, or with sqlite3 -bail"
    )
    with context.begin_transaction():
        context.run_migrations()


service_engine = context.config.attributes.get("engine")
if service_engine is not None:
    _migrate(service_engine)
else:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    database_url = read_settings(DatabaseSettings).database_url
    if context.is_offline_mode():
        _print(database_url)
    else:
        engine = make_engine(database_url)
        try:
            _migrate(engine)
        finally:
            engine.dispose()
