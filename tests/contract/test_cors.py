"""What a browser on a listed origin may do, and one on another may not."""

import pytest
from starlette.testclient import TestClient

ORIGIN = "http://localhost:3000"
EXPOSED = (
    "ETag, Idempotent-Replayed, Link, Location, RateLimit, RateLimit-Policy, Retry-After, "
    "X-Request-ID, X-Total-Count"
)
SENT = "authorization,content-type,idempotency-key,if-match,if-none-match,x-request-id"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_listed_origin_may_send_what_the_api_reads(anonymous: TestClient, method: str) -> None:
    response = anonymous.options(
        "/api/tasks/1",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": SENT,
        },
    )

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
    assert "Authorization" in response.headers["Access-Control-Allow-Headers"].split(", ")


@pytest.mark.parametrize(
    "origin", ["http://localhost:3001", "https://localhost:3000", "null", "http://evil.example"]
)
def test_another_origin_is_refused_in_the_one_error_body(ann: TestClient, origin: str) -> None:
    preflight = ann.options(
        "/api/tasks", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
    )
    actual = ann.get("/api/tasks", headers={"Origin": origin})

    assert preflight.status_code == 400
    assert preflight.json() == {"detail": "Disallowed CORS origin", "status_code": 400}
    for response in (preflight, actual):
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/1", "/api/bob/tasks", "/nothing"])
def test_every_answer_can_be_read_by_a_listed_origin(anonymous: TestClient, path: str) -> None:
    response = anonymous.get(path, headers={"Origin": ORIGIN})

    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Expose-Headers"] == EXPOSED
    assert "Origin" in response.headers["Vary"]
