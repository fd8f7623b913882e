"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): one key, one task."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
TASK = {"title": "Buy milk"}


def test_the_same_key_and_body_return_the_same_task(ann: TestClient) -> None:
    first = ann.post("/api/tasks", json=TASK, headers=KEY)
    again = ann.post("/api/ann/tasks", json=TASK | {"status": "pending"}, headers=KEY)

    assert (first.status_code, again.status_code) == (201, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert again.headers["ETag"] == first.headers["ETag"]
    assert ann.get("/api/tasks").json() == [first.json()]


def test_a_replay_returns_the_current_task(ann: TestClient) -> None:
    one = ann.post("/api/tasks", json=TASK, headers=KEY).headers["Location"]
    changed = ann.put(one, json={"title": "Buy oat milk"})

    again = ann.post("/api/tasks", json=TASK, headers=KEY)

    assert (again.status_code, again.json()) == (200, changed.json())
    assert again.headers["ETag"] == changed.headers["ETag"]


def test_the_same_key_with_another_body_is_422(ann: TestClient) -> None:
    first = ann.post("/api/tasks", json=TASK, headers=KEY).json()

    response = ann.post("/api/tasks", json={"title": "Buy bread"}, headers=KEY)

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"field": "Idempotency-Key", "message": "was already used with a different body"}
    ]
    assert ann.get("/api/tasks").json() == [first]


def test_a_key_belongs_to_one_user(ann: TestClient, bob: TestClient) -> None:
    for actor in (ann, bob):
        response = actor.post("/api/tasks", json=TASK, headers=KEY)
        assert response.status_code == 201
        assert len(actor.get("/api/tasks").json()) == 1


def test_without_a_key_a_second_task_is_created(ann: TestClient) -> None:
    for _ in range(2):
        assert ann.post("/api/tasks", json=TASK).status_code == 201

    assert len(ann.get("/api/tasks").json()) == 2


@pytest.mark.usefixtures("long_limits")
def test_one_of_25_concurrent_requests_with_the_same_key_creates_a_task(ann: TestClient) -> None:
    def create(_: int) -> tuple[int, int]:
        response = ann.post("/api/tasks", json=TASK, headers=KEY)
        return response.status_code, response.json()["id"]

    with ThreadPoolExecutor(25) as threads:
        responses = list(threads.map(create, range(25)))

    assert sorted(code for code, _ in responses) == [200] * 24 + [201]
    assert len({id_ for _, id_ in responses}) == 1
    assert len(ann.get("/api/tasks").json()) == 1


def test_the_longest_key_is_stored_unchanged(ann: TestClient) -> None:
    keys = [f'"{"~" * 252}{last}' for last in ('"', "!", '"')]

    codes = [
        ann.post("/api/tasks", json=TASK, headers={"Idempotency-Key": key}).status_code
        for key in keys
    ]

    assert codes == [201, 201, 200]


FILE = b'{"title": "a"}\n\n{"title": "b"}\n{"title": "c"}'


def test_the_same_key_and_file_import_once(ann: TestClient, bob: TestClient) -> None:
    first = ann.post("/api/tasks/import", content=FILE, headers=KEY)
    again = ann.post("/api/ann/tasks/import", content=FILE, headers=KEY)
    bobs = bob.post("/api/tasks/import", content=FILE, headers=KEY)

    assert (first.status_code, again.status_code, bobs.status_code) == (201, 200, 201)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.json() == again.json() == bobs.json() == {"imported": 3}
    assert [task["title"] for task in ann.get("/api/tasks").json()] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/api/tasks/import", {"content": FILE + b"\n"}),
        ("/api/tasks", {"json": {"title": "a"}}),
    ],
)
def test_the_key_of_an_import_with_another_body_is_422(
    ann: TestClient, path: str, arguments: dict[str, Any]
) -> None:
    ann.post("/api/tasks/import", content=FILE, headers=KEY)

    response = ann.post(path, headers=KEY, **arguments)

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"field": "Idempotency-Key", "message": "was already used with a different body"}
    ]
    assert ann.get("/api/tasks").headers["X-Total-Count"] == "3"


def test_an_import_that_failed_does_not_use_up_its_key(ann: TestClient) -> None:
    failed = ann.post("/api/tasks/import", content=FILE + b"\nx", headers=KEY)
    response = ann.post("/api/tasks/import", content=FILE, headers=KEY)

    assert (failed.status_code, response.status_code) == (422, 201)
    assert ann.get("/api/tasks").headers["X-Total-Count"] == "3"


def test_one_of_5_concurrent_imports_with_the_same_key_imports(ann: TestClient) -> None:
    lines = b"".join(b'{"title": "%d"}\n' % number for number in range(500))

    def send(_: int) -> tuple[int, object]:
        response = ann.post("/api/tasks/import", content=lines, headers=KEY)
        return int(response.status_code), response.json()

    with ThreadPoolExecutor(5) as threads:
        responses = sorted(threads.map(send, range(5)), key=str)

    assert responses == [(200, {"imported": 500})] * 4 + [(201, {"imported": 500})]
    assert ann.get("/api/tasks").headers["X-Total-Count"] == "500"
