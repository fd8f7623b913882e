"""Every response has the headers that OWASP recommends for an API."""

import pytest
from starlette.testclient import TestClient

from tests.contract.operations import OPERATIONS, Operation, name_of

ORIGIN = "http://localhost:3000"
EXPECTED = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_every_operation_sends_the_security_headers(ann: TestClient, operation: Operation) -> None:
    response = ann.request(operation.method, operation.path)

    assert {name: response.headers[name] for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize(
    ("method", "path", "headers", "status_code"),
    [
        ("GET", "/nothing", {}, 404),
        ("BREW", "/api/tasks", {}, 405),
        ("OPTIONS", "/api/tasks", PREFLIGHT, 200),
        ("OPTIONS", "/api/tasks", PREFLIGHT | {"Origin": "http://evil.example"}, 400),
    ],
)
def test_responses_of_the_framework_have_the_security_headers(
    anonymous: TestClient, method: str, path: str, headers: dict[str, str], status_code: int
) -> None:
    response = anonymous.request(method, path, headers=headers)

    assert response.status_code == status_code
    assert {name: response.headers[name] for name in EXPECTED} == EXPECTED


def test_the_response_to_an_unexpected_exception_has_the_security_headers(
    ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sqlalchemy.engine.Connection.execute", fail)

    response = ann.get("/api/tasks")

    assert response.status_code == 500
    assert {name: response.headers[name] for name in EXPECTED} == EXPECTED
