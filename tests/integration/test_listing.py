"""Pages and filters of the list."""

import pytest
from starlette.testclient import TestClient


@pytest.fixture
def titles(ann: TestClient) -> list[str]:
    """The titles of 60 tasks, newest first, whose status goes round."""
    statuses = ["pending", "in_progress", "completed"]
    for number in range(60):
        task = {"title": str(number), "status": statuses[number % 3]}
        assert ann.post("/api/tasks", json=task).status_code == 201
    return [str(number) for number in reversed(range(60))]


def _titles(ann: TestClient, query: str) -> list[str]:
    response = ann.get(f"/api/tasks{query}")
    assert response.status_code == 200
    return [task["title"] for task in response.json()]


def test_the_list_is_paged(ann: TestClient, titles: list[str]) -> None:
    assert _titles(ann, "") == titles[:50]
    assert _titles(ann, "?limit=100") == titles
    assert _titles(ann, "?limit=7&offset=3") == titles[3:10]
    assert _titles(ann, "?offset=58") == titles[58:]
    assert _titles(ann, f"?offset={2**63 - 1}") == []


def test_the_list_is_filtered_by_status(ann: TestClient, titles: list[str]) -> None:
    assert _titles(ann, "?status=completed") == [t for t in titles if int(t) % 3 == 2]
    assert _titles(ann, "?status=pending&status=completed&limit=3") == ["59", "57", "56"]


def test_the_list_of_a_new_user_is_empty(ann: TestClient, bob: TestClient, anns_task: str) -> None:
    assert len(ann.get("/api/tasks").json()) == 1
    assert anns_task
    assert bob.get("/api/tasks").json() == []
