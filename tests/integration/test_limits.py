"""Limits on concurrent requests, on slow bodies, and on the request rate of a user."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from sqlalchemy import URL
from starlette.testclient import TestClient

import guard
import overload
import rates
from main import create_app
from tests.actors import bearer, served, settings_for

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)

ORIGIN = "http://localhost:3000"


def test_requests_beyond_the_limit_are_refused(
    ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 0)

    response = ann.get("/api/tasks", headers={"Origin": ORIGIN})

    assert response.status_code == 503
    assert response.json() == {"detail": "The server is busy; try again", "status_code": 503}
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    for path in ("/health", "/ready", "/openapi.json"):
        assert ann.get(path).status_code == 200


def test_refused_requests_share_one_log_line(
    ann: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(overload, "REFUSAL_LOG_INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 0)

    for _ in "123":
        assert ann.get("/api/tasks").status_code == 503
    while not any(record.name == "overload" for record in caplog.records):
        time.sleep(0.01)

    messages = [
        record.getMessage() for record in caplog.records if record.name in {"overload", "logs"}
    ]
    assert messages == ["Refused 3 requests with 503: too many are in flight"]


def test_a_finished_request_makes_room_for_the_next(
    ann: TestClient, anns_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 1)

    for path, status_code in [(anns_task, 200), ("/api/tasks/x", 422), (anns_task, 200)]:
        assert ann.get(path).status_code == status_code


@pytest.mark.parametrize(
    ("refused_at", "accepted_at"),
    [
        ([0.4, 0.6], 0.6 + overload.CALM_SECONDS + 0.1),
        ([number / 5 for number in range(2, 50)], overload.OVERLOADED_SECONDS + 0.1),
    ],
    ids=["no refusals for a while", "overloaded for long"],
)
def test_the_limit_is_lowered_when_refusals_last_longer_than_a_burst(
    ann: TestClient,
    anns_task: str,
    monkeypatch: pytest.MonkeyPatch,
    refused_at: list[float],
    accepted_at: float,
) -> None:
    def code_at(moment: float) -> int:
        monkeypatch.setattr(overload, "monotonic", lambda: moment)
        return ann.get(anns_task).status_code

    monkeypatch.setattr(overload, "IN_FLIGHT_MAX_OVERLOADED", 0)
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 0)
    assert code_at(0) == 503

    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 1)
    assert code_at(overload.BURST_SECONDS) == 200
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 0)
    assert code_at(overload.BURST_SECONDS) == 503
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 1)
    assert {code_at(moment) for moment in refused_at} == {503}
    assert code_at(accepted_at) == 200


def test_a_short_burst_does_not_lower_the_limit(
    ann: TestClient, anns_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX_OVERLOADED", 0)
    for most, status_code in [(0, 503), (0, 503), (1, 200)]:
        monkeypatch.setattr(overload, "IN_FLIGHT_MAX", most)

        assert ann.get(anns_task).status_code == status_code


@pytest.fixture
def port(app: FastAPI) -> Iterator[int]:
    """The app on a real connection, since the test client cannot be slow."""
    with served(app) as port:
        yield port


def test_a_body_that_does_not_arrive_is_408(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.GuardedRoute, "body_seconds", 0.2)
    head = f"POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer('ann')['Authorization']}"

    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{head}\r\nContent-Length: 100\r\n\r\n{{".encode())
        response = b"".join(
            iter(lambda: connection.recv(65536), b"")
        )  # until the connection is closed

    assert response.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert response.endswith(
        b'{"detail":"The body took longer than 0.2 seconds","status_code":408}'
    )


def test_a_body_that_arrives_in_pieces_is_read_completely(port: int) -> None:
    pieces = iter([b'{"title": ', b'"in ', b'pieces"}'])

    headers = bearer("ann") | {"Content-Type": "application/json"}
    response = httpx2.post(f"http://127.0.0.1:{port}/api/tasks", content=pieces, headers=headers)

    assert response.json()["title"] == "in pieces"


@pytest.fixture(autouse=True)
def _at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of the rate limit, a quarter into a window."""
    monkeypatch.setattr(rates, "now", lambda: 1_000_000_035.25)  # 15.25 s after a full minute


def _limited(url: URL, store: str | None = None, rate: str = "2/minute") -> FastAPI:
    return create_app(settings_for(url, rate_limit=rate, rate_limit_store=store))


def test_a_user_who_exceeds_the_rate_limit_gets_429(sqlite_url: URL) -> None:
    with TestClient(_limited(sqlite_url), headers={"Origin": ORIGIN}) as client:
        first, second, third = (client.get("/api/tasks", headers=bearer("ann")) for _ in "123")
        by_path = client.get("/api/ann/tasks/1", headers=bearer("ann"))
        bobs = client.get("/api/tasks/1", headers=bearer("bob"))

    assert [first.status_code, second.status_code] == [200, 200]
    assert [r.headers["RateLimit"] for r in (first, second, third, bobs)] == [
        '"user";r=1;t=45',
        '"user";r=0;t=45',
        '"user";r=0;t=45',
        '"user";r=1;t=45',
    ]
    assert (by_path.status_code, bobs.status_code) == (429, 404)
    assert third.json() == {
        "detail": "Too many requests; try again in 45 s",
        "status_code": 429,
    }
    assert third.headers["Retry-After"] == "45"
    assert third.headers["RateLimit-Policy"] == '"user";q=2;w=60'
    assert third.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_refused_requests_count_towards_the_rate_limit(sqlite_url: URL) -> None:
    with TestClient(_limited(sqlite_url, rate="4/minute"), headers=bearer("ann")) as ann:
        responses = [
            ann.post("/api/tasks", content=b"{", headers={"Content-Type": "application/json"}),
            ann.get("/api/tasks?unknown=1"),
            ann.get("/api/bob/tasks"),
            ann.get("/api/tasks/x"),
            ann.get("/api/tasks"),
        ]

    assert [response.status_code for response in responses] == [422, 422, 403, 422, 429]


def test_a_new_window_has_a_new_quota(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(_limited(sqlite_url, rate="1/second"), headers=bearer("ann")) as ann:
        codes = [ann.get("/api/tasks").status_code for _ in "12"]
        monkeypatch.setattr(rates, "now", lambda: 1_000_000_036.0)
        codes += [ann.get("/api/tasks").status_code for _ in "12"]

    assert codes == [200, 429, 200, 429]


def test_without_a_setting_nothing_is_counted(ann: TestClient) -> None:
    assert "RateLimit" not in ann.get("/api/tasks").headers


def test_the_contract_has_429_if_there_is_a_limit(sqlite_url: URL) -> None:
    for path, methods in _limited(sqlite_url).openapi()["paths"].items():
        for operation in methods.values():
            assert ("429" in operation["responses"]) == path.startswith("/api/")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis server."""
    path = tmp_path / "redis.sock"
    arguments = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    with (
        subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL) as server,
        # Without retries, which would take seconds when the server is stopped.
        Redis(unix_socket_path=str(path), retry=Retry(NoBackoff(), 0)) as client,
    ):
        while not _responds(client):
            time.sleep(0.01)  # pragma: no cover  # it may be ready at once
        yield client
        server.terminate()


def _responds(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:  # pragma: no cover  # as above
        return False


def _address(redis: Redis) -> str:
    return f"unix://{redis.get_connection_kwargs()['path']}"


@needs_redis
def test_several_processes_count_together_in_redis(sqlite_url: URL, redis: Redis) -> None:
    one, other = (_limited(sqlite_url, _address(redis)) for _ in "12")
    with TestClient(one, headers=bearer("ann")) as here, TestClient(other) as there:
        codes = [here.get("/api/tasks").status_code]
        codes += [there.get("/api/tasks", headers=bearer("ann")).status_code for _ in "12"]
        codes += [here.get("/api/tasks").status_code]
        bobs = there.get("/api/tasks", headers=bearer("bob")).status_code

    assert codes == [200, 200, 429, 429]
    assert bobs == 200
    assert all(0 < redis.ttl(key) <= 60 for key in redis.scan_iter())


@needs_redis
def test_without_its_store_a_process_counts_by_itself(
    sqlite_url: URL, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(_limited(sqlite_url, _address(redis)), headers=bearer("ann")) as ann:
        assert ann.get("/api/tasks").status_code == 200
        redis.shutdown(nosave=True)
        codes = [ann.get("/api/tasks").status_code for _ in "123"]

    assert codes == [200, 200, 429]
    (record,) = [record for record in caplog.records if record.name == "rates"]
    assert record.getMessage().startswith("Counting requests without RATE_LIMIT_STORE: ")
