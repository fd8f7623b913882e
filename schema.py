"""The database schema: whether it is current, and which process migrates it."""

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

MIGRATION_LOCK = 0x746F646F  # any number that all processes agree on ("todo")
MIGRATION_LOCK_TIMEOUT_SECONDS = 60

# What the statements need: the columns, the unique index of ON CONFLICT, and the triggers that set
# the order of changes. PostgreSQL has a column default in place of the second.
TABLES = Task.metadata.tables.values()
NEEDED = (
    {f"{table.name}.{column.name}" for table in TABLES for column in table.columns}
    | {str(index.name) for table in TABLES for index in table.indexes if index.unique}
    | {"task_changed", "task_inserted"}
)

# Find which of these exist in the schema of the version table. A table of the same name in a schema
# that comes earlier in the search path belongs to another application.
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
UNION ALL
SELECT 'task_inserted' FROM ours JOIN pg_attribute ON attrelid = ours.oid
WHERE attname = 'changed' AND atthasdef
"""
FIND_IN_SQLITE = """
SELECT :table || '.' || name FROM pragma_table_info(:table)
UNION ALL SELECT name FROM pragma_index_list(:table) WHERE "unique"
UNION ALL SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = :table
"""

# The schema to migrate: the one that contains the service's tables or, if none does, the first in
# the search path. The first versions of the service had no version table of their own.
PIN_SCHEMA = """
SELECT set_config('search_path', coalesce(
    (SELECT relnamespace::regnamespace::text FROM pg_class
        WHERE oid = to_regclass(%(version)s)),
    (SELECT connamespace::regnamespace::text FROM pg_constraint
        WHERE conrelid = to_regclass('task') AND conname = 'ck_task_status'),
    quote_ident(current_schema())), true)
"""
# Limits that the database or the role may set by default. The last exists since PostgreSQL 17.
NO_TIME_LIMITS = """
SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN
    ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
"""


class Schema:
    """The schema of one database, compared with the one that this version needs."""

    def __init__(self, engine: Engine, *, auto_migrate: bool) -> None:
        self._engine = engine
        self._auto_migrate = auto_migrate
        self._alembic = Config(toml_file=ROOT / "pyproject.toml", attributes={"engine": engine})
        scripts = ScriptDirectory.from_config(self._alembic)
        self._head = scripts.get_current_head()
        self._earlier = {script.revision for script in scripts.walk_revisions()} - {self._head}
        self._lock = threading.Lock()
        self.is_current = False

    async def check(self, seconds: float) -> None:
        """Do what `require_current` does, in a thread and in limited time.

        Raises:
            SchemaNotCurrentError, OperationalError: as `require_current` does.
            sqlalchemy.exc.TimeoutError: it takes longer. The thread then continues by itself.

        """
        try:
            with anyio.fail_after(seconds):
                await anyio.to_thread.run_sync(self.require_current, abandon_on_cancel=True)
        except TimeoutError as error:
            raise PoolTimeoutError("The schema check timed out") from error

    def require_current(self) -> None:
        """Check that the schema is current, and migrate it if that is allowed.

        The schema of a newer version is accepted if it has everything that this version needs.

        This runs at start, for /ready and, until it has succeeded once, before each request. So the
        service may start before its database does.

        It also makes the engine's first connection, during which SQLAlchemy holds a lock. If two
        greenlets of one thread made it, they would wait for each other forever.

        Raises:
            SchemaNotCurrentError: the schema is not current, or another thread is checking it.
            OperationalError: the database does not respond.

        """
        if self.is_current:
            self._require_head()
            return
        # Only one thread may run Alembic, which keeps its context in module globals. The others do
        # not wait: if the database does not respond, it would block each of them in turn.
        if not self._lock.acquire(blocking=False):
            raise SchemaNotCurrentError("The schema is being checked or migrated")
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
                f"The service has no tables here yet ({VERSION_TABLE}, task): run "
                "`uv run alembic upgrade head`, which does not change other applications' tables"
            )
        if revision in self._earlier:
            raise SchemaNotCurrentError(
                f"The schema is at revision {revision}, but this version needs {self._head}: "
                "run `uv run alembic upgrade head`"
            )
        # An unknown revision belongs to a newer version. During its release, this version continues
        # to work as long as the schema has everything that it needs.
        with self._connection() as connection:
            missing = sorted(NEEDED - found_in(connection))
        if missing:
            raise SchemaNotCurrentError(
                f"The schema is at revision {revision}, but lacks {', '.join(missing)}: "
                "restore what was removed"
            )

    def _revision(self) -> str | None:
        with self._connection() as connection:
            require_unicode(connection)
            options = {"version_table": VERSION_TABLE}
            return MigrationContext.configure(connection, opts=options).get_current_revision()

    def _use_write_ahead_log(self) -> None:
        """Let readers continue during a write. The setting is stored in the file, which is ours."""
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
    """Raise SchemaNotCurrentError for any problem of a database that responds."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError):
        raise
    except (CommandError, DBAPIError) as error:
        # An unknown revision, a missing privilege, a file that is not a database.
        raise SchemaNotCurrentError(cause_of(error)) from error


def require_unicode(connection: Connection) -> None:
    """Refuse a database whose encoding cannot store every character. All of SQLite's can.

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
    """Return what the service's tables have: `table.column`, unique indexes, and triggers."""
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
    """Yield a connection in a transaction that only one process can have at a time.

    The lock ends with the transaction, so that it works through a pooler in transaction mode.

    Raises:
        CommandError: the database's encoding is not UTF-8.

    """
    with time_limit(driver.ANSWER_SECONDS):
        connection = engine.connect()
    with time_limit(math.inf), connection, transaction(connection):
        require_unicode(connection)
        if engine.dialect.name == "postgresql":  # SQLite has only one writer
            connection.exec_driver_sql(NO_TIME_LIMITS)
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_TIMEOUT_SECONDS}s';"
                f" SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
            )
            connection.exec_driver_sql(PIN_SCHEMA, {"version": VERSION_TABLE})
        yield connection
