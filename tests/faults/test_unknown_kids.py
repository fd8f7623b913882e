"""Thousands of unknown kids, with the real process and an auth server that counts requests."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2

from tests.auth_server import SigningKey, auth_server
from tests.e2e.server import Server

FETCH_SECONDS = 2


def test_a_flood_of_unknown_kids_causes_two_fetches_and_delays_no_other_user(
    start: Callable[..., Server],
) -> None:
    key = SigningKey("EdDSA")
    with auth_server() as auth, httpx2.Client(timeout=30) as client:
        auth.members = [key.member]
        server = start("uv", "run", "main.py", "--port", "{port}", BETTER_AUTH_URL=auth.url).wait()

        def get(token: str) -> tuple[int, float]:
            began = time.monotonic()
            headers = {"Authorization": f"Bearer {token}"}
            response = client.get(f"{server.url}/api/tasks", headers=headers)
            return response.status_code, time.monotonic() - began

        unknown = [key.token(auth.claims(), kid=f"made-up-{number}") for number in range(1000)]
        assert get(key.token(auth.claims()))[0] == 200
        auth.delay_seconds = FETCH_SECONDS

        began = time.monotonic()
        with ThreadPoolExecutor(8) as strangers:
            flood: list[Future[tuple[int, float]]] = [strangers.submit(get, t) for t in unknown]
            known = [get(key.token(auth.claims(jti=number))) for number in range(100)]
        flood_seconds = time.monotonic() - began

    assert Counter(future.result()[0] for future in flood) == {401: 1000}
    assert Counter(status for status, _ in known) == {200: 100}
    assert auth.fetches <= 2
    slowest = max(seconds for _, seconds in known)
    assert slowest < FETCH_SECONDS
    print(
        f"{len(flood)} unknown kids in {flood_seconds:.1f} s: {auth.fetches} fetches; known key: "
        f"median {statistics.median(seconds for _, seconds in known) * 1000:.0f} ms, "
        f"slowest {slowest * 1000:.0f} ms"
    )
