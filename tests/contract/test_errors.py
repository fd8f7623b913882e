"""Every error has the standard body, wherever it comes from, and browsers can read it."""

import re
from collections.abc import Callable

import httpx2
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
        ("GET", "/nothing/", 404, "Not Found"),
        ("GET", "/docs/assets/nothing/", 404, "Not Found"),
        ("GET", f"/api/{'x' * 200}/tasks/", 404, "Not Found"),
        ("GET", "/%00%ff", 404, "Not Found"),
        ("GET", "/api/tasks/1", 404, "Task not found"),
        ("GET", "/api/bob/tasks", 403, "The user id in the path is not the token's"),
        ("POST", "/health", 405, "Method Not Allowed"),
        ("TRACE", "/api/tasks", 405, "Method Not Allowed"),
        ("BREW", "/api/tasks/1", 405, "Method Not Allowed"),
        ("POST", "/openapi.json", 405, "Method Not Allowed"),
        ("POST", "/docs/assets/favicon.png", 405, "Method Not Allowed"),
        ("OPTIONS", "/api/tasks", 405, "Method Not Allowed"),
        ("GET", "/api/tasks/x", 422, "task_id: must be a whole number, written in digits"),
    ],
)
def test_every_error_has_the_standard_body(
    ann: TestClient, method: str, path: str, status_code: int, detail: str
) -> None:
    response = ann.request(method, path, headers={"Origin": ORIGIN})

    assert response.status_code == status_code
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    body = response.json()
    body.pop("errors", None)
    assert body == {"detail": detail, "status_code": status_code}


def test_an_invalid_range_of_a_file_is_ignored(anonymous: TestClient) -> None:
    for value in ("bytes=abc", "bytes=5-1", "bytes=999999999-", "items=0-1"):
        response = anonymous.get("/docs/assets/favicon.png", headers={"Range": value})
        assert response.status_code == 200


def _allowed(path: str) -> set[str]:
    methods = {method.upper() for method in OPENAPI["paths"][path]}
    return methods | ({"HEAD"} if "GET" in methods else set())


def _allow_of(response: httpx2.Response) -> set[str]:
    return set(response.headers["Allow"].split(", "))


@pytest.mark.parametrize("method", ["BREW", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", OPENAPI["paths"])
def test_a_405_lists_every_method_of_the_path(
    anonymous: TestClient, method: str, path: str
) -> None:
    response = anonymous.request(method, path.format(user_id="ann", task_id=1))

    assert response.status_code == 405
    assert _allow_of(response) == _allowed(path)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/openapi.json", "/docs/assets/favicon.png"]
)
def test_a_405_of_a_page_lists_its_methods(anonymous: TestClient, path: str) -> None:
    response = anonymous.post(path)

    assert response.status_code == 405
    assert _allow_of(response) == {"GET", "HEAD"}


FIXED_NAMES = [
    path for path in OPENAPI["paths"] if re.fullmatch(r"/api/(\{user_id\}/)?tasks/[a-z]+", path)
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", FIXED_NAMES)
def test_a_fixed_name_is_not_an_id(anonymous: TestClient, path: str, method: str) -> None:
    response = anonymous.request(method, path.format(user_id="ann"))

    if method in _allowed(path):
        assert response.status_code == 401
    else:
        assert response.status_code == 405
        assert _allow_of(response) == _allowed(path)


def test_the_fixed_names_are_found_in_the_contract() -> None:
    assert {"/api/tasks/export", "/api/{user_id}/tasks/import"} < set(FIXED_NAMES)


@pytest.mark.parametrize("method", ["POST", "BREW"])
def test_a_task_id_named_tasks_is_a_task_id(ann: TestClient, method: str) -> None:
    response = ann.request(method, "/api/tasks/tasks", json={"title": "x"})

    assert response.status_code == 405
    assert _allow_of(response) == _allowed("/api/tasks/{task_id}")


@pytest.mark.parametrize(
    "path",
    ["/api/tasks%0A", "/api/ann/tasks%0A", "/api/tasks/export%0A", "/api/tasks/1/complete%0A"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_a_line_break_after_a_path_makes_it_another_path(
    ann: TestClient, method: str, path: str
) -> None:
    response = ann.request(method, path, json={"title": "x"})

    assert response.status_code == 404
    assert response.json() == {"detail": "Not Found", "status_code": 404}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "similar"),
    [
        *((f"{path}/", path) for path in OPENAPI["paths"]),
        ("/api/tasks///", "/api/tasks"),
        ("/api//tasks", "/api/tasks"),
        ("//api/tasks//1//complete//", "/api/tasks/1/complete"),
        ("/api/tasks%2F", "/api/tasks"),
        ("/docs/", "/docs"),
        ("/docs//assets/favicon.png", "/docs/assets/favicon.png"),
        ("//", "/"),
        ("/api/<b>%0D%0AX: %22ä/tasks/", "/api/%3Cb%3E%0D%0AX%3A%20%22%C3%A4/tasks"),
    ],
)
def test_a_404_suggests_the_path_without_extra_slashes(
    anonymous: TestClient, method: str, path: str, similar: str
) -> None:
    url = f"http://testserver{path.format(user_id='ann', task_id=1)}"  # `//api` is a host

    response = anonymous.request(method, url)

    assert response.status_code == 404
    suggestion = similar.format(user_id="ann", task_id=1)
    assert response.json() == {
        "detail": f"Not Found; did you mean {suggestion}?",
        "status_code": 404,
    }


every_database_operation = pytest.mark.parametrize(
    "operation",
    [o for o in OPERATIONS if o.documented["operationId"] not in {"health", "read_me"}],
    ids=name_of,
)


def _fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every statement raise the error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sqlalchemy.engine.Connection.execute", fail)


@every_database_operation
def test_an_unexpected_exception_is_500_without_details(
    ann: TestClient, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_with(ZeroDivisionError("s3cret"), monkeypatch)

    response = ann.request(
        operation.method, operation.path, json={"title": "x"}, headers={"Origin": ORIGIN}
    )

    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error", "status_code": 500}
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_an_unexpected_exception_reaches_the_server(
    standing_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(standing_app, headers=bearer("ann")) as client:
        _fail_with(ZeroDivisionError("s3cret"), monkeypatch)

        with pytest.raises(ZeroDivisionError, match="s3cret"):
            client.get("/api/tasks")


@every_database_operation
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
def test_a_database_failure_is_503_and_its_cause_is_logged_without_the_statement(
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
