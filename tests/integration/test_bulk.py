"""Bulk operations: changing and deleting many tasks, and erasing all data of a user."""

import pytest
from starlette.testclient import TestClient

TASKS = pytest.mark.parametrize("tasks", ["/api/tasks", "/api/ann/tasks"])


@pytest.fixture
def ids(ann: TestClient, bob: TestClient) -> list[int]:
    """Six tasks of Ann's, two with each status, and some of Bob's."""
    made = []
    for status in ["pending", "in_progress", "completed"] * 2:
        made.append(ann.post("/api/tasks", json={"title": "a", "status": status}).json()["id"])
        bob.post("/api/tasks", json={"title": "b", "status": status})
    return made


def _statuses(actor: TestClient) -> list[str]:
    return [task["status"] for task in actor.get("/api/tasks?sort=created_at").json()]


@TASKS
def test_all_tasks_with_a_status_are_changed(
    ann: TestClient, bob: TestClient, ids: list[int], tasks: str
) -> None:
    bobs = bob.get("/api/tasks").json()

    response = ann.patch(f"{tasks}?status=pending&status=in_progress", json={"status": "completed"})

    assert (response.status_code, response.json()) == (200, {"updated": 4})
    assert _statuses(ann) == ["completed"] * len(ids)
    assert bob.get("/api/tasks").json() == bobs


@TASKS
def test_all_tasks_with_given_ids_are_changed(
    ann: TestClient, bob: TestClient, ids: list[int], tasks: str
) -> None:
    bobs = bob.get("/api/tasks").json()
    foreign = bobs[0]["id"]
    before = {task["id"]: task for task in ann.get("/api/tasks").json()}

    response = ann.patch(f"{tasks}?id={ids[0]}&id={ids[2]}&id={foreign}", json={"title": "new"})

    after = {task["id"]: task for task in ann.get("/api/tasks").json()}
    assert response.json() == {"updated": 2}
    assert [id_ for id_ in ids if after[id_] != before[id_]] == [ids[0], ids[2]]
    assert after[ids[0]]["title"] == "new"
    assert bob.get("/api/tasks").json() == bobs


def test_a_task_must_match_both_filters(ann: TestClient, ids: list[int]) -> None:
    query = f"?status=pending&id={ids[0]}&id={ids[1]}"

    assert ann.patch(f"/api/tasks{query}", json={"title": "x"}).json() == {"updated": 1}
    assert ann.delete(f"/api/tasks{query}").json() == {"deleted": 1}
    assert [task["id"] for task in ann.get("/api/tasks?sort=created_at").json()] == ids[1:]


def test_an_empty_change_changes_nothing(ann: TestClient, ids: list[int]) -> None:
    before = ann.get("/api/tasks").json()

    assert ann.patch("/api/tasks?status=pending", json={}).json() == {"updated": 0}
    assert ann.patch("/api/tasks?status=pending", json={"title": "a"}).json() == {"updated": 2}
    assert len(before) == len(ids)
    assert ann.get("/api/tasks").json() == before


@TASKS
def test_all_completed_tasks_are_deleted(
    ann: TestClient, bob: TestClient, ids: list[int], tasks: str
) -> None:
    response = ann.delete(f"{tasks}?status=completed")

    assert (response.status_code, response.json()) == (200, {"deleted": 2})
    assert _statuses(ann) == ["pending", "in_progress"] * 2
    assert len(_statuses(bob)) == len(ids)
    assert ann.delete(f"{tasks}?status=completed").json() == {"deleted": 0}


@TASKS
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("narrower", ["q=milk", "id[]=5", "id[0]=5", "ids=5", "Status=pending"])
def test_an_unknown_filter_leaves_all_tasks_unchanged(
    ann: TestClient, ids: list[int], tasks: str, method: str, narrower: str
) -> None:
    before = ann.get("/api/tasks").json()

    response = ann.request(method, f"{tasks}?status=completed&{narrower}", json={"title": "x"})

    assert response.status_code == 422
    assert len(before) == len(ids)
    assert ann.get("/api/tasks").json() == before


def test_one_request_may_have_500_ids(ann: TestClient, ids: list[int]) -> None:
    query = "&".join(f"id={number}" for number in range(min(ids), min(ids) + 500))

    assert ann.delete(f"/api/tasks?{query}").json() == {"deleted": 6}


def test_erasing_deletes_all_of_the_callers_tasks_and_no_others(
    ann: TestClient, bob: TestClient, ids: list[int]
) -> None:
    key = {"Idempotency-Key": "k"}
    ann.post("/api/tasks", json={"title": "keyed"}, headers=key)

    response = ann.delete("/api/me")

    assert (response.status_code, response.content) == (204, b"")
    assert ann.get("/api/tasks").json() == []
    assert len(_statuses(bob)) == len(ids)
    assert ann.post("/api/tasks", json={"title": "other"}, headers=key).status_code == 201
    assert ann.delete("/api/me").status_code == 204


def test_me_returns_the_user_of_the_token(ann: TestClient) -> None:
    assert ann.get("/api/me").json() == {"id": "ann", "email": None, "name": None}
