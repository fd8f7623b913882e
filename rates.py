"""A limit on how often each user may ask, off unless RATE_LIMIT says how often."""

import logging
import math
from collections import Counter
from http import HTTPStatus
from importlib import import_module
from time import monotonic
from time import time as now
from typing import Any

from fastapi import HTTPException, Request

from auth import CurrentUser
from errors import documented
from settings import Rate

STORE_TIMEOUT_SECONDS = 0.5
# A store that does not answer is asked again after this; meanwhile each process counts by itself.
STORE_AWAY_SECONDS = 5

TOO_MANY = documented(429, "Too many requests", "Too many requests; try again in 30 s")

logger = logging.getLogger(__name__)


class RateLimit:
    """Counts each user's requests, in windows of the clock, which all processes have in common.

    In this process, or for several in the Redis that RATE_LIMIT_STORE names: one round trip each.
    """

    def __init__(self, rate: Rate, store: str | None) -> None:
        self._rate = rate
        # draft-ietf-httpapi-ratelimit-headers: quota and window; in `RateLimit`, what remains of it
        self._policy = f'"user";q={rate.requests};w={rate.seconds}'.encode()
        self._window = 0
        self._counts: Counter[str] = Counter()
        self._store: Any = None
        self._store_away_until = 0.0
        if store is not None:
            self._store = import_module("redis.asyncio").from_url(
                store,
                socket_timeout=STORE_TIMEOUT_SECONDS,
                socket_connect_timeout=STORE_TIMEOUT_SECONDS,
            )

    async def __call__(self, request: Request, user: CurrentUser) -> None:
        """Count the request, and refuse it where the user has used up the window's quota."""
        moment = now()
        window = int(moment // self._rate.seconds)
        seconds_left = math.ceil((window + 1) * self._rate.seconds - moment)
        count = await self._count(user.id, window)
        remaining = max(0, self._rate.requests - count)
        request.state.headers = [
            (b"ratelimit-policy", self._policy),
            (b"ratelimit", f'"user";r={remaining};t={seconds_left}'.encode()),
        ]
        if count > self._rate.requests:
            raise HTTPException(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many requests; try again in {seconds_left} s",
                {"Retry-After": str(seconds_left)},
            )

    async def _count(self, user_id: str, window: int) -> int:
        if self._store is not None and monotonic() >= self._store_away_until:
            try:
                return await self._count_in_store(f"todo:{window}:{user_id}")
            except Exception as error:  # noqa: BLE001  # redis-py's, and what the network raises
                # A limit is no reason to refuse everybody.
                logger.warning("Counting requests without RATE_LIMIT_STORE: %s", error)
                self._store_away_until = monotonic() + STORE_AWAY_SECONDS
        if window != self._window:
            self._window, self._counts = window, Counter()
        self._counts[user_id] += 1
        return self._counts[user_id]

    async def _count_in_store(self, key: str) -> int:
        async with self._store.pipeline(transaction=False) as pipeline:
            pipeline.incr(key)
            pipeline.expire(key, self._rate.seconds)
            count, _ = await pipeline.execute()
        return int(count)

    async def close(self) -> None:
        """Close the connections to the store."""
        if self._store is not None:
            await self._store.aclose()
