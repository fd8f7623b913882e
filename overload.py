"""Overload: which requests run, which wait, and which are refused at once."""

import asyncio
import logging
import math
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from errors import busy_response

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

logger = logging.getLogger(__name__)


class Limit:
    """Refuses at once what cannot be answered soon, for a small part of what answering costs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._busy = busy_response()
        self._in_flight = 0
        self._refused = 0  # and not told yet
        self._refusing_since = self._last_refusal = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            await self._app(scope, receive, send)
        elif self._is_full():
            self._note_refusal(scope)
            await self._busy(scope, receive, send)
        else:
            self._in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_flight -= 1

    def _is_full(self) -> bool:
        now = monotonic()
        if (
            now > self._last_refusal + CALM_SECONDS
            or now > self._refusing_since + OVERLOADED_SECONDS
        ):
            self._refusing_since = now
        overloaded = now > self._refusing_since + BURST_SECONDS
        if self._in_flight < (IN_FLIGHT_MAX_OVERLOADED if overloaded else IN_FLIGHT_MAX):
            return False
        self._last_refusal = now
        return True

    def _note_refusal(self, scope: Scope) -> None:
        scope["state"]["told_together"] = True
        if not self._refused:
            asyncio.get_running_loop().call_later(REFUSALS_TOLD_SECONDS, self._tell)
        self._refused += 1

    def _tell(self) -> None:
        logger.warning("Refused %d requests with 503: too many are in flight", self._refused)
        self._refused = 0
