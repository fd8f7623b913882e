"""All sort orders and filters of the list, compared with a model in memory."""

import re
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from models import folded
from tests.actors import bearer

RANKS = {"low": 1, "medium": 2, "high": 3}
DATES = ["2026-01-31", "2026-01-31T00:00", "2026-01-31T17:00", "2026-02-01", "1999-12-31", None]
TAGS = ["work", "Work", "home", "a_b", "axb", "Straße", "STRASSE", "\U0001f4dd"]
FIELDS = ("created_at", "updated_at", "title", "due_date", "priority")

_runs = count()

_task = st.fixed_dictionaries(
    {
        "title": st.sampled_from(["b", "B", "a", "ä", "Z", "z", "\U0001f4dd", "x_y"]),
        "description": st.sampled_from([None, "b", "work"]),
        "status": st.sampled_from(["pending", "in_progress", "completed"]),
        "due_date": st.sampled_from(DATES),
        "priority": st.sampled_from(list(RANKS)),
        "tags": st.lists(st.sampled_from(TAGS), max_size=3, unique_by=folded),
    }
)
_dates = st.sampled_from([date for date in DATES if date])
_query = st.fixed_dictionaries(
    {
        "sort": st.sampled_from([sign + field for field in FIELDS for sign in ("", "-")]),
        "limit": st.integers(1, 4),
    },
    optional={
        "status": st.lists(st.sampled_from(["pending", "completed"]), min_size=1, unique=True),
        "priority": st.lists(st.sampled_from(list(RANKS)), min_size=1, unique=True),
        "tag": st.lists(st.sampled_from([*TAGS, "none"]), min_size=1, unique=True),
        "due_before": _dates,
        "due_after": _dates,
        "due": st.just("none"),
        "q": st.sampled_from(["b", "WORK", "_", "strasse", "ä", "x"]),
    },
)


def _key(task: dict[str, Any], field: str) -> Any:  # noqa: ANN401  # text or a number
    return {
        "title": folded(task["title"]),
        "priority": RANKS[task["priority"]],
    }.get(field, task[field])


def _in_order(tasks: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    field, down = sort.removeprefix("-"), sort.startswith("-")
    undated = [task for task in tasks if task[field] is None]
    dated = [task for task in tasks if task[field] is not None]
    undated.sort(key=lambda task: task["id"], reverse=down)
    dated.sort(key=lambda task: (_key(task, field), task["id"]), reverse=down)
    return dated + undated


def _matches(task: dict[str, Any], query: dict[str, Any]) -> bool:
    texts = [task["title"], task["description"] or "", *task["tags"]]
    due = task["due_date"]
    tags = {folded(tag) for tag in task["tags"]}
    return (
        task["status"] in query.get("status", [task["status"]])
        and task["priority"] in query.get("priority", RANKS)
        and ("tag" not in query or not tags.isdisjoint(map(folded, query["tag"])))
        and ("due_before" not in query or (due is not None and due < query["due_before"]))
        and ("due_after" not in query or (due is not None and due > query["due_after"]))
        and ("due" not in query or due is None)
        and any(folded(query.get("q", "")) in folded(text) for text in texts)
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tasks=st.lists(_task, min_size=1, max_size=12),
    queries=st.lists(_query, min_size=4, max_size=8),
)
def test_following_links_returns_all_matches_in_order(
    anonymous: TestClient, tasks: list[dict[str, Any]], queries: list[dict[str, Any]]
) -> None:
    anonymous.headers.update(bearer(f"user-{next(_runs)}"))
    made = [anonymous.post("/api/tasks", json=task).json() for task in tasks]

    for query in queries:
        expected = _in_order([task for task in made if _matches(task, query)], query["sort"])
        response = anonymous.get("/api/tasks", params=query)
        walked = response.json()
        while following := re.search(r'<([^>]*)>; rel="next"', response.headers.get("Link", "")):
            response = anonymous.get(following[1])
            walked += response.json()
        assert walked == expected
        assert response.headers["X-Total-Count"] == str(len(expected))
        while previous := re.search(r'<([^>]*)>; rel="prev"', response.headers.get("Link", "")):
            response = anonymous.get(previous[1])
            page = response.json()
            start = expected.index(page[0])
            assert page == expected[start : start + len(page)]
