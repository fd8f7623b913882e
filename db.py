"""The engine, and `get_session`, which yields the session of a request."""

import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from psycopg2.errors import ReadOnlySqlTransaction
from psycopg2.extensions import set_wait_callback
from pydantic_core import from_json
from sqlalchemy import URL, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session

import driver
from overload import Slots
from schema import Schema

POOL_SIZE = 16  # per process; with 8, a hundred clients cost 5 % more CPU; over 16 saves nothing
USER_POOL_SIZE = 4  # if one user's statements hang, for example on a lock, 12 are left for others
SQLITE_BUSY_TIMEOUT_SECONDS = 3

Result = TypeVar("Result")


class Database:
    """One database: its engine, its schema, and the requests that wait for a connection."""

    def __init__(self, url: URL, *, auto_migrate: bool) -> None:
        self.engine = make_engine(url)
        self.schema = Schema(self.engine, auto_migrate=auto_migrate)
        self.slots = Slots(POOL_SIZE, USER_POOL_SIZE)
        # SQLite blocks, and Windows' event loop cannot watch a socket.
        self._threads: ThreadPoolExecutor | None = None
        if url.get_backend_name() == "sqlite" or sys.platform == "win32":
            self._threads = ThreadPoolExecutor(POOL_SIZE)

    async def run(self, user_id: str, work: Callable[[], Result]) -> Result:
        """Run the work when a connection is free, without blocking the event loop.

        Raises:
            sqlalchemy.exc.TimeoutError: no connection became free in time.

        """
        return await self.slots.run(user_id, partial(self._start, work))

    def close(self) -> None:
        """Wait for the threads to end and close idle connections. The next use starts new ones."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = ThreadPoolExecutor(POOL_SIZE)
        self.engine.dispose()

    def _start(self, work: Callable[[], Result]) -> Awaitable[Result]:
        if self._threads is None:
            return greenlet_spawn(work)
        return driver.run_in_thread(self._threads, work)


def make_engine(url: URL) -> Engine:
    """Create an engine that runs each statement in its own transaction. It connects on first use.

    Each operation is one statement, so BEGIN, COMMIT and ROLLBACK would only cost round trips.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        poolclass=QueuePool,
        pool_size=POOL_SIZE,
        max_overflow=-1,  # Database.run limits them; waiting in the pool would block the event loop
        pool_use_lifo=True,
        pool_reset_on_return=None,
        json_deserializer=from_json,  # parses tags in a third of the time of json.loads
        hide_parameters=True,  # errors contain the statement, but nothing that users wrote
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS} if is_sqlite else driver.CONNECT_ARGS,
        # HSTORE, which the schema does not use, would cost a catalog query per connection.
        **({} if is_sqlite else {"use_native_hstore": False}),
    )
    event.listen(engine, "handle_error", _leave_read_only_server)
    if is_sqlite:
        event.listen(engine, "connect", driver.limit_sqlite)
    else:
        set_wait_callback(driver.wait)  # process-wide: psycopg2 has no callback per connection
        event.listen(engine, "do_connect", driver.connect)
        event.listen(engine, "checkout", driver.refuse_closed)
    return engine


def _leave_read_only_server(failure: ExceptionContext) -> None:
    """Drop all connections to a server that is now read-only: new ones may reach its successor."""
    error = failure.original_exception
    is_read_only = isinstance(error, ReadOnlySqlTransaction) or (
        isinstance(error, sqlite3.Error)
        # Python's own errors, such as of a text that is not UTF-8, have no such name.
        and getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY")
    )
    if is_read_only:
        failure.is_disconnect = True
    failure.invalidate_pool_on_disconnect = is_read_only


async def get_session(request: Request) -> AsyncIterator[Session]:
    """Yield a session, after checking that the schema is current. Opening one does no I/O."""
    database: Database = request.app.state.database
    driver.start_deadline(driver.ANSWER_SECONDS)
    if not database.schema.is_current:
        await database.schema.check(driver.ANSWER_SECONDS)
    with Session(database.engine, info={"database": database}) as session:
        yield session


# The session ends before the response is sent.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
