"""Make psycopg2 wait in the event loop, and neither database's driver past a request's deadline."""

import asyncio
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar, cast

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ
from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812  # it is a class
from psycopg2.extensions import cursor as Psycopg2Cursor  # noqa: N812
from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_
from sqlalchemy.util.concurrency import in_greenlet
from typing_extensions import override

# Clients get a response within 5 s, of which 1 s is reserved for the network and the event loop.
ANSWER_SECONDS = 4.0
# How long to wait for one of several addresses of a server before trying the next.
ADDRESS_SECONDS = 1
# How long before the deadline PostgreSQL cancels a statement. At the deadline, we close the
# connection.
HANG_UP_AFTER_SECONDS = 0.5
TIMEOUT_MIN_SECONDS = 0.001  # PostgreSQL counts milliseconds; 0 would mean no limit

# The database's default may be stricter, and then concurrent writes to a row fail. Reads do not
# need this: each is one statement, and no writer is serializable.
READ_COMMITTED = "SET LOCAL transaction_isolation = 'read committed'; "

Result = TypeVar("Result")

# When the current request must be answered, on the monotonic clock. Other code has no deadline.
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
# Set once nobody waits for the work of the current thread any more.
_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)

# How many instructions of its virtual machine SQLite executes, in about a millisecond, before it
# asks whether to continue.
SQLITE_INSTRUCTIONS = 10_000


def start_deadline(seconds: float) -> None:
    """Set the deadline of everything that this task executes from now on."""
    _deadline.set(time.monotonic() + seconds)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Give the block its own deadline, however much time the request has already taken."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def transaction(connection: Connection, lock: str | None = None) -> Iterator[None]:
    """Run the block in a transaction. A failure rolls it back and closes the connection.

    Of transactions with the same `lock`, only one runs at a time.
    """
    # Take SQLite's write lock first: taking it after a read may fail without waiting.
    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
    try:
        if lock is not None and not is_sqlite:  # SQLite has only one writer
            hashed = "hashtextextended(%(lock)s, 0)"
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({hashed})", {"lock": lock})
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        # The pool does not roll back: the next request would get the connection as it is.
        connection.invalidate()
        raise


def in_thread(work: Callable[[], Result]) -> Result:
    """Run slow work in a thread, so that a handler does not block the event loop."""
    return await_(asyncio.to_thread(work)) if _in_handler() else work()


async def run_in_thread(threads: Executor, work: Callable[[], Result]) -> Result:
    """Run work with a session in a thread. If this is cancelled, stop the work, and wait for it.

    Otherwise the session would give its connection to the next request while the thread uses it.
    """
    cancelled = threading.Event()
    context = copy_context()
    context.run(_cancelled.set, cancelled)
    running = asyncio.get_running_loop().run_in_executor(threads, context.run, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancelled.set()
        with suppress(Exception):  # the interruption
            await running
        raise


def limit_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Make SQLite interrupt a statement at the deadline, or when its request is cancelled."""
    connection.set_progress_handler(_must_stop, SQLITE_INSTRUCTIONS)


def _must_stop() -> bool:
    cancelled = _cancelled.get()
    return time.monotonic() > _deadline.get() or (cancelled is not None and cancelled.is_set())


class TimedCursor(Psycopg2Cursor):
    """Prefixes writes with READ COMMITTED and, under a deadline, every statement with a timeout.

    The prefix and the statement travel in one message, which PostgreSQL runs as one transaction.
    This costs no round trip, and the session keeps no setting, which a pooler would pass on to its
    next client. psycopg2's `cancel()` is no alternative: it holds the GIL while a frozen server
    does not respond.
    """

    @override
    def execute(self, query: Any, vars: Any = None) -> None:
        # psycopg2.extras passes bytes when it executes a statement for many rows.
        statement = query.decode() if isinstance(query, bytes) else query
        settings = "" if statement.startswith("SELECT") else READ_COMMITTED
        deadline = _deadline.get()
        if deadline != math.inf:
            seconds = deadline - time.monotonic() - HANG_UP_AFTER_SECONDS
            if seconds < TIMEOUT_MIN_SECONDS:
                raise psycopg2.OperationalError("No time left for the statement")
            settings += f"SET LOCAL statement_timeout = '{seconds:.3f}s'; "
        super().execute(settings + statement, vars)


class WatchedConnection(Psycopg2Connection):
    """A connection whose socket the event loop watches from the first wait until it is closed.

    Registering the socket for each wait would cost three times as much as the wait itself.
    """

    _loop: asyncio.AbstractEventLoop | None = None  # the loop that watches the socket
    _fileno = -1  # psycopg2 does not return it after the server has closed the connection
    _waiter: "asyncio.Future[None] | None" = None
    _unread_events = 0

    def readable(self) -> "asyncio.Future[None]":
        """Return a future that is done when the server has sent something."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.unwatch()
            self._fileno = self.fileno()
            loop.add_reader(self._fileno, self._notify)
            self._loop = loop
        self._unread_events = 0
        self._waiter = loop.create_future()
        return self._waiter

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
            return
        # One such event is normal: the waiter has not read yet. More mean that the server has sent
        # something unsolicited, such as EOF, which the event loop would report forever.
        self._unread_events += 1
        if self._unread_events > 1:
            self.unwatch()

    def unwatch(self) -> None:
        """Stop watching the socket. Call this before closing it: its number may be reused."""
        loop, self._loop = self._loop, None
        if loop is None or loop.is_closed():
            return
        if loop is _running_loop():
            loop.remove_reader(self._fileno)
        else:
            loop.call_soon_threadsafe(loop.remove_reader, self._fileno)

    @override
    def close(self) -> None:
        self.unwatch()
        super().close()


def _in_handler() -> bool:
    """Return whether this code runs in a handler's greenlet, where it can yield to the loop."""
    # Check for the loop first: greenlet keeps state for every thread that calls it.
    return _running_loop() is not None and in_greenlet()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


# `client_encoding`: by default, psycopg2 uses the encoding of the database.
# The keepalives detect within a minute that a router has dropped the connection.
CONNECT_ARGS: dict[str, object] = {
    "client_encoding": "utf8",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "connection_factory": WatchedConnection,
    "cursor_factory": TimedCursor,
}


def wait(connection: Psycopg2Connection) -> None:
    """Wait for the server until the deadline. This is psycopg2's wait callback.

    In a handler's greenlet, the event loop keeps running. If this raises, psycopg2 closes the
    connection.
    """
    try:
        while (state := connection.poll()) != POLL_OK:
            seconds = _seconds_left()
            if _in_handler() and isinstance(connection, WatchedConnection):
                _wait_in_event_loop(connection, state, seconds)
            else:
                is_ready(connection, state, seconds)
    except BaseException:
        if isinstance(connection, WatchedConnection):
            connection.unwatch()
        raise


def _seconds_left() -> float | None:
    deadline = _deadline.get()
    if deadline == math.inf:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise psycopg2.OperationalError("The database did not respond in time")
    return seconds


def _wait_in_event_loop(connection: WatchedConnection, state: int, seconds: float | None) -> None:
    loop = asyncio.get_running_loop()
    if state == POLL_READ:
        ready = connection.readable()
    else:  # the statement is larger than the socket's buffer
        ready = loop.create_future()
        loop.add_writer(connection.fileno(), _finish, ready)
    timer = loop.call_later(math.inf if seconds is None else seconds, _finish, ready)
    try:
        await_(ready)
    finally:
        timer.cancel()
        if state != POLL_READ:
            loop.remove_writer(connection.fileno())


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():  # pragma: no branch  # the timer and the socket may both call this
        future.set_result(None)


def is_ready(connection: Psycopg2Connection, state: int, seconds: float | None) -> bool:
    """Block this thread until the socket is ready or the time is up; return whether it is ready."""
    if not hasattr(select, "poll"):  # Windows
        reading, writing = ([connection], []) if state == POLL_READ else ([], [connection])
        return any(select.select(reading, writing, [], seconds))
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def refuse_closed(driver: DBAPIConnection, _: ConnectionPoolEntry, __: object) -> None:
    """Make the pool replace a connection that the server has closed while it was idle.

    Servers rarely send anything else to an idle connection, so the test query is rarely needed.
    """
    connection = cast("Psycopg2Connection", driver)
    if is_ready(connection, POLL_READ, 0):
        try:
            connection.cursor().execute("SELECT 1")
        except psycopg2.Error as error:
            raise DisconnectionError("The server has closed the connection") from error


def connect(
    dialect: Dialect, _: ConnectionPoolEntry, arguments: list[Any], parameters: dict[str, Any]
) -> DBAPIConnection:
    """Connect before the deadline, even if name servers or some addresses do not respond.

    This runs in a thread that can be abandoned, because a name lookup blocks without a time limit.
    """
    attempt: Future[DBAPIConnection] = Future()
    attempt.set_running_or_notify_cancel()

    def run() -> None:
        try:
            attempt.set_result(_connect_to_any(dialect, arguments, parameters))
        except Exception as error:  # noqa: BLE001  # raised again where the result is awaited
            attempt.set_exception(error)

    threading.Thread(target=copy_context().run, args=[run], daemon=True).start()
    seconds = _seconds_left()
    try:
        if _in_handler():
            return await_(asyncio.wait_for(asyncio.wrap_future(attempt), seconds))
        return attempt.result(seconds)
    except TimeoutError as error:
        raise psycopg2.OperationalError("Could not connect in time") from error
    finally:
        if not attempt.done():  # it may still succeed, after the caller has given up
            attempt.add_done_callback(_close)


def _close(attempt: "Future[DBAPIConnection]") -> None:
    if attempt.exception() is None:
        attempt.result().close()


def _connect_to_any(
    dialect: Dialect, arguments: list[Any], parameters: dict[str, Any]
) -> DBAPIConnection:
    """Try one address after the other.

    libpq does that too, but with a wait callback it does not give up on an address that does not
    respond.
    """
    *others, last = _addresses(parameters)
    for address in others:
        with suppress(psycopg2.OperationalError), time_limit(ADDRESS_SECONDS):
            return dialect.connect(*arguments, **parameters | address)
    try:
        return dialect.connect(*arguments, **parameters | last)
    except psycopg2.OperationalError as error:
        problem = str(error)
    # Not inside `except`: the first error would keep the failed connection open as its context.
    server = last.get("hostaddr") or parameters.get("host") or "the server"
    raise psycopg2.OperationalError(f"Cannot connect to {server}: {problem}")


def _addresses(parameters: dict[str, Any]) -> list[dict[str, str]]:
    """Return the connection parameters of each address of each host, and of each Unix socket."""
    if "host" not in parameters or "hostaddr" in parameters:
        return [{}]  # nothing to resolve
    hosts = str(parameters["host"]).split(",")
    ports = str(parameters.get("port", "")).split(",")
    addresses = []
    for host, port in zip(hosts, ports * len(hosts), strict=False):  # all may share one port
        to = {"host": host, "port": port}
        if host.startswith("/"):
            addresses.append(to)
            continue
        with suppress(OSError, UnicodeError):  # another host may have an address
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses += [to | {"hostaddr": str(address[0])} for *_, address in found]
    if not addresses:
        raise psycopg2.OperationalError(f"Cannot resolve {parameters['host']}")
    return addresses
