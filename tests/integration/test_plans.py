"""Query plans of the list: by index, without sorting, starting at the cursor."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, insert
from starlette.testclient import TestClient

from driver import transaction
from models import TASKS, TaskCreate, new_columns

ROWS = 3000
INDEX = "ix_task_user_id_created_at_id"
BEGINNING = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def full_app(app: FastAPI) -> FastAPI:
    """An app with thousands of tasks of Ann and others."""
    task = new_columns(TaskCreate(title="x"), BEGINNING) | {"replayed": False}
    rows = [
        task
        | {
            "user_id": ["ann", "bob", "eve"][number % 3],
            "created_at": BEGINNING + timedelta(seconds=number),
        }
        for number in range(3 * ROWS)
    ]
    engine = app.state.database.engine
    with engine.connect() as connection, transaction(connection):
        connection.execute(insert(TASKS), rows)
        connection.exec_driver_sql("ANALYZE")
    return app


@pytest.fixture
def plans(full_app: FastAPI) -> Iterator[list[str]]:
    """The plans of the statements that the app executes."""
    engine = full_app.state.database.engine
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[engine.dialect.name]
    plans: list[str] = []

    def explain_first(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:  # noqa: ANN401  # the arguments of a SQLAlchemy event
        cursor.execute(f"{explain} {statement}", parameters)
        plans.append("\n".join(str(row[-1]) for row in cursor.fetchall()))

    event.listen(engine, "before_cursor_execute", explain_first)
    yield plans
    event.remove(engine, "before_cursor_execute", explain_first)


@pytest.mark.parametrize(
    "query", ["?limit=20", "?limit=20&total=false", "?limit=20&status=pending", "?limit=20&q=x"]
)
def test_a_page_is_read_by_its_index_without_sorting(
    full_app: FastAPI, plans: list[str], ann: TestClient, query: str
) -> None:
    assert full_app.state.database.schema.is_current
    plans.clear()

    first = ann.get(f"/api/tasks{query}")
    next_ = first.headers["Link"].partition(">")[0].removeprefix("<")
    second = ann.get(next_)

    assert [len(page.json()) for page in (first, second)] == [20, 20]
    assert len(plans) == 2
    for plan in plans:
        assert INDEX in plan
        assert "Sort" not in plan
        assert "TEMP B-TREE" not in plan


def test_a_deep_page_begins_at_its_cursor(plans: list[str], ann: TestClient) -> None:
    url = f"/api/tasks?limit=1&total=false&offset={ROWS // 2}"
    next_ = ann.get(url).headers["Link"].partition('rel="prev", <')[2].partition(">")[0]
    plans.clear()

    assert len(ann.get(next_).json()) == 1

    (plan,) = plans
    assert "(user_id=? AND created_at<?)" in plan or "ROW(created_at, id) < ROW(" in plan


def test_changes_are_read_from_their_position(plans: list[str], ann: TestClient) -> None:
    token = ann.get("/api/tasks/changes").json()["next"]
    plans.clear()

    assert len(ann.get(f"/api/tasks/changes?since={token}").json()["tasks"]) == 100

    (plan,) = plans
    assert "ix_task_user_id_changed_id" in plan
    assert "changed>?" in plan or "(ROW(changed, id) > ROW(" in plan
