"""Each operation is one statement that contains the owner, and nothing else is sent."""

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import URL, event
from starlette.testclient import TestClient

from main import create_app
from tests.actors import bearer, settings_for
from tests.wire import wire_to

Traced = tuple[FastAPI, list[str]]

# Sent in the same message as the statement: the isolation level of a write, and the timeout.
READ_COMMITTED = "SET LOCAL transaction_isolation = 'read committed'; "
SETTINGS = re.compile(rf"({READ_COMMITTED})?SET LOCAL statement_timeout = '[0-3]\.[0-9]{{3}}s'; ")

OPERATIONS: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("POST", "", {"json": {"title": "x"}}, "INSERT", "user_id"),
    ("GET", "", {}, "SELECT", "WHERE task.user_id = 'ann'"),
    ("GET", "?status=pending&limit=3", {}, "SELECT", "WHERE task.user_id = 'ann'"),
    ("GET", "?q=x&sort=-title&total=false&offset=1", {}, "SELECT", "WHERE task.user_id = 'ann'"),
    (
        "GET",
        "?tag=a&tag=b&priority=high&due_before=2026-02-01&sort=-due_date",
        {},
        "SELECT",
        "WHERE task.user_id = 'ann'",
    ),
    ("PATCH", "?id=1", {"json": {"title": "y"}}, "UPDATE", "user_id = 'ann'"),
    ("DELETE", "?status=pending", {}, "UPDATE", "user_id = 'ann'"),
    ("GET", "/export", {}, "SELECT", "WHERE task.user_id = 'ann'"),
    ("GET", "/1", {}, "SELECT", "WHERE task.user_id = 'ann'"),
    ("PUT", "/1", {"json": {"title": "y", "status": "pending"}}, "UPDATE", "user_id = 'ann'"),
    (
        "PUT",
        "/1",
        {"json": {"due_date": "2026-02-01", "priority": "high", "tags": ["a"]}},
        "UPDATE",
        "user_id = 'ann'",
    ),
    ("PATCH", "/1", {"json": {"description": None}}, "UPDATE", "user_id = 'ann'"),
    ("PATCH", "/1", {"json": {}}, "SELECT", "WHERE task.user_id = 'ann'"),
    ("PATCH", "/1/complete", {}, "UPDATE", "user_id = 'ann'"),
    ("DELETE", "/1", {}, "UPDATE", "user_id = 'ann'"),
]


@pytest.fixture
def traced_sqlite(sqlite_url: URL) -> Traced:
    """An app, and the statements that it executes on SQLite."""
    app = create_app(settings_for(sqlite_url))
    statements: list[str] = []

    def note(statement: str) -> None:
        if statements[-1:] != [statement]:  # reported once more for each statement of a trigger
            statements.append(statement)

    def trace(connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(note)

    event.listen(app.state.database.engine, "connect", trace)
    return app, statements


@pytest.fixture
def traced_postgresql(postgresql_url: URL) -> Iterator[Traced]:
    """An app, and the messages that it sends to PostgreSQL, each of which is a round trip."""
    with wire_to(postgresql_url) as wire:
        yield create_app(settings_for(wire.url)), wire.statements


@pytest.mark.parametrize(("method", "path", "arguments", "verb", "owner"), OPERATIONS)
@pytest.mark.parametrize("tasks", ["/api/tasks", "/api/ann/tasks"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_operation_is_one_statement_with_the_owner(
    request: pytest.FixtureRequest,
    kind: str,
    tasks: str,
    method: str,
    path: str,
    arguments: dict[str, Any],
    verb: str,
    owner: str,
) -> None:
    app, statements = request.getfixturevalue(f"traced_{kind}")
    with TestClient(app, headers=bearer("ann")) as ann:
        ann.post("/api/tasks", json={"title": "the first"})
        statements.clear()

        response = ann.request(method, tasks + path, **arguments)

    assert response.is_success
    (statement,) = statements
    assert bool(SETTINGS.match(statement)) == (kind == "postgresql")
    assert (READ_COMMITTED in statement) == (kind == "postgresql" and verb != "SELECT")
    assert SETTINGS.sub("", statement).startswith(verb)
    assert owner in statement
    assert "LIKE" not in statement  # an unfortunate pattern takes it seconds per thousand tasks


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_request_without_changes_is_one_statement(
    request: pytest.FixtureRequest, kind: str
) -> None:
    app, statements = request.getfixturevalue(f"traced_{kind}")
    with TestClient(app, headers=bearer("ann")) as ann:
        ann.post("/api/tasks", json={"title": "x"})
        token = ""
        for expected in (2, 1, 1):
            statements.clear()
            since = {"since": token} if token else {}

            token = ann.get("/api/tasks/changes", params=since).json()["next"]

            assert len(statements) == expected
            assert all("task.user_id = 'ann'" in statement for statement in statements)
        ann.post("/api/tasks", json={"title": "y"})
        statements.clear()
        assert len(ann.get("/api/tasks/changes", params={"since": token}).json()["tasks"]) == 1
        assert len(statements) == 2


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_listing_the_tags_is_one_statement(request: pytest.FixtureRequest, kind: str) -> None:
    app, statements = request.getfixturevalue(f"traced_{kind}")
    with TestClient(app, headers=bearer("ann")) as ann:
        ann.post("/api/tasks", json={"title": "x", "tags": ["a", "b"]})
        statements.clear()

        assert len(ann.get("/api/tags").json()) == 2

    (statement,) = statements
    assert "WHERE task.user_id = 'ann'" in statement


def test_a_new_connection_costs_no_statement(traced_postgresql: Traced) -> None:
    app, statements = traced_postgresql
    with TestClient(app, headers=bearer("ann")) as ann:
        app.state.database.engine.dispose()
        statements.clear()

        ann.get("/api/tasks")

    assert [SETTINGS.sub("", statement)[:6] for statement in statements] == ["SELECT"]


def test_an_open_connection_is_not_tested_before_a_statement(traced_postgresql: Traced) -> None:
    app, statements = traced_postgresql
    with TestClient(app, headers=bearer("ann")) as ann:
        statements.clear()

        for _ in range(5):
            ann.get("/api/tasks")

    assert len(statements) == 5


def test_users_of_one_process_share_its_connections(postgresql_url: URL) -> None:
    with wire_to(postgresql_url) as wire, TestClient(create_app(settings_for(wire.url))) as client:
        for number in range(30):
            client.get("/api/tasks", headers=bearer(f"user-{number}"))

        assert len(wire.clients) == 1
