"""The database schema: whether it is current, and who brings it up to date."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

import driver
from driver import time_limit, transaction
from errors import SchemaNotCurrentError, cause_of
from models import Task
from settings import ROOT

# Other applications that use Alembic may live in the same database, with its default table.
VERSION_TABLE = "todo_backend_version"

MIGRATION_LOCK = 0x746F646F  # any number that all copies of this program agree on ("todo")
MIGRATION_LOCK_TIMEOUT_SECONDS = 60

# What the statements need: the columns, the unique index that ON CONFLICT names, and the trigger
# that puts changes in order.
TABLES = Task.metadata.tables.values()
NEEDED = (
    {f"{table.name}.{column.name}" for table in TABLES for column in table.columns}
    | {str(index.name) for table in TABLES for index in table.indexes if index.unique}
    | {"task_changed"}
)

# Of these, what a table has that is found where the version table is: a table of the same name in
# a schema that comes earlier in the search path is not this program's.
FIND_IN_POSTGRESQL = """
WITH ours AS (
    SELECT oid, relname FROM pg_class
    WHERE relname = ANY(%(tables)s) AND pg_table_is_visible(oid) AND relnamespace =
        (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(%(version)s))
)
SELECT ours.relname || '.' || attname FROM ours JOIN pg_attribute ON attrelid = ours.oid
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT found.relname FROM ours JOIN pg_index ON indrelid = ours.oid
JOIN pg_class AS found ON found.oid = indexrelid WHERE indisunique AND indisvalid
UNION ALL
SELECT tgname FROM ours JOIN pg_trigger ON tgrelid = ours.oid WHERE tgenabled IN ('O', 'A')
"""
FIND_IN_SQLITE = """
SELECT :table || '.' || name FROM pragma_table_info(:table)
UNION ALL SELECT name FROM pragma_index_list(:table) WHERE "unique"
UNION ALL SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = :table
"""

# The schema to migrate: the one where this program's tables are, or else the first in the search
# path. An earlier version of this program had no version table of its own.
PIN_SCHEMA = """
SELECT set_config('search_path', coalesce(
    (SELECT relnamespace::regnamespace::text FROM pg_class
        WHERE oid = to_regclass(%(version)s)),
    (SELECT connamespace::regnamespace::text FROM pg_constraint
        WHERE conrelid = to_regclass('task') AND conname = 'ck_task_status'),
    quote_ident(current_schema())), true)
"""
# What the database or the role may set by default. PostgreSQL 17 has the last of them.
NO_TIME_LIMITS = """
SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN
    ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
"""


class Schema:
    """The schema of one database, compared with the one that this program works with."""

    def __init__(self, engine: Engine, *, auto_migrate: bool) -> None:
        self._engine = engine
        self._auto_migrate = auto_migrate
        self._alembic = Config(toml_file=ROOT / "pyproject.toml", attributes={"engine": engine})
        scripts = ScriptDirectory.from_config(self._alembic)
        self._head = scripts.get_current_head()
        self._earlier = {script.revision for script in scripts.walk_revisions()} - {self._head}
        self._lock = threading.Lock()
        self.is_current = False

    async def check(self) -> None:
        """Do what `require_current` does, in a thread and within ANSWER_SECONDS.

        Raises:
            SchemaNotCurrentError, OperationalError: as `require_current` does.
            sqlalchemy.exc.TimeoutError: it takes longer. It then goes on by itself.

        """
        try:
            with anyio.fail_after(driver.ANSWER_SECONDS):
                await anyio.to_thread.run_sync(self.require_current, abandon_on_cancel=True)
        except TimeoutError as error:
            raise PoolTimeoutError("No answer about the schema") from error

    def require_current(self) -> None:
        """Compare the schema with this program's, and bring it up to date if that is allowed.

        The schema of a newer program will do if it has all that this one needs.

        This runs at start and, until it has succeeded, before each request, so that the program may
        start before its database does. It also makes the engine's first connection: two handlers
        that did so in greenlets of one thread would wait for each other forever, on the lock that
        SQLAlchemy holds meanwhile.

        Raises:
            SchemaNotCurrentError: the schema is another one, or is being brought up to date.
            OperationalError: the database does not answer.

        """
        if self.is_current:
            self._require_head()
            return
        # One thread at a time, since Alembic keeps its context in module globals. The others do not
        # wait, or a database that does not answer would hold each of them in turn.
        if not self._lock.acquire(blocking=False):
            raise SchemaNotCurrentError("The schema is being brought up to date")
        try:
            if self._auto_migrate and self._revision() in {None, *self._earlier}:
                with _explained():
                    command.upgrade(self._alembic, "head")
            self._require_head()
            if self._engine.dialect.name == "sqlite":
                self._use_write_ahead_log()
            self.is_current = True
        finally:
            self._lock.release()

    def _require_head(self) -> None:
        revision = self._revision()
        if revision is None:
            raise SchemaNotCurrentError(
                f"This program has no tables here yet ({VERSION_TABLE}, task): "
                "run `uv run alembic upgrade head`, which leaves tables of other programs alone"
            )
        if revision in self._earlier:
            raise SchemaNotCurrentError(
                f"The schema is at revision {revision}, this program's is {self._head}: "
                "run `uv run alembic upgrade head`"
            )
        # An unknown revision is a newer program's. During its release, this one goes on for as long
        # as the schema has what it needs.
        with self._connection() as connection:
            missing = sorted(NEEDED - found_in(connection))
        if missing:
            raise SchemaNotCurrentError(
                f"The schema is at revision {revision}, but lacks {', '.join(missing)}: "
                "restore what was changed by hand"
            )

    def _revision(self) -> str | None:
        with self._connection() as connection:
            require_unicode(connection)
            options = {"version_table": VERSION_TABLE}
            return MigrationContext.configure(connection, opts=options).get_current_revision()

    def _use_write_ahead_log(self) -> None:
        """Let readers go on while one writes; the setting stays in the file, which is ours."""
        with self._connection() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with (
            _explained(),
            time_limit(driver.ANSWER_SECONDS),
            self._engine.connect() as connection,
        ):
            yield connection


@contextmanager
def _explained() -> Iterator[None]:
    """Raise SchemaNotCurrentError for whatever is wrong with a database that answers."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError):
        raise
    except (CommandError, DBAPIError) as error:
        # An unknown revision, a missing privilege, a file that is no database.
        raise SchemaNotCurrentError(cause_of(error)) from error


def require_unicode(connection: Connection) -> None:
    """Refuse a database whose encoding lacks a part of Unicode. Each of SQLite's has all of it.

    Raises:
        CommandError: its encoding is not UTF-8.

    """
    if connection.dialect.name == "sqlite":
        return
    encoding = connection.exec_driver_sql("SELECT current_setting('server_encoding')").scalar_one()
    if encoding != "UTF8":
        raise CommandError(
            f"The database's encoding is {encoding}, which cannot store every character: "
            "use a database that was created with ENCODING 'UTF8'"
        )


def found_in(connection: Connection) -> set[str]:
    """Return what this program's tables have: `table.column`, unique indexes, and triggers."""
    names = [table.name for table in TABLES]
    if connection.dialect.name == "postgresql":
        found = connection.exec_driver_sql(
            FIND_IN_POSTGRESQL, {"tables": names, "version": VERSION_TABLE}
        )
        return set(found.scalars())
    rows = [connection.exec_driver_sql(FIND_IN_SQLITE, {"table": name}) for name in names]
    return {name for found in rows for name in found.scalars()}


@contextmanager
def migration_connection(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in one transaction, which only one process can be in at a time.

    The lock ends with the transaction, so that it works through a pooler in transaction mode.

    Raises:
        CommandError: the database's encoding is not UTF-8.

    """
    with time_limit(driver.ANSWER_SECONDS):
        connection = engine.connect()
    with time_limit(math.inf), connection, transaction(connection):
        require_unicode(connection)
        if engine.dialect.name == "postgresql":  # SQLite has but one writer
            connection.exec_driver_sql(NO_TIME_LIMITS)
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_TIMEOUT_SECONDS}s';"
                f" SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
            )
            connection.exec_driver_sql(PIN_SCHEMA, {"version": VERSION_TABLE})
        yield connection
