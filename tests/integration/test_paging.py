"""Paging by Link headers (RFC 8288), forward and backward, while tasks are added and deleted."""

import re

import pytest
from starlette.testclient import TestClient

from routes.paging import Cursor
from statements import Sort

SORTS = ["created_at", "-created_at", "updated_at", "-updated_at", "title", "-title"]


def _links(response: object) -> dict[str, str]:
    header = getattr(response, "headers").get("Link", "")  # noqa: B009  # typed as object
    return {rel: url for url, rel in re.findall(r'<([^>]*)>; rel="(\w+)"', header)}


def _make(ann: TestClient, *titles: str) -> list[int]:
    return [ann.post("/api/tasks", json={"title": title}).json()["id"] for title in titles]


@pytest.mark.parametrize(
    ("tasks", "sort"), [*(("/api/tasks", sort) for sort in SORTS), ("/api/ann/tasks", SORTS[0])]
)
def test_tasks_are_seen_exactly_once_while_others_are_added_and_deleted(
    ann: TestClient, tasks: str, sort: str
) -> None:
    # Repeat titles, so that the id decides the order.
    lasting = set(_make(ann, *(f"t{number % 4}" for number in range(24))))
    passing = _make(ann, *(f"t{number % 4}" for number in range(12)))
    ann.patch(f"{tasks}?id={min(lasting)}", json={"status": "completed"})

    seen: list[int] = []
    url: str | None = f"{tasks}?sort={sort}&limit=5"
    while url is not None:
        response = ann.get(url)
        assert response.status_code == 200
        seen += [task["id"] for task in response.json()]
        ann.delete(f"{tasks}/{passing.pop()}")
        _make(ann, "a0", "z9")
        url = _links(response).get("next")
        assert len(seen) < 100

    assert sorted(id_ for id_ in seen if id_ in lasting) == sorted(lasting)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("sort", SORTS)
def test_paging_backward_returns_the_same_pages(ann: TestClient, sort: str) -> None:
    _make(ann, *(f"t{number % 3}" for number in range(11)))
    query = f"/api/tasks?sort={sort}&limit=4&q=t&status=pending"

    pages, links = [], []
    url: str | None = query
    while url is not None:
        response = ann.get(url)
        pages.append([task["id"] for task in response.json()])
        links.append(_links(response))
        assert response.headers["X-Total-Count"] == "11"
        url = links[-1].get("next")

    assert [len(page) for page in pages] == [4, 4, 3]
    assert [sorted(link) for link in links] == [
        ["next"],
        ["first", "next", "prev"],
        ["first", "prev"],
    ]
    assert links[2]["first"] == query
    second = ann.get(links[2]["prev"])
    assert [task["id"] for task in second.json()] == pages[1]
    first = ann.get(_links(second)["prev"])
    assert [task["id"] for task in first.json()] == pages[0]
    assert sorted(_links(first)) == ["first", "next"]
    assert [task["id"] for task in ann.get(_links(first)["next"]).json()] == pages[1]


def test_a_page_by_offset_has_links_too(ann: TestClient) -> None:
    ids = _make(ann, *"abcdef")[::-1]

    middle = _links(ann.get("/api/tasks?limit=2&offset=2"))
    beyond = _links(ann.get("/api/tasks?limit=2&offset=6"))

    assert [task["id"] for task in ann.get(middle["next"]).json()] == ids[4:]
    assert [task["id"] for task in ann.get(middle["prev"]).json()] == ids[:2]
    assert beyond == {"first": "/api/tasks?limit=2"}


def test_a_page_after_all_tasks_are_deleted_is_empty(ann: TestClient) -> None:
    _make(ann, *"abc")
    last = _links(ann.get("/api/tasks?limit=2"))["next"]
    ann.delete("/api/tasks?status=pending")

    response = ann.get(last)

    assert response.json() == []
    assert response.headers["X-Total-Count"] == "0"
    assert _links(response) == {"first": "/api/tasks?limit=2"}


def test_a_link_keeps_the_rest_of_the_query(ann: TestClient) -> None:
    _make(ann, "ä & b", "ä & c")

    link = _links(ann.get("/api/tasks", params={"q": "ä &", "limit": 1}))["next"]

    assert link.startswith("/api/tasks?q=%C3%A4+%26&limit=1&cursor=")
    assert [task["title"] for task in ann.get(link).json()] == ["ä & b"]


@pytest.mark.parametrize("value", [-(2**55), 2**57])
def test_the_extreme_cursor_values_are_valid(ann: TestClient, value: int) -> None:
    _make(ann, "a")
    cursor = Cursor(sort=Sort.CREATED_AT, backward=False, value=value, id=0).encode()

    assert len(ann.get(f"/api/tasks?sort=created_at&cursor={cursor}").json()) == (value < 0)
