"""Every response has the request id, and every request has one log line."""

import logging
import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.actors import bearer

ORIGIN = "http://localhost:3000"
FIELDS = ("method", "route", "status", "user_id")

Line = dict[str, object]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """Return the request lines that have been logged so far."""
    return lambda: [line for line in caplog.records if line.name == "logs"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "route", "user_id"),
    [
        ("GET", "/api/tasks?limit=1", bearer("ann"), 200, "/api/tasks", "ann"),
        ("GET", "/api/tasks/1", bearer("ann"), 404, "/api/tasks/{task_id}", "ann"),
        ("GET", "/api/tasks/x", bearer("ann"), 422, "/api/tasks/{task_id}", "ann"),
        ("GET", "/api/ann/tasks/1", bearer("ann"), 404, "/api/{user_id}/tasks/{task_id}", "ann"),
        ("GET", "/api/bob/tasks", bearer("ann"), 403, "/api/{user_id}/tasks", "ann"),
        ("GET", "/api/tasks", {}, 401, "/api/tasks", None),
        ("GET", "/api/tasks", {"Authorization": "Bearer x.y.z"}, 401, "/api/tasks", None),
        ("BREW", "/api/tasks/1", {}, 405, "/api/tasks/{task_id}", None),
        ("GET", "/health", {}, 200, "/health", None),
        ("HEAD", "/health", {}, 200, "/health", None),
        ("HEAD", "/api/tasks", bearer("ann"), 200, "/api/tasks", "ann"),
        ("HEAD", "/api/s3cret", bearer("ann"), 404, None, None),
        ("PUT", "/api/tasks/export", {}, 405, "/api/tasks/export", None),
        ("GET", "/docs", {}, 200, "/docs", None),
        ("GET", "/api/s3cret", bearer("ann"), 404, None, None),
        ("GET", "/docs/assets/s3cret", {}, 404, None, None),
        (
            "OPTIONS",
            "/api/tasks",
            {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"},
            200,
            None,
            None,
        ),
        (
            "OPTIONS",
            "/api/tasks",
            {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"},
            400,
            None,
            None,
        ),
    ],
)
def test_a_request_is_logged_in_one_line_without_user_input(
    anonymous: TestClient,
    lines: Callable[[], list[logging.LogRecord]],
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    route: str | None,
    user_id: str | None,
) -> None:
    response = anonymous.request(method, path, headers=headers)

    (line,) = lines()
    assert [vars(line)[name] for name in FIELDS] == [method, route, status, user_id]
    assert 0 < vars(line)["duration_ms"] < 10_000
    assert response.status_code == status
    assert "s3cret" not in str(vars(line))
    assert "limit" not in str(vars(line))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        ('!"#$%&()*+,-./:;<=>?@[]^_`{|}~', True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ("tab\there", False),
        ("caf\u00e9", False),
    ],
)
def test_a_request_id_of_the_client_is_used_if_it_is_valid(
    anonymous: TestClient, given: str, *, kept: bool
) -> None:
    response = anonymous.get("/health", headers=[(b"X-Request-ID", given.encode("latin-1"))])

    (request_id,) = response.headers.get_list("X-Request-ID")
    assert (request_id == given) == kept
    assert kept or re.fullmatch("[0-9a-f]{32}", request_id)


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/health", b""),
        ("GET", "/nothing", b""),
        ("BREW", "/api/tasks", b""),
        ("GET", "/api/tasks", b""),
        ("GET", "/openapi.json", b""),
        ("GET", "/docs/assets/favicon.png", b""),
        ("OPTIONS", "/api/tasks", b""),
        ("POST", "/api/tasks", b"{"),
        ("POST", "/api/tasks", b" " * 65537),
    ],
)
def test_every_response_has_the_request_id(
    ann: TestClient, method: str, path: str, content: bytes
) -> None:
    headers = {"X-Request-ID": "abc", "Origin": ORIGIN, "Access-Control-Request-Method": "GET"}

    response = ann.request(method, path, content=content, headers=headers)

    assert response.headers.get_list("X-Request-ID") == ["abc"]


def test_two_requests_have_different_ids(anonymous: TestClient) -> None:
    ids = {anonymous.get("/health").headers["X-Request-ID"] for _ in range(2)}

    assert len(ids) == 2


def fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError


def test_an_unexpected_exception_is_logged_with_the_request_id(
    standing_app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[logging.LogRecord]],
) -> None:
    with TestClient(standing_app, headers=bearer("ann"), raise_server_exceptions=False) as client:
        monkeypatch.setattr("sqlalchemy.engine.Connection.execute", fail)
        response = client.get("/api/tasks", headers={"X-Request-ID": "abc"})

    (line,) = lines()
    assert (response.status_code, response.headers["X-Request-ID"]) == (500, "abc")
    assert [vars(line)[name] for name in FIELDS] == ["GET", "/api/tasks", 500, "ann"]
    assert line.levelname == "WARNING"


def test_a_request_without_a_response_is_logged(
    standing_app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[logging.LogRecord]],
) -> None:
    with TestClient(standing_app) as client:
        monkeypatch.setattr("gate.CORS.__call__", fail)
        with pytest.raises(ZeroDivisionError):
            client.get("/health")

    (line,) = lines()
    assert [vars(line)[name] for name in FIELDS] == ["GET", None, None, None]


def test_a_level_above_info_omits_the_lines(
    anonymous: TestClient,
    caplog: pytest.LogCaptureFixture,
    lines: Callable[[], list[logging.LogRecord]],
) -> None:
    caplog.set_level(logging.WARNING)

    assert "X-Request-ID" in anonymous.get("/health").headers

    assert lines() == []
