"""A user or a slow client cannot use up the capacity for others."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, NullPool, create_engine, text

import db
import overload
from main import create_app
from tests.actors import bearer, served, settings_for


@pytest.fixture
def port(app: FastAPI) -> Iterator[int]:
    with served(app) as port:
        yield port


# Use the same token each time, because another token has its own queue.
_headers = lru_cache(bearer)


def _ask(port: int, user: str, method: str, path: str, **fields: str) -> httpx2.Response:
    url = f"http://127.0.0.1:{port}{path}"
    return httpx2.request(method, url, json=fields or None, headers=_headers(user), timeout=30)


def _begin_body(port: int, user: str, framing: str, part: bytes) -> socket.socket:
    """Send a request with an incomplete body."""
    connection = socket.create_connection(("127.0.0.1", port))
    token = _headers(user)["Authorization"]
    head = f"POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{framing}\r\n\r\n"
    connection.sendall(head.encode() + part)
    return connection


@pytest.mark.parametrize(
    ("framing", "part"),
    [("Content-Length: 50", b'{"title": '), ("Transfer-Encoding: chunked", b"1\r\n{\r\n")],
    ids=["announced", "in chunks"],
)
@pytest.mark.parametrize("users", [1, 100])
def test_incomplete_bodies_do_not_occupy_places(
    port: int, framing: str, part: bytes, users: int
) -> None:
    slow = overload.IN_FLIGHT_MAX + 72
    with ExitStack() as connections:
        for number in range(slow):
            user = f"user-{number % users}"
            connections.enter_context(_begin_body(port, user, framing, part))

        codes = [_ask(port, "ann", "GET", "/api/tasks").status_code for _ in range(20)]

    assert codes == [200] * 20


@pytest.fixture
def stuck(postgresql_url: URL) -> Iterator[dict[str, str]]:
    """Two users' tasks, which a session locks, as a migration or a person with psql does."""
    app = create_app(settings_for(postgresql_url))
    with served(app) as port:
        tasks = {
            user: _ask(port, user, "POST", "/api/tasks", title="x").headers["Location"]
            for user in ("bob", "eve")
        }
    engine = create_engine(postgresql_url, poolclass=NullPool)
    with engine.connect() as connection:
        for user in tasks:
            connection.execute(
                text("SELECT id FROM task WHERE user_id = :user FOR UPDATE"), {"user": user}
            )
        yield tasks


def test_users_whose_statements_are_stuck_do_not_hold_up_the_others(
    postgresql_url: URL, stuck: dict[str, str]
) -> None:
    app = create_app(settings_for(postgresql_url))
    with served(app) as port, ThreadPoolExecutor(2 * db.POOL_SIZE) as pool:
        assert _ask(port, "ann", "GET", "/api/tasks").status_code == 200
        waiting = [
            pool.submit(_ask, port, user, "PUT", path, title="y")
            for user, path in stuck.items()
            for _ in range(db.POOL_SIZE)
        ]
        while _connections(app) < 2 * db.USER_POOL_SIZE:
            time.sleep(0.01)  # pragma: no cover  # the condition may already be met

        codes = [_ask(port, "ann", "GET", "/api/tasks").status_code for _ in range(20)]
        stuck_codes = {response.result().status_code for response in waiting}

    assert codes == [200] * 20
    assert stuck_codes == {503}


def _connections(app: FastAPI) -> int:
    pool = app.state.database.engine.pool
    return int(pool.checkedout())


def test_requests_with_one_token_fill_only_their_own_queue(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("IN_FLIGHT_MAX", "OWN_IN_FLIGHT_MAX_OVERLOADED"):
        monkeypatch.setattr(overload, limit, 2)
    with ExitStack() as connections:
        for _ in range(2):
            connections.enter_context(_begin_body(port, "bob", "Content-Length: 50", b"{"))
        while _ask(port, "bob", "GET", "/api/tasks").status_code == 200:
            time.sleep(0.01)  # pragma: no cover  # the server may already have read both

        refused = _ask(port, "bob", "GET", "/api/tasks")

        assert refused.status_code == 503
        assert _ask(port, "ann", "GET", "/api/tasks").status_code == 200


def test_overload_with_one_token_lowers_only_the_limit_of_that_token(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "BURST_SECONDS", 0)
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 2)
    monkeypatch.setattr(overload, "OWN_IN_FLIGHT_MAX_OVERLOADED", 2)
    with ExitStack() as connections:
        for _ in range(2):
            connections.enter_context(_begin_body(port, "bob", "Content-Length: 50", b"{"))
        while _ask(port, "bob", "GET", "/api/tasks").status_code == 200:
            time.sleep(0.01)  # pragma: no cover  # the server may already have read both
        monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 3)  # which would accept one more

        refused = _ask(port, "bob", "GET", "/api/tasks")

        assert refused.status_code == 503
        assert _ask(port, "ann", "GET", "/api/tasks").status_code == 200
