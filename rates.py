"""Limit the request rate of each user, if RATE_LIMIT is set."""

import logging
import math
from collections import Counter
from http import HTTPStatus
from importlib import import_module
from time import monotonic
from time import time as now
from typing import Any

from fastapi import HTTPException, Request

from errors import documented
from models import User
from settings import Rate

STORE_TIMEOUT_SECONDS = 0.5
# How long to wait after the store failed before using it again. Until then, each process counts by
# itself.
STORE_RETRY_SECONDS = 5

TOO_MANY = documented(429, "Too many requests", "Too many requests; try again in 30 s")

logger = logging.getLogger(__name__)


class RateLimit:
    """Counts each user's requests in fixed windows of the system clock.

    Counts in this process or, if RATE_LIMIT_STORE is set, in Redis for all processes. Each request
    then costs one round trip to Redis.
    """

    def __init__(self, rate: Rate, store: str | None) -> None:
        self._rate = rate
        # draft-ietf-httpapi-ratelimit-headers: q is the quota, w the window in seconds.
        self._policy = f'"user";q={rate.requests};w={rate.seconds}'.encode()
        self._window = 0
        self._counts: Counter[str] = Counter()
        self._store: Any = None
        self._store_retry_at = 0.0
        if store is not None:
            self._store = import_module("redis.asyncio").from_url(
                store,
                socket_timeout=STORE_TIMEOUT_SECONDS,
                socket_connect_timeout=STORE_TIMEOUT_SECONDS,
            )

    async def count(self, request: Request, user: User) -> None:
        """Count the request, and refuse it if the user has used up the quota of the window.

        Raises:
            HTTPException: 429.

        """
        moment = now()
        window = int(moment // self._rate.seconds)
        seconds_left = math.ceil((window + 1) * self._rate.seconds - moment)
        count = await self._increment(user.id, window)
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

    async def _increment(self, user_id: str, window: int) -> int:
        if self._store is not None and monotonic() >= self._store_retry_at:
            try:
                return await self._increment_in_store(f"todo:{window}:{user_id}")
            except Exception as error:  # noqa: BLE001  # of redis-py and of the network
                # Without the store, requests must still be served.
                logger.warning("Counting requests without RATE_LIMIT_STORE: %s", error)
                self._store_retry_at = monotonic() + STORE_RETRY_SECONDS
        if window != self._window:
            self._window, self._counts = window, Counter()
        self._counts[user_id] += 1
        return self._counts[user_id]

    async def _increment_in_store(self, key: str) -> int:
        async with self._store.pipeline(transaction=False) as pipeline:
            pipeline.incr(key)
            pipeline.expire(key, self._rate.seconds)
            count, _ = await pipeline.execute()
        return int(count)

    async def close(self) -> None:
        """Close the connections to the store."""
        if self._store is not None:
            await self._store.aclose()
