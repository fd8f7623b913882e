"""Creating, reading, changing, completing and deleting tasks."""

from urllib.parse import quote

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.testclient import TestClient

from models import TASKS
from tests.actors import bearer

FAMILIES = ["/api/tasks", "/api/ann/tasks"]

VISIBLE = [
    ".",
    "7",
    "\u20ac",
    "\u00b4",
    "e\u0301",
    "\U0001f1e9\U0001f1ea",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f",
    "1\ufe0f\u20e3",
    "\U0001f44d\U0001f3fd",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u200f\u05e9\u05dc\u05d5\u05dd\u200f",
    "\u0915\u094d\u200d\u0937",
    "\u202eabc\u202c",
    "\u3164x\u3164",
    "\U0001fae9",  # Unicode 16, which the supported Python versions do not know
]


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
        "due_date": None,
        "priority": "medium",
        "tags": [],
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
        *((visible, visible) for visible in VISIBLE),
    ],
)
def test_a_title_is_trimmed_and_otherwise_stored_unchanged(
    ann: TestClient, sent: str, stored: str
) -> None:
    location = ann.post("/api/tasks", json={"title": sent}).headers["Location"]

    assert ann.get(location).json()["title"] == stored


@pytest.mark.parametrize(
    "description", [" \U0001f4dd" * 1000, "\ta\r\nb\n\v\f\x85\u2028\u2029c ", "\u200b", "", " "]
)
def test_a_description_is_stored_unchanged(ann: TestClient, description: str) -> None:
    location = ann.post("/api/tasks", json={"title": "x", "description": description}).headers[
        "Location"
    ]

    assert ann.get(location).json()["description"] == description


@pytest.mark.parametrize("title", ["an\x1b[31m old\ntitle", "\u200b"])
def test_an_old_title_that_is_now_invalid_survives_other_changes(
    app: FastAPI, ann: TestClient, title: str
) -> None:
    one = ann.post("/api/tasks", json={"title": "x"}).headers["Location"]
    with app.state.database.engine.connect() as connection:
        connection.execute(update(TASKS).values(title=title, title_folded=title))

    changed = ann.patch(one, json={"status": "completed", "description": "new"})

    assert changed.status_code == 200
    assert ann.get(one).json() == changed.json()
    assert changed.json()["title"] == title
    assert ann.patch(one, json={"title": title}).status_code == 422


def test_read_only_fields_are_ignored(ann: TestClient) -> None:
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
def test_links_under_a_users_path_stay_under_it(anonymous: TestClient, user_id: str) -> None:
    tasks, caller = f"/api/{quote(user_id)}/tasks", bearer(user_id)

    created = [anonymous.post(tasks, json={"title": title}, headers=caller) for title in "ab"]
    listed = anonymous.get(f"{tasks}?limit=1", headers=caller)

    one = anonymous.get(created[0].headers["Location"], headers=caller)
    following = anonymous.get(listed.links["next"]["url"], headers=caller)
    assert one.json() == created[0].json()
    assert following.json() == [created[0].json()]


def test_an_id_is_never_reused(ann: TestClient) -> None:
    first = ann.post("/api/tasks", json={"title": "x"}).json()["id"]
    ann.delete(f"/api/tasks/{first}")

    assert ann.post("/api/tasks", json={"title": "x"}).json()["id"] > first


def test_ids_have_64_bits(app: FastAPI, ann: TestClient) -> None:
    task = ann.post("/api/tasks", json={"title": "x"}).json()
    with app.state.database.engine.connect() as connection:
        connection.execute(update(TASKS).values(id=2**62))

    assert ann.get(f"/api/tasks/{2**62}").json() == task | {"id": 2**62}
