"""On Citus, every statement is routed to the one shard that has its owner's tasks.

Collected only if CITUS_URL is set: see tests/conftest.py and CONTRIBUTING.md.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Executable, event
from starlette.testclient import TestClient

import statements
from main import create_app
from tests.actors import bearer, settings_for
from tests.integration.test_statements import OPERATIONS

# The operations of test_statements, and others; `/1` is replaced with an existing task.
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    *((method, f"/api/tasks{path}", arguments) for method, path, arguments, *_ in OPERATIONS),
    ("POST", "/api/tasks", {"json": {"title": "x"}, "headers": {"Idempotency-Key": "key"}}),
    ("POST", "/api/tasks", {"json": {"title": "x"}, "headers": {"Idempotency-Key": "key"}}),
    ("POST", "/api/tasks/import", {"content": '{"title": "x"}\n{"title": "y"}\n{"title": "z"}'}),
    ("PUT", "/api/tasks/1", {"json": {"title": "x"}, "headers": {"If-Match": '"1"'}}),
    ("DELETE", "/api/tasks/1", {"headers": {"If-Match": '"2", "1"'}}),
    ("GET", "/api/tasks?offset=1000", {}),
    ("GET", "/api/tags", {}),
    ("DELETE", "/api/me", {}),
]
OF_ALL_USERS = {"RECORD_PURGE", "PURGE"}  # the statements of `main.py purge`
CONSTANTS = {
    name: value
    for name, value in vars(statements).items()
    if isinstance(value, Executable) and name not in OF_ALL_USERS
}


@pytest.fixture
def plans() -> dict[str, list[str]]:
    """The plans of each statement that Ann executes, by its name or, if it has none, its SQL."""
    return {}


@pytest.fixture
def ann(postgresql_url: URL, plans: dict[str, list[str]]) -> Iterator[TestClient]:
    app = create_app(settings_for(postgresql_url))

    def explain_first(_: Any, cursor: Any, sql: str, values: Any, context: Any, __: Any) -> None:  # noqa: ANN401  # SQLAlchemy's
        if context.compiled is None:  # BEGIN and COMMIT
            return
        cursor.execute(f"EXPLAIN {sql}", values)
        executed = context.compiled.statement
        names = [name for name, statement in CONSTANTS.items() if statement is executed]
        plan = "\n".join(line for (line,) in cursor.fetchall())
        plans.setdefault(names[0] if names else sql, []).append(plan)

    with TestClient(app, headers=bearer("ann")) as ann:
        event.listen(app.state.database.engine, "before_cursor_execute", explain_first)
        yield ann


def test_every_statement_is_routed_to_one_shard(
    ann: TestClient, plans: dict[str, list[str]]
) -> None:
    for method, path, arguments in REQUESTS:
        created = ann.post("/api/tasks", json={"title": "one to work on"})
        path_of_it = path.replace("/api/tasks/1", created.headers["Location"])
        assert ann.request(method, path_of_it, **arguments).is_success
    ann.post("/api/tasks", json={"title": "on the first page"})
    ann.post("/api/tasks", json={"title": "on the second page"})
    for sort in statements.Sort:
        next_ = ann.get(f"/api/tasks?limit=1&sort={sort}").headers["Link"]
        assert ann.get(next_.partition(">")[0].removeprefix("<")).is_success

    assert CONSTANTS.keys() - plans.keys() == set()
    for statement, plans_of_it in plans.items():
        for plan in plans_of_it:
            assert "Task Count: 1\n" in f"{plan}\n", statement
