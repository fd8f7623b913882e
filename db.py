"""The engine, its schema, and the statements that each request executes."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Executable,
    Row,
    UpdateBase,
    create_engine,
    event,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from errors import SchemaNotCurrentError, cause_of
from settings import ROOT

# As many connections as threads that use them: more only make them wait inside the database.
POOL_SIZE = 16
CONNECT_TIMEOUT_SECONDS = 3
POOL_TIMEOUT_SECONDS = 3
SQLITE_BUSY_TIMEOUT_SECONDS = 3
# A busy connection is not tested; one that a server or a proxy may have closed meanwhile is.
UNTESTED_IDLE_SECONDS = 1
MIGRATION_LOCK = 0x746F646F  # any number that all copies of this program agree on ("todo")
MIGRATION_LOCK_TIMEOUT_SECONDS = 60


class Database:
    """One database: its engine, and whether its schema is known to be current."""

    def __init__(self, url: URL, *, auto_migrate: bool) -> None:
        self.engine = make_engine(url)
        self._auto_migrate = auto_migrate
        self._alembic = Config(
            toml_file=ROOT / "pyproject.toml", attributes={"engine": self.engine}
        )
        self._head = ScriptDirectory.from_config(self._alembic).get_current_head()
        self._migration = threading.Lock()
        self.schema_is_current = False

    def require_current_schema(self) -> None:
        """Compare the schema with this program's, and bring it up to date where that is allowed.

        At start, and again by each request for as long as that did not succeed, so that the
        program may start before its database does.

        Raises:
            SchemaNotCurrentError: the schema is another one, or is being brought up to date.
            OperationalError: the database does not answer.

        """
        # One thread at a time: Alembic keeps its context in module globals. The others do not wait,
        # or a database that is away would hold each of them in turn.
        if not self._migration.acquire(blocking=False):
            raise SchemaNotCurrentError("The schema is being brought up to date")
        try:
            if self._auto_migrate and self._revision() != self._head:
                command.upgrade(self._alembic, "head")
            self.check_schema()
            self.schema_is_current = True
        except OperationalError:
            raise
        except (CommandError, DBAPIError) as error:
            # An unknown revision, a missing privilege, a file that is no database.
            raise SchemaNotCurrentError(cause_of(error)) from error
        finally:
            self._migration.release()

    def check_schema(self) -> None:
        """Raise SchemaNotCurrentError unless the schema is the one this program works with."""
        if (revision := self._revision()) != self._head:
            raise SchemaNotCurrentError(
                f"The schema is at revision {revision}, this program's is {self._head}: "
                "run `uv run alembic upgrade head`"
            )

    def _revision(self) -> str | None:
        with self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def one(self, statement: Executable, **parameters: object) -> Row[Any] | None:
        """Execute a statement, which is its own transaction, for the one row it may give."""
        with self.engine.connect() as connection:
            return connection.execute(statement, parameters).one_or_none()

    def all(self, statement: Executable, **parameters: object) -> Sequence[Row[Any]]:
        """Execute a statement, which is its own transaction, for all its rows."""
        with self.engine.connect() as connection:
            return connection.execute(statement, parameters).all()

    def count(self, statement: UpdateBase, **parameters: object) -> int:
        """Execute a statement, which is its own transaction, and tell how many rows it changed."""
        with self.engine.connect() as connection:
            return connection.execute(statement, parameters).rowcount


def make_engine(url: URL) -> Engine:
    """Make an engine whose every statement is its own transaction; it connects on first use."""
    # Every operation is one statement, so each is its own transaction: AUTOCOMMIT saves the
    # round trips of BEGIN and COMMIT, and there is nothing to roll back when a connection returns.
    connect_args: dict[str, object]
    if url.get_backend_name() == "sqlite":
        connect_args = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
        dialect_options = {}
    else:
        connect_args = {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
        # HSTORE, which this schema does not use, would cost a catalog query per connection.
        dialect_options = {"use_native_hstore": False}
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_reset_on_return=None,
        hide_parameters=True,  # an error names the statement, never what a user wrote
        connect_args=connect_args,
        **dialect_options,
    )
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _use_write_ahead_log)
    else:
        _test_idle_connections(engine)
    return engine


def _use_write_ahead_log(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Let readers go on while one writes; it stays set in the file."""
    connection.cursor().execute("PRAGMA journal_mode = WAL")


def _test_idle_connections(engine: Engine) -> None:
    """Test a connection before use where it was idle, and drop the pool when it is closed."""

    @event.listens_for(engine, "checkin")
    def note_time(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def test(connection: DBAPIConnection, entry: ConnectionPoolEntry, _: object) -> None:
        idle_seconds = time.monotonic() - entry.info.get("idle_since", time.monotonic())
        if idle_seconds < UNTESTED_IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the pool connects anew and goes on


@contextmanager
def migration_connection(engine: Engine) -> Iterator[Connection]:
    """Give a connection in one transaction that only one process has at a time.

    The lock ends with the transaction, so that it works through a pooler in transaction mode.
    """
    if engine.dialect.name == "sqlite":
        lock = "BEGIN IMMEDIATE"
    else:
        lock = (
            f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_TIMEOUT_SECONDS}s';"
            f" SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
        )
    with transaction(engine) as connection:
        connection.exec_driver_sql(lock)
        yield connection


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection on which all is kept that is executed or, after an exception, nothing."""
    # On PostgreSQL what follows a lock must see what its former holder committed.
    level = "SERIALIZABLE" if engine.dialect.name == "sqlite" else "READ COMMITTED"
    with engine.execution_options(isolation_level=level).begin() as connection:
        yield connection


async def get_database(request: Request) -> Database:
    """Give the database, with the schema that the statements need."""
    database: Database = request.app.state.database
    if not database.schema_is_current:
        await run_in_threadpool(database.require_current_schema)
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]
