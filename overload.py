"""Decide under load which requests run, which wait, and which are refused immediately."""

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

from errors import busy_response, stopping_response
from paths import path_in_app

# Enough for a hundred concurrent clients of one process.
IN_FLIGHT_MAX = 128
# If requests are refused for longer than this, a lower limit applies, which keeps latency low:
# less than 200 ms at three times the load that one process can serve, see docs/reliability.md.
BURST_SECONDS = 0.25
IN_FLIGHT_MAX_OVERLOADED = 16
# With the same token. As many as db.USER_POOL_SIZE: others would wait for these.
OWN_IN_FLIGHT_MAX_OVERLOADED = 4
# The overload is over when nothing has been refused for CALM_SECONDS. The higher limit is also
# tried again after OVERLOADED_SECONDS, because clients that retry at once would prolong it.
CALM_SECONDS = 0.5
OVERLOADED_SECONDS = 10
# How often to log the number of refused requests. A line for each would cost more than refusing.
REFUSAL_LOG_INTERVAL_SECONDS = 1
LIMITED = ("/api/", "/mcp")
CALLERS_MAX = 10_000  # how many are tracked; the least recently seen are forgotten
# How much of driver.ANSWER_SECONDS a request may wait for a slot. The database gets the rest.
QUEUE_SECONDS = 1.5

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class InFlight:
    """Counts the requests that run or wait, and decides whether there are too many."""

    def __init__(self) -> None:
        self._count = 0
        self._refusing_since = self._last_refusal = -math.inf

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1

    def is_full(self, overloaded_max: int) -> bool:
        """Return whether a new request must be refused. If so, record the refusal.

        `overloaded_max` is the limit during overload; otherwise it is IN_FLIGHT_MAX.
        """
        now = monotonic()
        if (
            now > self._last_refusal + CALM_SECONDS
            or now > self._refusing_since + OVERLOADED_SECONDS
        ):
            self._refusing_since = now
        overloaded = now > self._refusing_since + BURST_SECONDS
        if self._count < (overloaded_max if overloaded else IN_FLIGHT_MAX):
            return False
        self._last_refusal = now
        return True


class Slots:
    """Limits how many requests use the database at once. Others wait in order of arrival.

    Each user may occupy only some of the slots. Requests that wait for other requests of the same
    user do not delay other users.
    """

    def __init__(self, size: int, user_size: int) -> None:
        self.in_flight = InFlight()
        self._free = asyncio.Semaphore(size)
        self._share_of = lru_cache(CALLERS_MAX)(lambda _: asyncio.Semaphore(user_size))

    async def run(self, user_id: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Run the work when a slot is free.

        Raises:
            sqlalchemy.exc.TimeoutError: no slot became free within QUEUE_SECONDS.

        """
        share = self._share_of(user_id)
        waiting: AbstractAsyncContextManager[asyncio.Timeout | None] = nullcontext()
        if share.locked() or self._free.locked():
            waiting = asyncio.timeout(QUEUE_SECONDS)
        try:
            async with waiting as queue, share:
                with self.in_flight:
                    async with self._free:
                        if queue is not None:
                            queue.reschedule(None)
                        return await work()
        except TimeoutError as error:
            raise PoolTimeoutError("No connection became free in time") from error


class Limit:
    """Refuses excess requests immediately, at a fraction of the cost of serving them."""

    def __init__(self, app: ASGIApp, in_flight: InFlight) -> None:
        self._app = app
        self._in_flight = in_flight  # requests of all users that hold or wait for a slot
        # The requests with the same token, by its hash. The token is not verified yet.
        self._in_flight_of = lru_cache(CALLERS_MAX)(lambda _: InFlight())
        self._busy = busy_response()
        self._refused = 0  # since the last log line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or not path_in_app(scope).startswith(LIMITED):
            await self._app(scope, receive, send)
            return
        own = self._in_flight_of(hash(_credentials(scope)))
        if self._in_flight.is_full(IN_FLIGHT_MAX_OVERLOADED) or own.is_full(
            OWN_IN_FLIGHT_MAX_OVERLOADED
        ):
            self._count_refusal(scope)
            await self._busy(scope, receive, send)
        else:
            with own:
                try:
                    await self._app(scope, receive, send)
                except asyncio.CancelledError as cancellation:  # the server stops
                    try:
                        await stopping_response()(scope, receive, send)
                    except RuntimeError:  # the response has already begun
                        raise cancellation from None

    def _count_refusal(self, scope: Scope) -> None:
        scope["state"]["logged_together"] = True
        if not self._refused:
            asyncio.get_running_loop().call_later(REFUSAL_LOG_INTERVAL_SECONDS, self._log_refusals)
        self._refused += 1

    def _log_refusals(self) -> None:
        logger.warning("Refused %d requests with 503: too many are in flight", self._refused)
        self._refused = 0


def _credentials(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value)
    return b""
