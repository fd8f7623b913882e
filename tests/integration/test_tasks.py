"""What a user does with tasks, from the first to the last."""

from urllib.parse import quote

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.testclient import TestClient

from models import TASKS
from tests.actors import bearer

FAMILIES = ["/api/tasks", "/api/ann/tasks"]


@pytest.mark.parametrize("tasks", FAMILIES)
def test_a_task_is_created_read_updated_completed_and_deleted(ann: TestClient, tasks: str) -> None:
    created = ann.post(tasks, json={"title": " Buy milk ", "description": "Two liters"})
    assert created.status_code == 201
    task = created.json()
    assert created.headers["Location"] == f"{tasks}/{task['id']}"
    assert task == {
        "id": task["id"],
        "title": "Buy milk",
        "description": "Two liters",
        "status": "pending",
        "user_id": "ann",
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
    }

    one = f"{tasks}/{task['id']}"
    assert ann.get(one).json() == task
    assert ann.get(tasks).json() == [task]

    updated = ann.put(one, json={"title": "Buy oat milk", "status": "in_progress"}).json()
    assert updated == task | {
        "title": "Buy oat milk",
        "status": "in_progress",
        "updated_at": updated["updated_at"],
    }
    assert updated["updated_at"] > task["updated_at"]

    completed = ann.patch(f"{one}/complete").json()
    assert completed == updated | {"status": "completed", "updated_at": completed["updated_at"]}

    deleted = ann.delete(one)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert ann.get(one).status_code == 404
    assert ann.get(tasks).json() == []


def test_only_a_title_is_needed(ann: TestClient) -> None:
    task = ann.post("/api/tasks", json={"title": "x"}).json()

    assert (task["description"], task["status"]) == (None, "pending")


def test_a_task_may_be_created_in_any_status(ann: TestClient) -> None:
    task = ann.post("/api/tasks", json={"title": "x", "status": "completed"}).json()

    assert task["status"] == "completed"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("a" * 200, "a" * 200),
        ("\u2003\u00a0 trimmed \u3000\t\n", "trimmed"),
        ("  " + "\U0001f4dd" * 200 + "  ", "\U0001f4dd" * 200),
        ("' OR 1=1; -- %s %(x)s :x {x} \\", "' OR 1=1; -- %s %(x)s :x {x} \\"),
        ("\u200bnot white space\u200b", "\u200bnot white space\u200b"),
    ],
)
def test_a_title_is_trimmed_and_kept_to_the_letter(ann: TestClient, sent: str, stored: str) -> None:
    location = ann.post("/api/tasks", json={"title": sent}).headers["Location"]

    assert ann.get(location).json()["title"] == stored


def test_a_description_is_kept_to_the_letter(ann: TestClient) -> None:
    description = " \U0001f4dd" * 1000
    location = ann.post("/api/tasks", json={"title": "x", "description": description}).headers[
        "Location"
    ]

    assert ann.get(location).json()["description"] == description


def test_fields_that_are_not_the_callers_are_ignored(ann: TestClient) -> None:
    foreign = {
        "id": 77,
        "user_id": "bob",
        "created_at": "2000-01-01T00:00:00Z",
        "updated_at": None,
        "cls": 1,
        "self": 1,
        "unknown": {"deep": []},
    }
    task = ann.post("/api/tasks", json={"title": "x"} | foreign).json()
    one = f"/api/tasks/{task['id']}"

    assert ann.put(one, json=foreign).json() == task
    assert ann.get(one).json() == task


@pytest.mark.parametrize("user_id", ["Zoë 漢字", "a?b#c%d>e", "a\r\nX-Injected: b"])
def test_the_links_under_any_users_path_lead_there(anonymous: TestClient, user_id: str) -> None:
    tasks, caller = f"/api/{quote(user_id)}/tasks", bearer(user_id)

    created = [anonymous.post(tasks, json={"title": title}, headers=caller) for title in "ab"]
    listed = anonymous.get(f"{tasks}?limit=1", headers=caller)

    one = anonymous.get(created[0].headers["Location"], headers=caller)
    following = anonymous.get(listed.links["next"]["url"], headers=caller)
    assert one.json() == created[0].json()
    assert following.json() == [created[0].json()]


def test_an_id_is_never_given_out_twice(ann: TestClient) -> None:
    first = ann.post("/api/tasks", json={"title": "x"}).json()["id"]
    ann.delete(f"/api/tasks/{first}")

    assert ann.post("/api/tasks", json={"title": "x"}).json()["id"] > first


def test_ids_have_64_bits(app: FastAPI, ann: TestClient) -> None:
    task = ann.post("/api/tasks", json={"title": "x"}).json()
    with app.state.database.engine.connect() as connection:
        connection.execute(update(TASKS).values(id=2**62))

    assert ann.get(f"/api/tasks/{2**62}").json() == task | {"id": 2**62}
