"""CORS: what browsers allow on a listed origin, and refuse on others."""

from collections.abc import Callable

import pytest
from sqlalchemy import URL
from starlette.testclient import TestClient

from main import create_app
from tests.actors import served, settings_for

ORIGIN = "http://localhost:3000"
EXPOSED = (
    "ETag, Idempotent-Replayed, Link, Location, RateLimit, RateLimit-Policy, Retry-After, "
    "WWW-Authenticate, X-Request-ID, X-Total-Count"
)
SENT = "authorization,content-type,idempotency-key,if-match,if-none-match,x-request-id"
ADDED = "authorization,baggage,sentry-trace,traceparent,tracestate,x-requested-with"


@pytest.mark.parametrize("sent", [SENT, ADDED, "Authorization, X-Anything", f"x-{'y' * 60_000}"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_a_listed_origin_may_send_any_header(anonymous: TestClient, method: str, sent: str) -> None:
    response = anonymous.options(
        "/api/tasks/1",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": sent,
        },
    )

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
    # The response lists them one by one: for browsers, `*` does not include Authorization.
    assert response.headers["Access-Control-Allow-Headers"] == sent


@pytest.mark.parametrize(
    "origin", ["http://localhost:3001", "https://localhost:3000", "null", "http://evil.example"]
)
def test_a_refused_preflight_has_the_standard_error_body(
    ann: TestClient, reasons: Callable[[], list[str]], origin: str
) -> None:
    preflight = ann.options(
        "/api/tasks", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
    )
    actual = ann.get("/api/tasks", headers={"Origin": origin})

    assert preflight.status_code == 400
    assert preflight.json() == {"detail": "Disallowed CORS origin", "status_code": 400}
    for response in (preflight, actual):
        assert "Access-Control-Allow-Origin" not in response.headers
    assert reasons() == [f"Origin '{origin}' is not in CORS_ORIGINS"] * 2


def test_a_refused_origin_is_logged_in_addition_to_another_reason(
    anonymous: TestClient, reasons: Callable[[], list[str]]
) -> None:
    headers = {"Origin": "http://" + "x" * 1000, "Authorization": "Bearer x"}

    assert anonymous.get("/api/tasks", headers=headers).status_code == 401

    shown = "http://" + "x" * 93
    assert reasons() == [f"Token is not a JWT; Origin '{shown}' is not in CORS_ORIGINS"]


@pytest.mark.parametrize("origin", [ORIGIN, "http://testserver"])
def test_a_listed_origin_and_the_servers_own_are_not_logged(
    ann: TestClient, reasons: Callable[[], list[str]], origin: str
) -> None:
    assert ann.get("/api/tasks", headers={"Origin": origin}).status_code == 200

    assert reasons() == []


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/1", "/api/bob/tasks", "/nothing"])
def test_every_response_is_readable_from_a_listed_origin(anonymous: TestClient, path: str) -> None:
    response = anonymous.get(path, headers={"Origin": ORIGIN})

    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Expose-Headers"] == EXPOSED
    assert "Origin" in response.headers["Vary"]


def test_the_middleware_passes_lifespan_events_on(
    sqlite_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    with served(create_app(settings_for(sqlite_url))):
        pass

    assert "Application shutdown complete." in caplog.messages
    # uvicorn logs this if the lifespan raises an exception.
    assert "ASGI 'lifespan' protocol appears unsupported." not in caplog.messages
