"""Assistants call tools at /mcp, for the user of their token only."""

import json
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL
from sqlalchemy.exc import DataError, OperationalError
from starlette.testclient import TestClient

import overload
from db import Database
from main import create_app
from routes import tools
from routes.paging import Page
from routes.tools import TOOLS
from tests.actors import bearer, served, settings_for
from tests.auth_server import AuthServer, SigningKey, auth_server
from tests.hostile_tokens import CLAIMS, hs256

MCP_URL = "https://tasks.example.com/mcp"
METADATA_URL = "https://tasks.example.com/.well-known/oauth-protected-resource/mcp"
ERROR_OF: dict[
    str, tuple[tuple[str, dict[str, Any]], tuple[str, str, object]]
] = {  # a call with invalid arguments, and the request with the same fault
    "an empty title": (("add_task", {"title": " "}), ("POST", "", {"title": " "})),
    "no title": (("add_task", {}), ("POST", "", {})),
    "U+0000": (("add_task", {"title": "a\0"}), ("POST", "", {"title": "a\0"})),
    "a day that does not exist": (
        ("add_task", {"title": "a", "due_date": "2026-02-30"}),
        ("POST", "", {"title": "a", "due_date": "2026-02-30"}),
    ),
    "a time zone": (
        ("add_task", {"title": "a", "due_date": "2026-01-31T17:00Z"}),
        ("POST", "", {"title": "a", "due_date": "2026-01-31T17:00Z"}),
    ),
    "an unknown priority": (
        ("update_task", {"task_id": 1, "priority": "urgent"}),
        ("PUT", "/1", {"priority": "urgent"}),
    ),
    "a title that is null": (
        ("update_task", {"task_id": 1, "title": None}),
        ("PUT", "/1", {"title": None}),
    ),
    "too large a page": (("list_tasks", {"limit": 101}), ("GET", "?limit=101", None)),
    "a cursor of no page": (("list_tasks", {"cursor": "x"}), ("GET", "?cursor=x", None)),
    "a task that does not exist": (("complete_task", {"task_id": 7}), ("PATCH", "/7/complete", {})),
}

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def app(database_url: URL) -> FastAPI:
    return create_app(settings_for(database_url, mcp=True))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def _message(method: str, **parameters: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}


def _meta(version: str) -> dict[str, object]:
    """Return what each message has instead of a handshake since 2026-07-28."""
    return {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }


def _caller(client: TestClient, user_id: str) -> Call:
    """Return a function that calls a tool for the user, and returns its result."""

    def call(name: str, **arguments: object) -> dict[str, Any]:
        message = _message("tools/call", name=name, arguments=arguments)
        response = client.post("/mcp", json=message, headers=bearer(user_id))
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()["result"]
        return result

    return call


@pytest.fixture
def anns(client: TestClient) -> Call:
    return _caller(client, "ann")


@pytest.fixture
def bobs(client: TestClient) -> Call:
    return _caller(client, "bob")


def _value(result: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
    """Return the value of a result, which is there twice: as JSON and as text."""
    assert result["isError"] is False, result
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    return result["structuredContent"]


def _problem(result: dict[str, Any]) -> str:
    """Return the message of a tool error."""
    assert result.keys() == {"content", "isError"}
    assert result["isError"] is True
    return str(result["content"][0]["text"])


def test_a_tool_returns_what_the_api_returns(client: TestClient, anns: Call) -> None:
    fields = {
        "title": "Buy milk",
        "description": "Two liters",
        "status": "in_progress",
        "due_date": "2026-01-31T17:00",
        "priority": "high",
        "tags": ["shopping", "home"],
    }

    task = _value(anns("add_task", **fields))

    path = f"/api/tasks/{task['id']}"
    assert task == client.get(path, headers=bearer("ann")).json()
    assert task == task | fields | {"user_id": "ann"}
    listed = {"tasks": [task], "total": 1, "next_cursor": None}
    assert _value(anns("list_tasks")) == listed
    changed = _value(anns("update_task", task_id=task["id"], title="Milk", due_date=None))
    assert changed == client.get(path, headers=bearer("ann")).json()
    assert (changed["title"], changed["due_date"], changed["tags"]) == (
        "Milk",
        None,
        ["shopping", "home"],
    )
    completed = _value(anns("complete_task", task_id=task["id"]))
    assert completed == client.get(path, headers=bearer("ann")).json()
    assert completed["status"] == "completed"
    assert _value(anns("complete_task", task_id=str(task["id"]))) == completed
    assert _value(anns("update_task", task_id=task["id"])) == completed
    assert _value(anns("delete_task", task_id=task["id"])) == {"deleted_id": task["id"]}
    assert _problem(anns("delete_task", task_id=task["id"])) == "Task not found"
    assert client.get(path, headers=bearer("ann")).status_code == 404


def test_the_tool_has_every_filter_of_the_list() -> None:
    assert TOOLS["list_tasks"].definition().input_schema["properties"].keys() == (
        Page.model_fields.keys()
    )


@pytest.mark.parametrize(
    "filters",
    [
        {"status": ["pending", "completed"]},
        {"priority": ["high"]},
        {"tag": ["HOME", "work"]},
        {"due_before": "2026-02-01", "due_after": "2026-01-30T23:59"},
        {"due": "none"},
        {"q": "MILK"},
        {"sort": "title", "limit": 2, "offset": 1},
        {"sort": "-due_date", "status": ["pending"]},
    ],
)
def test_a_filter_of_the_tool_is_that_of_the_api(
    client: TestClient, anns: Call, filters: dict[str, Any]
) -> None:
    for task in (
        {"title": "Buy milk", "due_date": "2026-01-31", "tags": ["home"]},
        {"title": "Call Bob", "priority": "high", "status": "completed"},
        {"title": "Milk the cow", "due_date": "2026-03-01T07:00", "tags": ["work"]},
        {"title": "Archive", "status": "in_progress"},
    ):
        anns("add_task", **task)

    listed = _value(anns("list_tasks", **filters))

    response = client.get("/api/tasks", params=filters, headers=bearer("ann"))
    assert listed["tasks"] == response.json()
    assert listed["total"] == int(response.headers["X-Total-Count"])


def test_cursors_lead_to_all_tasks(anns: Call) -> None:
    for number in range(5):
        anns("add_task", title=f"Task {number}")

    titles: list[str] = []
    page: dict[str, Any] = {"next_cursor": None}
    while not titles or page["next_cursor"]:
        cursor = page["next_cursor"]
        page = _value(anns("list_tasks", sort="title", limit=2, total=False, cursor=cursor))
        titles += [task["title"] for task in page["tasks"]]

    assert titles == [f"Task {number}" for number in range(5)]
    assert page["total"] is None


@pytest.mark.parametrize("fault", ERROR_OF)
def test_a_tool_refuses_what_the_api_refuses_in_the_same_words(
    client: TestClient, anns: Call, fault: str
) -> None:
    (tool, arguments), (method, path, body) = ERROR_OF[fault]

    message = _problem(anns(tool, **arguments))

    response = client.request(method, f"/api/tasks{path}", json=body, headers=bearer("ann"))
    assert message == response.json()["detail"]
    assert response.status_code in {404, 422}


@pytest.mark.parametrize("tool", ["update_task", "complete_task", "delete_task"])
def test_another_users_task_is_not_found(anns: Call, bobs: Call, tool: str) -> None:
    task = _value(anns("add_task", title="Ann's"))

    assert _problem(bobs(tool, task_id=task["id"])) == "Task not found"
    assert _problem(bobs(tool, task_id=task["id"] + 1)) == "Task not found"
    assert _value(bobs("list_tasks"))["tasks"] == []
    assert _value(anns("list_tasks"))["tasks"] == [task]


@pytest.mark.parametrize("name", ["user_id", "owner", "sub", "user", "as_user", "id", "userId"])
def test_an_argument_that_names_a_user_changes_nothing(anns: Call, bobs: Call, name: str) -> None:
    other: dict[str, Any] = {name: "bob"}
    bobs("add_task", title="Bob's")

    task = _value(anns("add_task", title="Ann's", **other))

    assert task["user_id"] == "ann"
    assert _value(anns("update_task", task_id=task["id"], **other)) == task
    assert _value(anns("complete_task", task_id=task["id"], **other))["user_id"] == "ann"
    assert _value(anns("delete_task", task_id=task["id"], **other)) == {"deleted_id": task["id"]}
    assert _problem(anns("list_tasks", **other)) == f"{name}: is not an argument of this tool"
    assert [task["title"] for task in _value(bobs("list_tasks"))["tasks"]] == ["Bob's"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PLAUSIBLE = st.sampled_from(
    [1, "1", 2**63, -1, "ann", "bob", "pending", "2026-01-31", "high", ["a"], ["pending"], "title"]
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(sorted({"user_id", "owner", "task_id", "title", *Page.model_fields}))
    | st.sampled_from(["description", "due_date", "tags"])
    | st.text(),
    PLAUSIBLE | ANY_JSON,
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tool=st.sampled_from(sorted(TOOLS)), arguments=ARGUMENTS)
@example(tool="add_task", arguments={"title": math.nan})  # which is not JSON
def test_no_arguments_cause_an_internal_error_or_reach_another_users_tasks(
    client: TestClient, bobs: Call, tool: str, arguments: dict[str, Any]
) -> None:
    _value(bobs("add_task", title="Bob's"))
    before = _value(bobs("list_tasks", limit=100))
    message = _message("tools/call", name=tool, arguments=arguments)

    response = client.post("/mcp", content=json.dumps(message), headers=JSON | bearer("ann"))

    answer = response.json()
    if response.status_code == 200:
        assert "Internal" not in response.text
        assert "bob" not in {task["user_id"] for task in _tasks_in(answer["result"])}
    else:
        assert response.status_code == 400
        assert answer["status_code"] == 400
    assert _value(bobs("list_tasks", limit=100)) == before


JSON = {"Content-Type": "application/json"}


def _tasks_in(result: dict[str, Any]) -> list[dict[str, Any]]:
    value = result.get("structuredContent", {})
    tasks: list[dict[str, Any]] = value.get("tasks", [value] if "user_id" in value else [])
    return tasks


def test_the_tools_are_described(client: TestClient) -> None:
    response = client.post("/mcp", json=_message("tools/list"), headers=bearer("ann"))

    listed = {tool["name"]: tool for tool in response.json()["result"]["tools"]}
    assert {
        name: {hint for hint, holds in tool["annotations"].items() if holds}
        for name, tool in listed.items()
    } == {
        "add_task": set(),
        "list_tasks": {"readOnlyHint", "idempotentHint"},
        "update_task": {"destructiveHint", "idempotentHint"},
        "complete_task": {"idempotentHint"},
        "delete_task": {"destructiveHint", "idempotentHint"},
    }
    for tool in listed.values():
        assert tool["description"]
        assert not {"user_id", "owner"} & tool["inputSchema"]["properties"].keys()
        for argument in tool["inputSchema"]["properties"].values():
            assert "description" in argument or "description" in argument["anyOf"][0]
            assert "Link" not in argument.get("description", "")


def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol(client: TestClient) -> None:
    message = _message("tools/call", name="drop_table", arguments={})

    response = client.post("/mcp", json=message, headers=bearer("ann"))

    assert response.json()["error"] == {"code": -32602, "message": "There is no such tool"}


def test_no_more_tasks_than_the_quota_are_added(database_url: URL) -> None:
    app = create_app(settings_for(database_url, mcp=True, tasks_per_user=1))
    with TestClient(app, "http://localhost") as client:
        call = _caller(client, "ann")
        call("add_task", title="First")

        message = _problem(call("add_task", title="Second"))

    assert message == "No more than 1 tasks are allowed; delete some first"


def test_tools_and_requests_share_a_rate_limit(sqlite_url: URL) -> None:
    app = create_app(settings_for(sqlite_url, mcp=True, rate_limit="2/hour"))
    with TestClient(app, "http://localhost", headers=bearer("ann")) as client:
        client.get("/api/tasks")
        client.post("/mcp", json=_message("tools/list"))

        response = client.post("/mcp", json=_message("tools/list"))

    assert response.status_code == 429
    assert response.json()["status_code"] == 429
    assert "Retry-After" in response.headers


def test_a_database_that_is_not_available_is_a_tool_error(
    app: FastAPI,
    anns: Call,
    reasons: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("the server is gone"))

    database: Database = app.state.database
    monkeypatch.setattr(database, "run", fail)

    assert _problem(anns("list_tasks")) == "The database is not available; try again"
    assert reasons() == ["the server is gone"]
    assert [line.levelname for line in caplog.records if line.name == "logs"] == ["WARNING"]


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("secret"), DataError("SELECT", {}, Exception("secret"))]
)
def test_an_unexpected_failure_is_logged_and_tells_nothing(
    anns: Call,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(tools, "total_of", fail)

    assert _problem(anns("list_tasks")) == "Internal Server Error"
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


def test_the_log_has_the_tool_without_its_arguments(
    anns: Call, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        anns("add_task", title="A secret plan")

    lines = [vars(record) for record in caplog.records if record.name == "logs"]
    assert [(line["route"], line["tool"], line["user_id"]) for line in lines] == [
        ("/mcp", "add_task", "ann")
    ]
    assert "secret" not in caplog.text


def test_without_a_token_clients_learn_where_to_get_one(client: TestClient) -> None:
    response = client.post("/mcp", json=_message("tools/list"))

    assert response.status_code == 401
    assert response.json()["status_code"] == 401
    assert response.headers["WWW-Authenticate"] == f'Bearer resource_metadata="{METADATA_URL}"'


def test_the_challenge_of_a_bad_token_also_names_the_metadata(client: TestClient) -> None:
    response = client.post("/mcp", content=b"{", headers={"Authorization": "Bearer x.y.z"})

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == (
        'Bearer error="invalid_token", error_description="Token is malformed", '
        f'resource_metadata="{METADATA_URL}"'
    )


def test_the_metadata_name_the_authorization_server(sqlite_url: URL) -> None:
    app = create_app(
        settings_for(sqlite_url, mcp=True, better_auth_url="https://auth.example.com/")
    )

    response = TestClient(app).get("/.well-known/oauth-protected-resource/mcp")

    assert response.json() == {
        "resource": MCP_URL,
        "resource_name": "Tasks",
        "bearer_methods_supported": ["header"],
        "authorization_servers": ["https://auth.example.com/api/auth"],
    }


def test_without_an_auth_server_the_metadata_name_none(client: TestClient) -> None:
    response = client.get("/.well-known/oauth-protected-resource/mcp")

    assert response.json() == {
        "resource": MCP_URL,
        "resource_name": "Tasks",
        "bearer_methods_supported": ["header"],
    }


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with auth_server() as server:
        yield server


@pytest.mark.parametrize(
    ("audience", "at_mcp", "at_api"),
    [
        ("the API", 200, 200),
        (MCP_URL, 200, 401),
        ([MCP_URL, "https://other.example.com"], 200, 401),
        ("https://other.example.com/mcp", 401, 401),
        (f"{MCP_URL}/", 401, 401),
        (None, 401, 401),
    ],
)
def test_a_token_for_mcp_alone_does_not_open_the_api(
    sqlite_url: URL, server: AuthServer, audience: object, at_mcp: int, at_api: int
) -> None:
    key = SigningKey("EdDSA")
    server.members = [key.member]
    token = key.token(server.claims(aud=server.url if audience == "the API" else audience))
    app = create_app(settings_for(sqlite_url, mcp=True, better_auth_url=server.url))
    with TestClient(
        app, "http://localhost", headers={"Authorization": f"Bearer {token}"}
    ) as client:
        for _ in range(2):  # the second time, the token's signature is not checked again
            assert client.post("/mcp", json=_message("tools/list")).status_code == at_mcp
            assert client.get("/api/tasks").status_code == at_api


@pytest.mark.parametrize(
    ("audience", "at_mcp", "at_api"),
    [
        ({}, 200, 200),
        ({"aud": "https://auth.example.com"}, 200, 200),
        ({"aud": MCP_URL}, 200, 401),
        ({"aud": "the id of an OAuth client"}, 401, 401),
    ],
)
def test_with_mcp_the_audience_of_hs256_tokens_is_checked_if_they_have_one(
    sqlite_url: URL, audience: dict[str, str], at_mcp: int, at_api: int
) -> None:
    app = create_app(settings_for(sqlite_url, mcp=True, better_auth_url="https://auth.example.com"))
    token = hs256(CLAIMS | audience)
    with TestClient(
        app, "http://localhost", headers={"Authorization": f"Bearer {token}"}
    ) as client:
        assert client.post("/mcp", json=_message("tools/list")).status_code == at_mcp
        assert client.get("/api/tasks").status_code == at_api


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "tasks.example.com"}, 200),
        ({"Host": "TASKS.example.com:8443"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "tasks.example.com.evil.example"}, 421),
        ({"Host": "localhost.evil.example:8000"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://tasks.example.com"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    response = client.post("/mcp", json=_message("ping"), headers=bearer("ann") | headers)

    assert response.status_code == status
    assert status == 200 or response.json()["status_code"] == status


def test_any_origin_is_allowed_if_cors_allows_all(sqlite_url: URL) -> None:
    app = create_app(settings_for(sqlite_url, mcp=True, cors_origins="*"))
    headers = bearer("ann") | {"Origin": "https://app.example.com"}
    with TestClient(app, "http://localhost", headers=headers) as client:
        assert client.post("/mcp", json=_message("ping")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b'"s3cret"',
        b"[" * 20_000,
        b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":null,"method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":{"s3cret":1},"method":"ping"}',
        b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"s3cret":NaN}}',
        b'{"jsonrpc":"1.0","id":1,"method":"s3cret"}',
        b'[{"jsonrpc":"2.0","id":1,"method":"s3cret"}]',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":["s3cret"]}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}',
    ],
    ids=lambda body: str(body[:60]),
)
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_what_is_not_a_message_is_400_and_not_repeated(
    client: TestClient, body: bytes, version: str
) -> None:
    headers = bearer("ann") | JSON | {"MCP-Protocol-Version": version}

    response = client.post("/mcp", content=body, headers=headers)

    assert response.status_code == 400
    assert response.json() == {
        "detail": "The body is not a JSON-RPC 2.0 message",
        "status_code": 400,
    }


def test_excess_messages_are_refused_like_other_requests(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 0)

    response = client.post("/mcp", content=b"{}", headers=bearer("ann") | JSON)

    assert response.status_code == 503
    assert response.json()["detail"] == "The server is busy; try again"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b'{"jsonrpc":"2.0","id":1,"method":"ping"}', 400),
        ({"Accept": "text/html"}, b'{"jsonrpc":"2.0","id":1,"method":"ping"}', 406),
        ({"Content-Encoding": "gzip"}, b"x", 422),
        ({}, b" " * 70_000, 413),
    ],
)
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_errors_before_the_protocol_have_the_shape_of_all_errors(
    client: TestClient, headers: dict[str, str], body: bytes, status: int, version: str
) -> None:
    response = client.post(
        "/mcp",
        content=body,
        headers=bearer("ann") | JSON | {"MCP-Protocol-Version": version} | headers,
    )

    assert response.status_code == status
    assert response.json()["status_code"] == status
    assert isinstance(response.json()["detail"], str)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_is_allowed(client: TestClient, method: str) -> None:
    response = client.request(method, "/mcp", headers=bearer("ann"))

    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"
    assert response.json() == {"detail": "Method Not Allowed", "status_code": 405}


def test_an_unknown_version_of_the_protocol_is_answered_with_those_that_are_known(
    client: TestClient,
) -> None:
    version = "2031-01-01"
    headers = bearer("ann") | {"MCP-Protocol-Version": version, "Mcp-Method": "tools/list"}

    response = client.post(
        "/mcp", json=_message("tools/list", _meta=_meta(version)), headers=headers
    )

    assert response.status_code == 400
    assert response.json()["id"] == 1
    assert "2026-07-28" in response.json()["error"]["data"]["supported"]


def test_a_subscription_is_refused_as_an_unknown_method(client: TestClient) -> None:
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
    parameters = {"notifications": {}, "_meta": _meta("2026-07-28")}

    response = client.post(
        "/mcp",
        json=_message("subscriptions/listen", **parameters),
        headers=bearer("ann") | headers | {"Accept": "application/json, text/event-stream"},
    )

    assert response.status_code == 404
    assert response.json()["error"]["code"] == -32601


@pytest.mark.parametrize("path", ["/mcp", "/api/tasks", "/api/tasks/import"])
def test_a_client_that_leaves_while_it_sends_the_body_causes_no_failure(
    app: FastAPI, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: {bearer('ann')['Authorization']}\r\nContent-Length: 100\r\n\r\n"
    with served(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(head.encode() + b'{"a":')
        while not (lines := [vars(line) for line in caplog.records if line.name == "logs"]):
            time.sleep(0.01)

    assert [line["status"] for line in lines] == [400]
    assert [record for record in caplog.records if record.exc_info] == []


def test_without_mcp_there_is_no_such_path(sqlite_url: URL) -> None:
    with TestClient(create_app(settings_for(sqlite_url)), headers=bearer("ann")) as client:
        for path in ("/mcp", "/.well-known/oauth-protected-resource/mcp"):
            assert client.post(path, json={}).status_code == 404
