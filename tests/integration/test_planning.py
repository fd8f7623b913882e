"""Due dates, priorities and tags in all operations."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

PLAN = {"due_date": "2026-01-31T17:00", "priority": "high", "tags": ["Work", "Straße"]}
NO_PLAN: dict[str, object] = {"due_date": None, "priority": "medium", "tags": []}


def _plan(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in PLAN}


def test_a_task_is_created_with_due_date_priority_and_tags(ann: TestClient) -> None:
    created = ann.post("/api/tasks", json={"title": "x"} | PLAN)

    assert created.status_code == 201
    assert _plan(created.json()) == PLAN
    assert ann.get(created.headers["Location"]).json() == created.json()
    assert ann.get("/api/tasks").json() == [created.json()]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("name", PLAN)
def test_each_planning_field_can_be_changed_alone(
    ann: TestClient, anns_task: str, method: str, name: str
) -> None:
    before = ann.get(anns_task)

    changed = ann.request(method, anns_task, json={name: PLAN[name]})
    again = ann.request(method, anns_task, json={name: PLAN[name]})
    back = ann.request(method, anns_task, json={name: NO_PLAN[name]})

    assert _plan(changed.json()) == NO_PLAN | {name: PLAN[name]}
    assert changed.json()["updated_at"] > before.json()["updated_at"]
    assert changed.headers["ETag"] != before.headers["ETag"]
    assert again.json() == changed.json()
    assert again.headers["ETag"] == changed.headers["ETag"]
    assert _plan(back.json()) == NO_PLAN


def test_the_planning_fields_of_many_tasks_are_changed_at_once(ann: TestClient) -> None:
    for title in "abc":
        ann.post("/api/tasks", json={"title": title})

    assert ann.patch("/api/tasks?status=pending", json=PLAN).json() == {"updated": 3}
    assert [_plan(task) for task in ann.get("/api/tasks?tag=WORK").json()] == [PLAN] * 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("due_date", "2026-02-30"),
        ("due_date", "2026-01-31T17:00Z"),
        ("due_date", 20260131),
        ("due_date", ""),
        ("priority", None),
        ("priority", "urgent"),
        ("priority", 1),
        ("tags", None),
        ("tags", "work"),
        ("tags", [""]),
        ("tags", ["x" * 51]),
        ("tags", [str(number) for number in range(21)]),
        ("tags", [["a"]]),
    ],
)
def test_an_invalid_planning_field_is_422_and_changes_nothing(
    ann: TestClient, anns_task: str, field: str, value: object
) -> None:
    before = ann.get(anns_task).json()
    responses = [
        ann.post("/api/tasks", json={"title": "x", field: value}),
        ann.put(anns_task, json={field: value}),
        ann.patch(anns_task, json={field: value}),
        ann.patch("/api/tasks?status=pending", json={field: value}),
    ]

    for response in responses:
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"].startswith(field)
    assert ann.get("/api/tasks").json() == [before]


@pytest.mark.parametrize(
    "query",
    [
        "due_before=2026-02-30",
        "due_after=2026-01-31T24:00",
        "due_after=2026-01-31T10:00Z",
        "due=today",
        "due=",
        "priority=urgent",
        "tag=",
        "tag=%00",
        "sort=tags",
        "sort=-due",
        "due_before=",
        "&".join(f"tag={number}" for number in range(21)),
    ],
)
def test_an_invalid_filter_is_422(ann: TestClient, query: str) -> None:
    response = ann.get(f"/api/tasks?{query}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == query.partition("=")[0]


def test_a_cursor_cannot_be_used_with_another_sort(ann: TestClient) -> None:
    for title in "ab":
        ann.post("/api/tasks", json={"title": title})
    link = ann.get("/api/tasks?sort=priority&limit=1").headers["Link"]
    cursor = link.partition("cursor=")[2].partition(">")[0]

    assert ann.get(f"/api/tasks?sort=-priority&cursor={cursor}").status_code == 422
    assert ann.get(f"/api/tasks?sort=due_date&cursor={cursor}").status_code == 422


def test_an_export_with_planning_fields_can_be_imported(ann: TestClient, bob: TestClient) -> None:
    ann.post("/api/tasks", json={"title": "planned", "description": "d"} | PLAN)
    ann.post("/api/tasks", json={"title": "not planned"})
    exported = ann.get("/api/tasks/export").content

    assert bob.post("/api/tasks/import", content=exported).json() == {"imported": 2}

    again = bob.get("/api/tasks/export").content
    changing = ("id", "user_id", "created_at", "updated_at")
    of_ann, of_bob = (
        [
            {name: value for name, value in json.loads(line).items() if name not in changing}
            for line in lines.splitlines()
        ]
        for lines in (exported, again)
    )
    assert of_bob == of_ann
    assert [task["title"] for task in bob.get("/api/tasks?tag=strasse").json()] == ["planned"]


def test_an_export_without_planning_fields_can_be_imported(ann: TestClient) -> None:
    line = {
        "id": 7,
        "title": "Buy milk",
        "description": None,
        "status": "completed",
        "user_id": "eve",
        "created_at": "2026-01-31T12:00:00.000000Z",
        "updated_at": "2026-01-31T12:00:00.000000Z",
    }

    ann.post("/api/tasks/import", content=json.dumps(line))

    (task,) = ann.get("/api/tasks").json()
    assert _plan(task) == NO_PLAN
    assert (task["title"], task["status"]) == ("Buy milk", "completed")


def test_tags_are_listed_with_counts_most_used_first(ann: TestClient, bob: TestClient) -> None:
    for tags in (["Work", "home"], ["work"], ["work", "b"], ["a"], []):
        ann.post("/api/tasks", json={"title": "x", "tags": tags})
    bob.post("/api/tasks", json={"title": "x", "tags": ["secret", "home"]})

    assert ann.get("/api/tags").json() == [
        {"tag": "work", "tasks": 3},
        {"tag": "a", "tasks": 1},
        {"tag": "b", "tasks": 1},
        {"tag": "home", "tasks": 1},
    ]


@pytest.mark.parametrize("tag", ["100%", "a_b", "a/b", 'a"b', "a\\b", "a,b", "[a]", "ß", "İ"])
def test_a_tag_filter_matches_whole_tags_without_wildcards(ann: TestClient, tag: str) -> None:
    ann.post("/api/tasks", json={"title": "it", "tags": ["first", tag, "last"]})
    for other in ("100x", "axb", "a", "b", f"{tag}x", f"x{tag}"):
        ann.post("/api/tasks", json={"title": "other", "tags": [other]})

    found = ann.get("/api/tasks", params={"tag": tag}).json()

    assert [task["title"] for task in found] == ["it"]


def test_a_search_finds_tags(ann: TestClient) -> None:
    ann.post("/api/tasks", json={"title": "x", "tags": ["Einkaufen", "home"]})

    assert len(ann.get("/api/tasks?q=KAUF").json()) == 1
    assert ann.get("/api/tasks?q=einkaufenhome").json() == []
