"""Random requests of several users to every route, compared with a model in memory."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.actors import bearer

NOT_FOUND = b'{"detail":"Task not found","status_code":404}'
FORBIDDEN = b"""{"detail":"The user id in the path is not the token's","status_code":403}"""
STATUSES = ["pending", "in_progress", "completed"]

NEW: dict[str, object] = {
    "description": None,
    "status": "pending",
    "due_date": None,
    "priority": "medium",
    "tags": [],
}

_runs = count()

_fields: dict[str, st.SearchStrategy[Any]] = {
    "title": st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=5
    ).map(lambda text: f"t{text}t"),
    "description": st.none() | st.sampled_from(["", "d", "D"]),
    "status": st.sampled_from(STATUSES),
    "due_date": st.none() | st.sampled_from(["2026-01-31", "2026-01-31T17:00"]),
    "priority": st.sampled_from(["low", "medium", "high"]),
    "tags": st.lists(st.sampled_from(["a", "ä", "B"]), unique=True),
}
_changes = st.fixed_dictionaries({}, optional=_fields)
_users = st.integers(0, 2)
# The path: the short one, the user's own, or another's. The task: one of those created so far.
_call = st.tuples(_users, st.none() | _users, st.integers(0, 20))
_step = st.tuples(
    _call,
    st.one_of(
        st.tuples(st.just("POST"), st.just(""), _changes),
        st.tuples(st.just("LIST"), st.sampled_from(["", *STATUSES]), st.none()),
        st.tuples(st.just("GET"), st.just(""), st.none()),
        st.tuples(st.sampled_from(["PUT", "PATCH"]), st.just(""), _changes),
        st.tuples(st.just("PATCH"), st.just("/complete"), st.none()),
        st.tuples(st.just("DELETE"), st.just(""), st.none()),
    ),
)


# Every user has a task before the random requests begin.
FIRST_STEPS: list[Any] = [((user, None, 0), ("POST", "", {})) for user in range(3)]


@dataclass
class Model:
    """The expected tasks of every user, with the times from the responses."""

    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    ids: list[int] = field(default_factory=lambda: [2**40])

    def owned(self, user: str, id_: int) -> dict[str, Any] | None:
        task = self.tasks.get(id_)
        return task if task is not None and task["user_id"] == user else None


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(_step, min_size=20, max_size=40))
def test_no_user_ever_sees_or_changes_another_users_tasks(
    anonymous: TestClient, steps: list[Any]
) -> None:
    run = next(_runs)
    model = Model()
    for (caller, path_user, index), (action, suffix, body) in FIRST_STEPS + steps:
        user = f"user-{caller}-{run}"
        path = "/api/tasks" if path_user is None else f"/api/user-{path_user}-{run}/tasks"
        id_ = model.ids[index % len(model.ids)]
        _send(anonymous, model, user, path, id_, action, suffix, body)


def _send(
    client: TestClient,
    model: Model,
    user: str,
    path: str,
    id_: int,
    action: str,
    suffix: str,
    body: dict[str, Any] | None,
) -> None:
    method = {"LIST": "GET"}.get(action, action)
    url = {
        "POST": path,
        "LIST": f"{path}?limit=100" + (f"&status={suffix}" if suffix else ""),
    }.get(action, f"{path}/{id_}{suffix}")
    if action == "POST" and body is not None:
        body = {"title": "made"} | body

    response = client.request(method, url, json=body, headers=bearer(user))

    mine = model.owned(user, id_)
    if path not in {"/api/tasks", f"/api/{user}/tasks"}:
        assert (response.status_code, response.content) == (403, FORBIDDEN)
    elif action == "POST":
        task = response.json()
        assert task["id"] not in model.tasks
        assert task == NEW | (body or {}) | {
            name: task[name] for name in ("id", "created_at", "updated_at")
        } | {"user_id": user}
        model.tasks[task["id"]] = task
        model.ids.append(task["id"])
    elif action == "LIST":
        assert response.json() == [
            task
            for _, task in sorted(model.tasks.items(), reverse=True)
            if task["user_id"] == user and suffix in {"", task["status"]}
        ]
    elif mine is None:
        assert (response.status_code, response.content) == (404, NOT_FOUND)
    elif action == "DELETE":
        assert (response.status_code, response.content) == (204, b"")
        del model.tasks[id_]
    else:
        changed = mine | ({"status": "completed"} if suffix else body or {})
        task = response.json()
        if changed != mine:
            assert task["updated_at"] > mine["updated_at"]
            changed["updated_at"] = task["updated_at"]
        assert task == changed
        model.tasks[id_] = task
