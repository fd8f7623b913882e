"""Overload: which requests run, which wait, and which are refused at once."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import lru_cache
from time import monotonic
from typing import TypeVar

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.types import ASGIApp, Receive, Scope, Send

from errors import busy_response
from paths import path_in_app

# A hundred clients at once are refused nothing by one process.
IN_FLIGHT_MAX = 128
# Where it refuses for longer than a burst lasts, fewer wait, for else all would wait too long;
# chosen for less than 200 ms at three times the bearable load, see docs/reliability.md.
BURST_SECONDS = 0.25
IN_FLIGHT_MAX_OVERLOADED = 16
# It is over where nobody is refused for a while, and is looked at again after some time in any
# case: clients who ask again at once would keep it up.
CALM_SECONDS = 0.5
OVERLOADED_SECONDS = 10
# What is refused has a line together: one for each would take longer than refusing does.
REFUSALS_TOLD_SECONDS = 1
LIMITED = "/api/"
CALLERS_MAX = 10_000  # who are remembered
# Of driver.ANSWER_SECONDS, what a request may wait for a place. The rest is for the database.
QUEUE_SECONDS = 1.5

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Line:
    """Requests that run or wait for their turn, and whether there are too many of them."""

    def __init__(self) -> None:
        self._length = 0
        self._refusing_since = self._last_refusal = -math.inf

    def __enter__(self) -> None:
        self._length += 1

    def __exit__(self, *_: object) -> None:
        self._length -= 1

    def is_full(self) -> bool:
        """Tell whether a request must be refused, which is then noted."""
        now = monotonic()
        if (
            now > self._last_refusal + CALM_SECONDS
            or now > self._refusing_since + OVERLOADED_SECONDS
        ):
            self._refusing_since = now
        overloaded = now > self._refusing_since + BURST_SECONDS
        if self._length < (IN_FLIGHT_MAX_OVERLOADED if overloaded else IN_FLIGHT_MAX):
            return False
        self._last_refusal = now
        return True


class Places:
    """The places in which requests use the database; the others wait in the order they came.

    Each user has a share of the places. Who waits for others of the same user holds up nobody else.
    """

    def __init__(self, size: int, user_size: int) -> None:
        self.line = Line()
        self._free = asyncio.Semaphore(size)
        self._share_of = lru_cache(CALLERS_MAX)(lambda _: asyncio.Semaphore(user_size))

    async def run(self, user_id: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Run the work in a place.

        Raises:
            sqlalchemy.exc.TimeoutError: no place became free within QUEUE_SECONDS.

        """
        share = self._share_of(user_id)
        waiting: AbstractAsyncContextManager[asyncio.Timeout | None] = nullcontext()
        if share.locked() or self._free.locked():
            waiting = asyncio.timeout(QUEUE_SECONDS)
        try:
            async with waiting as queue, share:
                with self.line:
                    async with self._free:
                        if queue is not None:
                            queue.reschedule(None)
                        return await work()
        except TimeoutError as error:
            raise PoolTimeoutError("No connection became free in time") from error


class Limit:
    """Refuses at once what cannot be answered soon, for a small part of what answering costs."""

    def __init__(self, app: ASGIApp, line: Line) -> None:
        self._app = app
        self._line = line  # of all requests that need the database
        # Of those who send the same token, which nobody has checked yet; by its hash.
        self._line_of = lru_cache(CALLERS_MAX)(lambda _: Line())
        self._busy = busy_response()
        self._refused = 0  # and not logged yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or not path_in_app(scope).startswith(LIMITED):
            await self._app(scope, receive, send)
            return
        own = self._line_of(hash(_credentials(scope)))
        if self._line.is_full() or own.is_full():
            self._note_refusal(scope)
            await self._busy(scope, receive, send)
        else:
            with own:
                await self._app(scope, receive, send)

    def _note_refusal(self, scope: Scope) -> None:
        scope["state"]["told_together"] = True
        if not self._refused:
            asyncio.get_running_loop().call_later(REFUSALS_TOLD_SECONDS, self._tell)
        self._refused += 1

    def _tell(self) -> None:
        logger.warning("Refused %d requests with 503: too many are in flight", self._refused)
        self._refused = 0


def _credentials(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value)
    return b""
