"""Partial and concurrent updates."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.testclient import TestClient

from models import TASKS

METHODS = pytest.mark.parametrize("method", ["PUT", "PATCH"])


@pytest.fixture
def whole_task(ann: TestClient) -> str:
    """The path of a task with a description."""
    whole = {"title": "t", "description": "d", "status": "in_progress"}
    return str(ann.post("/api/tasks", json=whole).headers["Location"])


@METHODS
@pytest.mark.parametrize(
    "changes",
    [
        {"title": "other"},
        {"description": "other"},
        {"description": None},
        {"status": "completed"},
        {"title": "other", "description": None, "status": "pending"},
    ],
)
def test_an_absent_field_is_unchanged(
    ann: TestClient, whole_task: str, method: str, changes: dict[str, str | None]
) -> None:
    before = ann.get(whole_task).json()

    after = ann.request(method, whole_task, json=changes).json()

    assert after == before | changes | {"updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]
    assert ann.get(whole_task).json() == after


@METHODS
@pytest.mark.parametrize(
    "same", [{}, {"title": "t"}, {"title": " t "}, {"description": "d", "status": "in_progress"}]
)
def test_an_update_to_the_same_values_changes_nothing(
    ann: TestClient, whole_task: str, method: str, same: dict[str, str]
) -> None:
    before = ann.get(whole_task).json()

    assert ann.request(method, whole_task, json=same).json() == before


@METHODS
def test_clearing_an_empty_description_changes_nothing(
    ann: TestClient, anns_task: str, method: str
) -> None:
    before = ann.get(anns_task).json()

    assert ann.request(method, anns_task, json={"description": None}).json() == before


@METHODS
@pytest.mark.parametrize("field", ["title", "status"])
def test_null_is_refused_for_required_fields(
    ann: TestClient, whole_task: str, method: str, field: str
) -> None:
    before = ann.get(whole_task).json()

    response = ann.request(method, whole_task, json={field: None, "description": "other"})

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert ann.get(whole_task).json() == before


def test_completing_twice_has_no_effect(ann: TestClient, whole_task: str) -> None:
    once = ann.patch(f"{whole_task}/complete").json()

    assert once["status"] == "completed"
    assert ann.patch(f"{whole_task}/complete").json() == once


def test_updated_at_never_decreases(app: FastAPI, ann: TestClient, anns_task: str) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with app.state.database.engine.connect() as connection:
        connection.execute(update(TASKS).values(updated_at=ahead))

    task = ann.patch(anns_task, json={"title": "other"}).json()

    assert task["title"] == "other"
    assert datetime.fromisoformat(task["updated_at"]) == ahead


@pytest.mark.usefixtures("long_limits")
def test_concurrent_updates_of_different_fields_all_persist(
    ann: TestClient, anns_task: str
) -> None:
    changes = [{"title": "t"}, {"description": "d"}, {"status": "completed"}]

    for _ in range(10):
        before = {"title": "x", "description": None, "status": "pending"}
        assert ann.put(anns_task, json=before).status_code == 200
        with ThreadPoolExecutor(len(changes)) as pool:
            responses = list(pool.map(lambda change: ann.put(anns_task, json=change), changes))
        assert [response.status_code for response in responses] == [200, 200, 200]
        task = ann.get(anns_task).json()
        assert (task["title"], task["description"], task["status"]) == ("t", "d", "completed")


@pytest.mark.usefixtures("long_limits")
def test_an_update_during_a_delete_succeeds_or_is_404(ann: TestClient) -> None:
    for _ in range(10):
        one = ann.post("/api/tasks", json={"title": "x"}).headers["Location"]
        with ThreadPoolExecutor(3) as pool:
            updates = [pool.submit(ann.put, one, json={"title": "y"}) for _ in range(2)]
            deletion = pool.submit(ann.delete, one)

        assert deletion.result().status_code == 204
        assert {update.result().status_code for update in updates} <= {200, 404}
        assert ann.get(one).status_code == 404
