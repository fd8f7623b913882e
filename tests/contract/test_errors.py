"""Every error, whoever makes it, has the one body, and a browser can read it."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.testclient import TestClient

from tests.actors import bearer
from tests.contract.operations import OPENAPI, OPERATIONS, Operation, name_of

ORIGIN = "http://localhost:3000"


@pytest.mark.parametrize(
    ("method", "path", "status_code", "detail"),
    [
        ("GET", "/docs/assets/nothing", 404, "Not Found"),
        ("GET", "/nothing", 404, "Not Found"),
        ("POST", "/api", 404, "Not Found"),
        ("GET", "/api/tasks/", 404, "Not Found"),
        ("GET", "/api//tasks", 404, "Not Found"),
        ("GET", "/health/", 404, "Not Found"),
        ("GET", "/%00%ff", 404, "Not Found"),
        ("GET", "/api/tasks/1", 404, "Task not found"),
        ("GET", "/api/bob/tasks", 403, "The path names another user than the token"),
        ("POST", "/health", 405, "Method Not Allowed"),
        ("TRACE", "/api/tasks", 405, "Method Not Allowed"),
        ("BREW", "/api/tasks/1", 405, "Method Not Allowed"),
        ("POST", "/openapi.json", 405, "Method Not Allowed"),
        ("GET", "/api/tasks/x", 422, "task_id: must be a whole number, written in digits"),
    ],
)
def test_an_error_has_the_one_body(
    ann: TestClient, method: str, path: str, status_code: int, detail: str
) -> None:
    response = ann.request(method, path, headers={"Origin": ORIGIN})

    assert response.status_code == status_code
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    body = response.json()
    body.pop("errors", None)
    assert body == {"detail": detail, "status_code": status_code}


@pytest.mark.parametrize("path", OPENAPI["paths"])
def test_a_405_names_every_method_of_the_path(ann: TestClient, path: str) -> None:
    response = ann.request("BREW", path.format(user_id="ann", task_id=1))

    assert response.status_code == 405
    methods = set(OPENAPI["paths"][path])
    if path.endswith(("/export", "/import")):
        methods |= set(OPENAPI["paths"]["/api/tasks/{task_id}"])  # whose path it is as well
    allowed = {method.upper() for method in methods}
    assert set(response.headers["Allow"].split(", ")) == allowed


OPERATIONS_THAT_CAN_FAIL = pytest.mark.parametrize(
    "operation",
    [o for o in OPERATIONS if o.documented["operationId"] not in {"health", "read_me"}],
    ids=name_of,
)


def _fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the database layer raise the error whatever it is asked."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sqlalchemy.engine.Connection.execute", fail)


@OPERATIONS_THAT_CAN_FAIL
def test_an_unexpected_exception_is_500_and_tells_nothing(
    ann: TestClient, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_with(ZeroDivisionError("s3cret"), monkeypatch)

    response = ann.request(
        operation.method, operation.path, json={"title": "x"}, headers={"Origin": ORIGIN}
    )

    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error", "status_code": 500}
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_an_unexpected_exception_reaches_the_server_which_logs_it(
    standing_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(standing_app, headers=bearer("ann")) as client:
        _fail_with(ZeroDivisionError("s3cret"), monkeypatch)

        with pytest.raises(ZeroDivisionError, match="s3cret"):
            client.get("/api/tasks")


@OPERATIONS_THAT_CAN_FAIL
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            OperationalError(
                "SELECT s3cret", {}, Exception("server closed the connection\nLINE 1")
            ),
            "server closed the connection",
        ),
        (InterfaceError("SELECT s3cret", {}, Exception("closed")), "closed"),
        (InternalError("SELECT s3cret", {}, Exception("read-only")), "read-only"),
        (PoolTimeoutError("QueuePool limit reached"), "QueuePool limit reached"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_database_that_fails_is_503_and_the_cause_is_logged_without_the_statement(
    ann: TestClient,
    operation: Operation,
    error: Exception,
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
    reasons: Callable[[], list[str]],
) -> None:
    _fail_with(error, monkeypatch)

    response = ann.request(
        operation.method, operation.path, json={"title": "x"}, headers={"Origin": ORIGIN}
    )

    assert response.status_code == 503
    assert response.json() == {
        "detail": "The database is not available; try again",
        "status_code": 503,
    }
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert reasons() == [cause]
