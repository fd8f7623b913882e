"""Other users' tasks look as if they did not exist."""

from typing import Any

import pytest
from starlette.testclient import TestClient

OPERATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "", {}),
    ("PUT", "", {"json": {"title": "stolen"}}),
    ("PUT", "", {"json": {}}),
    ("PATCH", "", {"json": {"title": "stolen"}}),
    ("PATCH", "/complete", {}),
    ("DELETE", "", {}),
]


@pytest.mark.parametrize(("method", "suffix", "arguments"), OPERATIONS)
@pytest.mark.parametrize("tasks", ["/api/tasks", "/api/bob/tasks"])
def test_another_users_task_is_not_found(
    ann: TestClient,
    bob: TestClient,
    anns_task: str,
    tasks: str,
    method: str,
    suffix: str,
    arguments: dict[str, Any],
) -> None:
    before = ann.get(anns_task).json()

    foreign = bob.request(method, f"{tasks}/{before['id']}{suffix}", **arguments)
    missing = bob.request(method, f"{tasks}/{before['id'] + 1}{suffix}", **arguments)

    assert foreign.status_code == 404
    assert foreign.json() == {"detail": "Task not found", "status_code": 404}
    for response in (foreign, missing):
        del response.headers["X-Request-ID"]  # differs between any two responses
    assert (foreign.content, foreign.headers) == (missing.content, missing.headers)
    assert ann.get(anns_task).json() == before


@pytest.mark.parametrize(("method", "suffix", "arguments"), OPERATIONS)
def test_a_path_of_another_user_is_forbidden(
    ann: TestClient,
    bob: TestClient,
    anns_task: str,
    method: str,
    suffix: str,
    arguments: dict[str, Any],
) -> None:
    task = ann.get(anns_task).json()

    response = bob.request(method, f"/api/ann/tasks/{task['id']}{suffix}", **arguments)

    assert response.status_code == 403
    assert response.json() == {
        "detail": "The user id in the path is not the token's",
        "status_code": 403,
    }
    assert ann.get(anns_task).json() == task


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("user_id", ["ann", "Bob", "bob ", "b%6Fb%00", "%", "me"])
def test_the_user_id_in_the_path_must_match_exactly(
    bob: TestClient, method: str, user_id: str
) -> None:
    response = bob.request(method, f"/api/{user_id}/tasks", json={"title": "x"})

    assert response.status_code == 403
    assert bob.get("/api/tasks").json() == []


def test_lists_contain_only_the_callers_tasks(ann: TestClient, bob: TestClient) -> None:
    for actor, title in [(ann, "a"), (bob, "b"), (ann, "c")]:
        actor.post("/api/tasks", json={"title": title})

    assert [task["title"] for task in ann.get("/api/tasks").json()] == ["c", "a"]
    assert [task["title"] for task in bob.get("/api/bob/tasks").json()] == ["b"]
