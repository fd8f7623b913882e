"""The engine, its schema, and the statements of each request, within the time that it has."""

import asyncio
import math
import os
import select
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from queue import SimpleQueue
from typing import Annotated, Any, NamedTuple, TypeVar

import anyio
import psycopg2
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from fastapi import Depends, Request
from psycopg2.errors import ReadOnlySqlTransaction
from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812  # it is a class
from psycopg2.extensions import cursor as Psycopg2Cursor  # noqa: N812
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
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
from typing_extensions import override

from errors import SchemaNotCurrentError, cause_of
from settings import ROOT

# Connections, and threads that use them. Eight answer as much as sixteen, whose threads keep
# the event loop from the GIL under overload: it then neither reads nor refuses for seconds.
POOL_SIZE = 8

# A caller waits five seconds at most; one of them is for the network and our own loop.
ANSWER_SECONDS = 4.0
# Of these, what a request may wait for one of the threads. The rest is for the database.
QUEUE_SECONDS = 1.5
# PostgreSQL ends a statement by itself before we hang up on it.
HANG_UP_AFTER_SECONDS = 0.5
WATCH_SECONDS = 0.1
CLOSE_SECONDS = 1
SQLITE_BUSY_TIMEOUT_SECONDS = 3
CONNECT_ARGS: dict[str, object] = {
    "connect_timeout": 2,  # libpq's least, and for each address; the request's limit ends it sooner
    # Notice within a minute what a router on the way has forgotten or a dead host will not answer.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
MIGRATION_LOCK = 0x746F646F  # any number that all copies of this program agree on ("todo")
MIGRATION_LOCK_TIMEOUT_SECONDS = 60

Given = TypeVar("Given")

# Until when the request at hand must be answered; nothing else has a limit.
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
# What is being asked just now, and until when it must be answered.
_running: dict[Psycopg2Connection, float] = {}


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
        self._threads = _Threads(self.engine)
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
        """Ask in one of the threads, on the connection that it keeps."""
        answer: asyncio.Future[Given] = asyncio.get_running_loop().create_future()
        self._threads.take(_Question(ask, answer, copy_context()))
        return await answer

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._threads.end()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


class _Question(NamedTuple):
    """What a request asks of the database, and where it waits for the answer."""

    ask: Callable[[Connection], Any]
    answer: asyncio.Future[Any]
    context: Context  # the request's: its time limit, the id in its log lines, its span


class _Threads:
    """Up to POOL_SIZE threads, which start when they are needed; the one used last is next."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.last_read_only = -math.inf
        event.listen(engine, "handle_error", self._note_what_is_read_only)
        self._lock = threading.Lock()
        self._count = 0
        self._idle: list[_Thread] = []
        self._waiting: deque[_Question] = deque()

    def take(self, question: _Question) -> None:
        """Have the question answered, now or as soon as a thread is free."""
        with self._lock:
            if self._idle:
                thread = self._idle.pop()
            elif self._count < POOL_SIZE:
                thread = _Thread(self)
                thread.start()
                self._count += 1
            else:
                self._waiting.append(question)
                return
        thread.questions.put(question)

    def done(self, thread: "_Thread") -> None:
        """Give a thread that has answered what waits longest."""
        with self._lock:
            if self._waiting:
                thread.questions.put(self._waiting.popleft())
            else:
                self._idle.append(thread)

    def end(self) -> None:
        """End those that are idle, and with them their connections."""
        for thread in self._tell_idle_to_end():
            thread.join(CLOSE_SECONDS)

    def _tell_idle_to_end(self) -> "list[_Thread]":
        with self._lock:
            ending, self._idle = self._idle, []
            self._count -= len(ending)
        for thread in ending:
            thread.questions.put(None)
        return ending

    def _note_what_is_read_only(self, context: ExceptionContext) -> None:
        """Have all leave a server or file that is read-only: the next may be writable."""
        error = context.original_exception
        if isinstance(error, ReadOnlySqlTransaction) or (
            isinstance(error, sqlite3.Error)
            and error.sqlite_errorname.startswith("SQLITE_READONLY")
        ):
            self.last_read_only = time.monotonic()
            # SQLite keeps to what it knows of a file while any of its connections is open.
            self._tell_idle_to_end()


class _Thread(threading.Thread):
    """Answers one question after the other, on a connection that it keeps."""

    def __init__(self, threads: _Threads) -> None:
        super().__init__(name="database", daemon=True)
        self.questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._threads = threads
        self._connection: Connection | None = None
        self._connected_at = -math.inf

    @override
    def run(self) -> None:
        while question := self.questions.get():
            answer, error = None, None
            try:
                answer = question.context.run(self._answer, question.ask)
            except BaseException as raised:  # noqa: BLE001  # it is for the request
                error = raised
            if self._is_to_be_left():
                self._disconnect()
            self._threads.done(self)  # before whoever hears the answer asks the next question
            with suppress(RuntimeError):  # the event loop has ended
                loop = question.answer.get_loop()
                loop.call_soon_threadsafe(_settle, question.answer, answer, error)
            del question, answer, error  # they would be kept until there is another question
        self._disconnect()

    def _answer(self, ask: Callable[[Connection], Given]) -> Given:
        # A slow database holds the threads of those who came before: this one would be late too.
        if _deadline.get() - time.monotonic() < ANSWER_SECONDS - QUEUE_SECONDS:
            raise PoolTimeoutError("No thread became free in time")
        if self._connection is not None and _has_ended(self._connection):
            self._disconnect()
        if self._connection is None:
            self._connected_at = time.monotonic()
            self._connection = self._threads.engine.connect()
        return ask(self._connection)

    def _is_to_be_left(self) -> bool:
        if self._connection is None:
            return False
        return self._connection.invalidated or self._connected_at <= self._threads.last_read_only

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _settle(waiting: asyncio.Future[Any], answer: object, error: BaseException | None) -> None:
    if waiting.done():  # the request was given up
        return
    if error is None:
        waiting.set_result(answer)
    else:
        waiting.set_exception(error)


def make_engine(url: URL) -> Engine:
    """Make an engine whose every statement is its own transaction; it connects on first use."""
    # Every operation is one statement, so each is its own transaction: AUTOCOMMIT saves the
    # round trips of BEGIN and COMMIT, and there is nothing to roll back when a connection returns.
    if url.get_backend_name() == "sqlite":
        connect_args: dict[str, object] = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        dialect_options = {}
    else:
        connect_args = CONNECT_ARGS | {"cursor_factory": _LimitedCursor}
        # HSTORE, which this schema does not use, would cost a catalog query per connection.
        dialect_options = {"use_native_hstore": False}
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,  # the threads keep the connections
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
        _running[self.connection] = deadline
        try:
            super().execute(_with_limit(query, seconds), vars)
        finally:
            del _running[self.connection]


def _with_limit(query: str | bytes, seconds: float) -> str | bytes:
    limit = f"SET LOCAL statement_timeout = '{seconds:.3f}s'; "
    # psycopg2 gives itself bytes where it executes for many rows.
    return limit.encode() + query if isinstance(query, bytes) else limit + query


async def hang_up_on_silence() -> None:
    """Hang up, for as long as the program serves, where the database does not say anything.

    The thread that waits for it then gets an OperationalError.
    """
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        now = time.monotonic()
        for connection, deadline in _running.copy().items():
            if deadline <= now:
                with suppress(psycopg2.InterfaceError, OSError):  # it has ended meanwhile
                    _hang_up(connection)


def _hang_up(connection: Psycopg2Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _connect(
    dialect: Dialect, _: ConnectionPoolEntry, arguments: list[Any], parameters: dict[str, Any]
) -> DBAPIConnection:
    """Connect within the time that is left, however many addresses there are, and name servers."""
    attempt: Future[DBAPIConnection] = Future()

    def connect() -> None:
        try:
            attempt.set_result(dialect.connect(*arguments, **parameters))
        except psycopg2.Error as error:
            attempt.set_exception(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        left = _deadline.get() - time.monotonic()
        return attempt.result(None if left == math.inf else left)
    except TimeoutError as error:
        attempt.add_done_callback(_close)
        raise psycopg2.OperationalError("No connection within the time that is left") from error


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
    with time_limit(math.inf), engine.connect() as connection, transaction(connection):
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
