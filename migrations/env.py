"""Runs the migrations, on the program's engine or, for the command `alembic`, on one of its own."""

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
    # Only a connection could tell whether a table of the same name is this program's.
    context.get_context().impl.static_output(
        "-- Stop at the first error: run this with psql -v ON_ERROR_STOP=1, or with sqlite3 -bail"
    )
    with context.begin_transaction():
        context.run_migrations()


engine_of_the_program = context.config.attributes.get("engine")
if engine_of_the_program is not None:
    _migrate(engine_of_the_program)
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
