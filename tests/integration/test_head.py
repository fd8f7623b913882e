"""HEAD returns the headers of GET without a body, also on a real server."""

import http.client
import logging
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

import overload
import statements
from tests.actors import bearer, served
from tests.contract.operations import OPENAPI

# Headers that differ between two responses to the same request.
VARYING_HEADERS = {"date", "x-request-id"}

PATHS = [
    *(path for path, methods in OPENAPI["paths"].items() if "get" in methods),
    *("/", "/docs", "/redoc", "/docs/redoc.js", "/docs/assets/favicon.png", "/openapi.json"),
    *("/api/tasks?limit=1", "/api/tasks?limit=1&total=false", "/api/tasks/x", "/api/tasks/2"),
    *("/api/bob/tasks", "/api/tasks/", "/docs/assets/nothing"),
]

Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def ask(app: FastAPI) -> Iterator[Ask]:
    """Send requests over one connection to a real server, which unexpected bytes would break."""
    with served(app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

        def ask(method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
            connection.request(method, path, headers=bearer("ann") | headers)
            response = connection.getresponse()
            shown = {name.lower(): value for name, value in response.getheaders()}
            for name in VARYING_HEADERS:
                del shown[name]
            return response.status, shown, response.read()

        yield ask
        connection.close()


@pytest.mark.usefixtures("anns_task")
def test_head_has_the_headers_of_get_on_every_path(ann: TestClient, ask: Ask) -> None:
    ann.post("/api/tasks", json={"title": "so that there is a next page"})
    ann.delete("/api/tasks/2")
    ann.post("/api/tasks", json={"title": "the same"})

    for path in (path.format(user_id="ann", task_id=1) for path in PATHS):
        status, headers, body = ask("HEAD", path)
        status_of_get, headers_of_get, body_of_get = ask("GET", path)

        assert (status, body) == (status_of_get, b""), path
        # It describes only the body (RFC 9112, 6.1).
        headers_of_get.pop("transfer-encoding", None)
        assert headers == headers_of_get, path
        assert headers.get("content-length", str(len(body_of_get))) == str(len(body_of_get)), path


def test_head_has_the_headers_of_the_list_and_of_a_task(ann: TestClient, anns_task: str) -> None:
    ann.post("/api/tasks", json={"title": "another"})

    listed, read = ann.head("/api/tasks?limit=1"), ann.head(anns_task)

    assert (listed.status_code, listed.headers["X-Total-Count"]) == (200, "2")
    assert listed.links["next"]["url"] == ann.get("/api/tasks?limit=1").links["next"]["url"]
    assert (read.status_code, read.headers["ETag"]) == (200, '"1"')
    assert ann.head(anns_task, headers={"If-None-Match": '"1"'}).status_code == 304


def test_head_of_an_export_stops_reading_without_an_error(
    ann: TestClient, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    line = b'{"title": "one of many"}\n'
    ann.post("/api/tasks/import", content=line * (3 * statements.EXPORT_PAGE_ROWS))

    for _ in "123":
        status, headers, body = ask("HEAD", "/api/tasks/export")
        assert (status, headers["content-type"], body) == (200, "application/jsonl", b"")
    assert ask("GET", "/api/tasks")[0] == 200

    assert [line.message for line in caplog.records if line.levelno > logging.INFO] == []


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/1", "/api/tasks/export"])
def test_head_needs_a_token(anonymous: TestClient, path: str) -> None:
    response = anonymous.head(path)

    assert (response.status_code, response.content) == (401, b"")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_refused_head_has_no_body(ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 0)

    response = ann.head("/api/tasks")

    assert (response.status_code, response.content) == (503, b"")
    assert response.headers["Retry-After"] == "1"


def test_head_after_an_unexpected_exception_has_no_body(
    ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sqlalchemy.engine.Connection.execute", fail)

    response = ann.head("/api/tasks")

    assert (response.status_code, response.content) == (500, b"")


def test_the_contract_does_not_list_head() -> None:
    assert [path for path, methods in OPENAPI["paths"].items() if "head" in methods] == []
