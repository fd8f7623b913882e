"""The list: filters, search, sorting, total, and pages by offset."""

from typing import Any

import pytest
from starlette.testclient import TestClient


@pytest.fixture
def titles(ann: TestClient) -> list[str]:
    """The titles of 60 tasks, newest first, with the statuses in turn."""
    statuses = ["pending", "in_progress", "completed"]
    for number in range(60):
        task = {"title": str(number), "status": statuses[number % 3]}
        assert ann.post("/api/tasks", json=task).status_code == 201
    return [str(number) for number in reversed(range(60))]


def _list(ann: TestClient, **query: Any) -> list[str]:  # noqa: ANN401  # parameters of httpx2
    response = ann.get("/api/tasks", params=query)
    assert response.status_code == 200
    titles = [task["title"] for task in response.json()]
    if "total" not in query and "limit" not in query:
        assert response.headers["X-Total-Count"] == str(len(titles))
    return titles


def test_the_list_is_paged(ann: TestClient, titles: list[str]) -> None:
    assert _list(ann, limit=50) == titles[:50]
    assert _list(ann, limit=100) == titles
    assert _list(ann, limit=7, offset=3) == titles[3:10]
    assert _list(ann, limit=5, offset=58) == titles[58:]
    assert _list(ann, limit=5, offset=2**63 - 1) == []


def test_the_list_is_filtered_by_status(ann: TestClient, titles: list[str]) -> None:
    assert _list(ann, status="completed") == [t for t in titles if int(t) % 3 == 2]
    assert _list(ann, status=["pending", "completed"], limit=3) == ["59", "57", "56"]


def test_the_total_counts_the_matches_on_all_pages(ann: TestClient, titles: list[str]) -> None:
    for query, total in {
        "": len(titles),
        "?limit=1": 60,
        "?limit=1&offset=59": 60,
        "?limit=1&offset=60": 60,
        "?status=pending&limit=1": 20,
        "?q=5&limit=1": 15,
        "?q=5&status=completed&limit=1": 6,
        "?q=none": 0,
        "?q=none&offset=1": 0,
    }.items():
        assert ann.get(f"/api/tasks{query}").headers["X-Total-Count"] == str(total)
    assert "X-Total-Count" not in ann.get("/api/tasks?total=false").headers


def test_the_list_of_a_new_user_is_empty(ann: TestClient, bob: TestClient, anns_task: str) -> None:
    response = bob.get("/api/tasks")

    assert len(ann.get("/api/tasks").json()) == 1
    assert anns_task
    assert response.json() == []
    assert response.headers["X-Total-Count"] == "0"
    assert "Link" not in response.headers


def test_a_search_ignores_case_and_has_no_wildcards(
    ann: TestClient,
) -> None:
    for title, description in {
        "ÄPFEL kaufen": None,
        "Straße fegen": "mit dem BESEN",
        "100% Saft": "a_b",
        "Δοκιμή": "100 percent",
        "cafe\u0301": "axb",
    }.items():
        ann.post("/api/tasks", json={"title": title, "description": description})

    for q, found in {
        "äpfel": ["ÄPFEL kaufen"],
        "ÄPFEL": ["ÄPFEL kaufen"],
        "A\u0308pfel": ["ÄPFEL kaufen"],
        "STRASSE": ["Straße fegen"],
        "besen": ["Straße fegen"],
        "δοκιμή": ["Δοκιμή"],
        "CAFÉ": ["cafe\u0301"],
        "100%": ["100% Saft"],
        "%": ["100% Saft"],
        "a_b": ["100% Saft"],
        "100": ["Δοκιμή", "100% Saft"],
        "/": [],
        "apfel": [],
        "": ["cafe\u0301", "Δοκιμή", "100% Saft", "Straße fegen", "ÄPFEL kaufen"],
    }.items():
        assert _list(ann, q=q) == found


def test_a_search_finds_the_new_text_and_not_the_old(ann: TestClient) -> None:
    one = ann.post("/api/tasks", json={"title": "Äpfel", "description": "Öl"}).headers["Location"]

    ann.patch(one, json={"title": "Über", "description": None})

    assert _list(ann, q="äpfel") == []
    assert _list(ann, q="öl") == []
    assert _list(ann, q="ÜBER") == ["Über"]


def test_the_list_is_sorted(ann: TestClient) -> None:
    for title in ["b", "Ä", "a", "C"]:
        ann.post("/api/tasks", json={"title": title})
    ann.patch("/api/tasks/" + str(ann.get("/api/tasks").json()[2]["id"]), json={"title": "ä"})

    for sort, titles in {
        "created_at": ["b", "ä", "a", "C"],
        "updated_at": ["b", "a", "C", "ä"],
        "title": ["a", "b", "C", "ä"],
    }.items():
        assert _list(ann, sort=sort) == titles
        assert _list(ann, sort=f"-{sort}") == titles[::-1]
    assert _list(ann) == _list(ann, sort="-created_at")


def test_tasks_with_equal_values_are_sorted_by_id(ann: TestClient) -> None:
    ids = [ann.post("/api/tasks", json={"title": "same"}).json()["id"] for _ in range(5)]

    for sort, expected in {"title": ids, "-title": ids[::-1]}.items():
        listed = ann.get(f"/api/tasks?sort={sort}").json()
        assert [task["id"] for task in listed] == expected
