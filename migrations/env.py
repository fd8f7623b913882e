"""Runs the migrations, on the program's engine or, for the command `alembic`, on one of its own."""

import logging

from alembic import context
from sqlalchemy import Engine
from sqlmodel import SQLModel

import models  # noqa: F401  # fills SQLModel.metadata
from db import make_engine
from schema import migration_connection
from settings import DatabaseSettings, read_settings


def _migrate(engine: Engine) -> None:
    with migration_connection(engine) as connection:
        context.configure(connection=connection, target_metadata=SQLModel.metadata)
        context.run_migrations()


engine_of_the_program = context.config.attributes.get("engine")
if engine_of_the_program is not None:
    _migrate(engine_of_the_program)
else:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _migrate(make_engine(read_settings(DatabaseSettings).database_url))
