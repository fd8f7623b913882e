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
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

import driver
from driver import time_limit, transaction
from errors import SchemaNotCurrentError, cause_of
from settings import ROOT

MIGRATION_LOCK = 0x746F646F  # any number that all copies of this program agree on ("todo")
MIGRATION_LOCK_TIMEOUT_SECONDS = 60


class Schema:
    """The schema of one database, compared with the one that this program works with."""

    def __init__(self, engine: Engine, *, auto_migrate: bool) -> None:
        self._engine = engine
        self._auto_migrate = auto_migrate
        self._alembic = Config(toml_file=ROOT / "pyproject.toml", attributes={"engine": engine})
        self._head = ScriptDirectory.from_config(self._alembic).get_current_head()
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
            if self._auto_migrate and self._revision() != self._head:
                command.upgrade(self._alembic, "head")
            self._require_head()
            self.is_current = True
        except OperationalError:
            raise
        except (CommandError, DBAPIError) as error:
            # An unknown revision, a missing privilege, a file that is no database.
            raise SchemaNotCurrentError(cause_of(error)) from error
        finally:
            self._lock.release()

    def _require_head(self) -> None:
        revision = self._revision()
        if revision != self._head:
            raise SchemaNotCurrentError(
                f"The schema is at revision {revision}, this program's is {self._head}: "
                "run `uv run alembic upgrade head`"
            )

    def _revision(self) -> str | None:
        with time_limit(driver.ANSWER_SECONDS), self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def migration_connection(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in one transaction, which only one process can be in at a time.

    The lock ends with the transaction, so that it works through a pooler in transaction mode.
    """
    with time_limit(driver.ANSWER_SECONDS):
        connection = engine.connect()
    with time_limit(math.inf), connection, transaction(connection):
        if engine.dialect.name == "postgresql":  # SQLite has but one writer
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_TIMEOUT_SECONDS}s';"
                f" SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
            )
        yield connection
