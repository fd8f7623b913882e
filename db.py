"""The engine, its schema, and the statements of each request, within the time that it has."""

import asyncio
import math
import select
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Annotated, Any, TypeVar

import anyio
import psycopg2
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from fastapi import Depends, Request
from psycopg2.errors import ReadOnlySqlTransaction
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, set_wait_callback
from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812  # it is a class
from psycopg2.extensions import cursor as Psycopg2Cursor  # noqa: N812
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Executable,
    NullPool,
    Row,
    UpdateBase,
    create_engine,
    event,
)
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet
from typing_extensions import override

from errors import SchemaNotCurrentError, cause_of
from settings import ROOT

# Connections of one process. With 8 a hundred callers cost each other a twentieth more; more than
# 16 of PostgreSQL's processes cost it what they save here.
POOL_SIZE = 16

# A caller waits five seconds at most; one of them is for the network and our own loop.
ANSWER_SECONDS = 4.0
# Of these, what a request may wait for one of the connections. The rest is for the database.
QUEUE_SECONDS = 1.5
# A server may have several addresses: the next is tried after this.
ADDRESS_SECONDS = 1
# PostgreSQL ends a statement by itself before we hang up on it.
HANG_UP_AFTER_SECONDS = 0.5
SQLITE_BUSY_TIMEOUT_SECONDS = 3
CONNECT_ARGS: dict[str, object] = {
    # Notice within a minute what a router on the way has forgotten or a dead host will not answer.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
MIGRATION_LOCK = 0x746F646F  # any number that all copies of this program agree on ("todo")
MIGRATION_LOCK_TIMEOUT_SECONDS = 60

EVENTS = {POLL_READ: select.POLLIN, POLL_WRITE: select.POLLOUT}

Given = TypeVar("Given")

# Until when the request at hand must be answered; nothing else has a limit.
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


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
        self._free = asyncio.Semaphore(POOL_SIZE)
        self._idle: list[Connection] = []
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
            if self._auto_migrate and self._connect_and_read_revision() != self._head:
                command.upgrade(self._alembic, "head")
            self._require_head(self._connect_and_read_revision())
            self.schema_is_current = True
        except OperationalError:
            raise
        except (CommandError, DBAPIError) as error:
            # An unknown revision, a missing privilege, a file that is no database.
            raise SchemaNotCurrentError(cause_of(error)) from error
        finally:
            self._migration.release()

    async def check_schema(self) -> None:
        """Do what require_current_schema does or, where it has succeeded, just compare.

        Raises:
            SchemaNotCurrentError, OperationalError: as that does.
            sqlalchemy.exc.TimeoutError: it takes longer than ANSWER_SECONDS.

        """
        if self.schema_is_current:
            with time_limit(ANSWER_SECONDS):
                self._require_head(await self.run(_revision))
            return
        try:
            # Where it takes long it goes on without us.
            with anyio.fail_after(ANSWER_SECONDS):
                await anyio.to_thread.run_sync(self.require_current_schema, abandon_on_cancel=True)
        except TimeoutError as error:
            raise PoolTimeoutError("No answer about the schema") from error

    def _require_head(self, revision: str | None) -> None:
        if revision != self._head:
            raise SchemaNotCurrentError(
                f"The schema is at revision {revision}, this program's is {self._head}: "
                "run `uv run alembic upgrade head`"
            )

    def _connect_and_read_revision(self) -> str | None:
        with time_limit(ANSWER_SECONDS), self.engine.connect() as connection:
            return _revision(connection)

    async def one(self, statement: Executable, **parameters: object) -> Row[Any] | None:
        """Execute a statement, which is its own transaction, for the one row it may give."""
        return await self.run(lambda given: given.execute(statement, parameters).one_or_none())

    async def all(self, statement: Executable, **parameters: object) -> Sequence[Row[Any]]:
        """Execute a statement, which is its own transaction, for all its rows."""
        return await self.run(lambda given: given.execute(statement, parameters).all())

    async def count(self, statement: UpdateBase, **parameters: object) -> int:
        """Execute a statement, which is its own transaction, and tell how many rows it changed."""
        return await self.run(lambda given: given.execute(statement, parameters).rowcount)

    async def run(self, ask: Callable[[Connection], Given]) -> Given:
        """Ask on a connection, while the event loop goes on; SQLite, which blocks, in a thread."""
        if self.engine.dialect.name == "sqlite":
            return await asyncio.to_thread(self._ask, ask)
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._free.acquire()
        except TimeoutError as error:
            raise PoolTimeoutError("No connection became free in time") from error
        try:
            return await greenlet_spawn(self._ask, ask)
        finally:
            self._free.release()

    def _ask(self, ask: Callable[[Connection], Given]) -> Given:
        # A slow SQLite file holds the threads of those who came before: this one would be late too.
        if _deadline.get() - time.monotonic() < ANSWER_SECONDS - QUEUE_SECONDS:
            raise PoolTimeoutError("No thread became free in time")
        idle = self._idle
        connection = _pop(idle) or self.engine.connect()
        try:
            return ask(connection)
        except DBAPIError as error:
            if _is_read_only(error.orig):
                self.close()  # the next connection may be to one that writes
            raise
        finally:
            if connection.invalidated or idle is not self._idle:
                connection.close()
            else:
                idle.append(connection)

    def close(self) -> None:
        """Close the connections, those in use when they no longer are."""
        idle, self._idle = self._idle, []
        while connection := _pop(idle):
            connection.close()


def _pop(idle: list[Connection]) -> Connection | None:
    """Take the connection that was used last, unless all have ended or are in use."""
    with suppress(IndexError):
        while _has_ended(connection := idle.pop()):
            connection.close()
        return connection
    return None


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def aside(work: Callable[[], Given]) -> Given:
    """Do in a thread what takes Python long, where `Database.run` would hold up the event loop."""
    return await_(asyncio.to_thread(work)) if in_greenlet() else work()


def _is_read_only(error: BaseException | None) -> bool:
    return isinstance(error, ReadOnlySqlTransaction) or (
        isinstance(error, sqlite3.Error) and error.sqlite_errorname.startswith("SQLITE_READONLY")
    )


def make_engine(url: URL) -> Engine:
    """Make an engine whose every statement is its own transaction; it connects on first use."""
    # Every operation is one statement, so each is its own transaction: AUTOCOMMIT saves the
    # round trips of BEGIN and COMMIT, and there is nothing to roll back when a connection returns.
    if url.get_backend_name() == "sqlite":
        connect_args: dict[str, object] = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        dialect_options = {}
    else:
        connect_args = CONNECT_ARGS | {"cursor_factory": _LimitedCursor}
        set_wait_callback(_wait)  # psycopg2 has one for all connections of the process
        # HSTORE, which this schema does not use, would cost a catalog query per connection.
        dialect_options = {"use_native_hstore": False}
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,  # Database keeps the connections
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        hide_parameters=True,  # an error names the statement, never what a user wrote
        connect_args=connect_args,
        **dialect_options,
    )
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _use_write_ahead_log)
    else:
        event.listen(engine, "do_connect", _connect)
    return engine


def _use_write_ahead_log(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Let readers go on while one writes; it stays set in the file."""
    connection.cursor().execute("PRAGMA journal_mode = WAL")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Give what is executed from here on so much time, however long the request has taken."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


class _LimitedCursor(Psycopg2Cursor):
    """Sends each statement with the time that is left for it.

    Both go in one message, which PostgreSQL runs as one transaction: it costs no round trip, and
    nothing stays in the session, which a pooler may give to another client next. A connection's
    `cancel()` would not do: psycopg2 holds the GIL in it, and a frozen server the whole process.
    """

    @override
    def execute(self, query: Any, vars: Any = None) -> None:
        deadline = _deadline.get()
        if deadline == math.inf:
            super().execute(query, vars)
            return
        seconds = deadline - time.monotonic() - HANG_UP_AFTER_SECONDS
        if seconds <= 0:  # zero would be no limit
            raise psycopg2.OperationalError("No time is left for the statement")
        super().execute(_with_limit(query, seconds), vars)


def _with_limit(query: str | bytes, seconds: float) -> str | bytes:
    limit = f"SET LOCAL statement_timeout = '{seconds:.3f}s'; "
    # psycopg2 gives itself bytes where it executes for many rows.
    return limit.encode() + query if isinstance(query, bytes) else limit + query


def _wait(connection: Psycopg2Connection) -> None:
    """Wait for the server in libpq's place, which would block, until the time is over.

    In a greenlet, which is where `Database.run` asks, the event loop goes on meanwhile. When this
    raises, psycopg2 hangs up.
    """
    while (state := connection.poll()) != POLL_OK:
        left = _seconds_left()
        if left is not None and left <= 0:
            raise psycopg2.OperationalError("The database does not answer in time")
        if in_greenlet():
            await_(_wait_for_socket(connection.fileno(), state, left))
        else:
            waiting = select.poll()
            waiting.register(connection.fileno(), EVENTS[state])
            waiting.poll(None if left is None else left * 1000)


def _seconds_left() -> float | None:
    deadline = _deadline.get()
    return None if deadline == math.inf else deadline - time.monotonic()


async def _wait_for_socket(descriptor: int, state: int, seconds: float | None) -> None:
    loop = asyncio.get_running_loop()
    reading = state == POLL_READ
    ready = asyncio.Event()
    (loop.add_reader if reading else loop.add_writer)(descriptor, ready.set)
    try:
        await _wait_for(ready, seconds)
    finally:
        (loop.remove_reader if reading else loop.remove_writer)(descriptor)


async def _wait_for(happened: asyncio.Event, seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await happened.wait()


def _connect(
    dialect: Dialect, _: ConnectionPoolEntry, arguments: list[Any], parameters: dict[str, Any]
) -> DBAPIConnection:
    """Connect within the time that is left, however many addresses there are, and name servers."""
    attempt: Future[DBAPIConnection] = Future()

    def connect() -> None:
        try:
            attempt.set_result(_open(dialect, arguments, parameters))
        except psycopg2.Error as error:
            attempt.set_exception(error)

    # In a thread of its own: name servers are asked, which blocks for as long as they like.
    threading.Thread(target=copy_context().run, args=[connect], daemon=True).start()
    left = _seconds_left()
    try:
        if in_greenlet():
            await_(_wait_for_attempt(attempt, left))
            left = 0
        return attempt.result(left)
    except TimeoutError as error:
        raise psycopg2.OperationalError("No connection within the time that is left") from error
    finally:
        if not attempt.done():  # it may succeed when nobody waits for it
            attempt.add_done_callback(_close)


def _open(dialect: Dialect, arguments: list[Any], parameters: dict[str, Any]) -> DBAPIConnection:
    """Try one address after the other, which libpq does in time only where it waits itself."""
    *others, last = _addresses(parameters)
    for address in others:
        with suppress(psycopg2.OperationalError), time_limit(ADDRESS_SECONDS):
            return dialect.connect(*arguments, **parameters | address)
    try:
        return dialect.connect(*arguments, **parameters | last)
    except psycopg2.OperationalError as error:
        problem = str(error)
    # Outside: the other error would keep open what there is of the connection.
    server = last.get("hostaddr") or parameters.get("host") or "the server"
    raise psycopg2.OperationalError(f"No connection to {server}: {problem}")


def _addresses(parameters: dict[str, Any]) -> list[dict[str, str]]:
    """Find what to connect to: each address of each host, or a socket in a folder."""
    if "host" not in parameters or "hostaddr" in parameters:
        return [{}]  # libpq knows
    hosts = str(parameters["host"]).split(",")
    ports = str(parameters.get("port", "")).split(",")
    addresses = []
    for host, port in zip(hosts, ports * len(hosts), strict=False):  # one port may be for all
        to = {"host": host, "port": port}
        if host.startswith("/"):
            addresses.append(to)
            continue
        with suppress(OSError):  # another host may have one
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses += [to | {"hostaddr": str(address[0])} for *_, address in found]
    if not addresses:
        raise psycopg2.OperationalError(f"No address is known of {parameters['host']}")
    return addresses


async def _wait_for_attempt(attempt: Future[DBAPIConnection], seconds: float | None) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(done.set)

    attempt.add_done_callback(tell)
    await _wait_for(done, seconds)


def _close(attempt: Future[DBAPIConnection]) -> None:
    with suppress(psycopg2.Error):  # it failed at last
        attempt.result().close()


def _has_ended(connection: Connection) -> bool:
    """Tell whether the server has closed the connection: only then, mostly, it says something."""
    if connection.dialect.name == "sqlite":
        return False
    driver: Any = connection.connection.driver_connection
    unasked = select.poll()
    unasked.register(driver.fileno(), select.POLLIN)
    if unasked.poll(0):
        try:
            driver.cursor().execute("SELECT 1")
        except psycopg2.Error:
            return True
    return False


@contextmanager
def migration_connection(engine: Engine) -> Iterator[Connection]:
    """Give a connection in one transaction that only one process has at a time.

    The lock ends with the transaction, so that it works through a pooler in transaction mode.
    """
    with time_limit(ANSWER_SECONDS):
        connection = engine.connect()
    with time_limit(math.inf), connection, transaction(connection):
        if engine.dialect.name == "postgresql":  # SQLite has but one that writes
            connection.exec_driver_sql(
                f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_TIMEOUT_SECONDS}s';"
                f" SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
            )
        yield connection


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Keep all that is executed or, after an exception, which ends the connection, nothing."""
    # On PostgreSQL what follows a lock must see what its former holder committed. SQLite would
    # find out too late, at the first statement that writes, that another writes as well.
    is_sqlite = connection.dialect.name == "sqlite"
    begin = "BEGIN IMMEDIATE" if is_sqlite else "BEGIN ISOLATION LEVEL READ COMMITTED"
    connection.exec_driver_sql(begin)
    try:
        yield
    except BaseException:
        connection.invalidate()
        raise
    connection.exec_driver_sql("COMMIT")


async def get_database(request: Request) -> Database:
    """Give the database, with the schema that the statements need, and begin the time for them."""
    _deadline.set(time.monotonic() + ANSWER_SECONDS)
    database: Database = request.app.state.database
    if not database.schema_is_current:
        await database.check_schema()
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]
