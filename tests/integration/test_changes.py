"""What has changed: a client that asks for changes ends up with what the list has."""

import json
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text, update
from starlette.testclient import TestClient

from main import create_app, main
from models import TASKS
from routes.changes import CHECK_INTERVAL_SECONDS, NO_LONGER_VALID
from tests.actors import bearer, settings_for
from tests.replica import Replica

CHANGE_IDENTITY = "UPDATE todo_backend_sync SET identity = identity + 1"
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

GONE = {"detail": NO_LONGER_VALID, "status_code": 410}


@pytest.fixture
def engine(app: FastAPI) -> Engine:
    engine: Engine = app.state.database.engine
    return engine


@pytest.fixture
def replica(ann: TestClient) -> Replica:
    return Replica(ann)


@pytest.fixture
def other_connection(database_url: URL) -> Iterator[Connection]:
    """A connection with an open transaction, outside of the app."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def purge(
    database_url: URL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[object], str]:
    """Run the command, and return what it prints."""
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))

    def run(days: object) -> str:
        monkeypatch.setattr(sys, "argv", ["main.py", "purge", "--days", str(days)])
        main()
        return capsys.readouterr().out

    return run


def _create(actor: TestClient, title: str = "x", **more: object) -> dict[str, Any]:
    response = actor.post("/api/tasks", json={"title": title, **more})
    assert response.status_code == 201
    task: dict[str, Any] = response.json()
    return task


def _changes(actor: TestClient, since: str | None = None, **query: int | str) -> dict[str, Any]:
    if since is not None:
        query["since"] = since
    response = actor.get("/api/tasks/changes", params=query)
    assert response.status_code == 200, response.text
    changes: dict[str, Any] = response.json()
    return changes


def _settled_token(actor: TestClient) -> str:
    """Return a token with which requests without changes are answered by the latest change."""
    token: str = _changes(actor, _changes(actor)["next"])["next"]
    assert _changes(actor, token)["next"] == token
    return token


@pytest.mark.parametrize("path", ["/api/tasks/changes", "/api/ann/tasks/changes"])
def test_a_first_request_lists_all_tasks_and_the_next_what_changed(
    ann: TestClient, bob: TestClient, path: str
) -> None:
    kept, changed, deleted = (_create(ann, title) for title in ("kept", "changed", "deleted"))
    _create(bob)

    first = ann.get(path).json()

    assert first["tasks"] == [kept, changed, deleted]
    assert (first["deleted"], first["more"]) == ([], False)
    changed = ann.put(f"/api/tasks/{changed['id']}", json={"title": "new"}).json()
    ann.delete(f"/api/tasks/{deleted['id']}")
    created = _create(ann, "created")
    second = ann.get(path, params={"since": first["next"]}).json()
    assert second["tasks"] == [changed, created]
    assert (second["deleted"], second["more"]) == ([deleted["id"]], False)
    third = ann.get(path, params={"since": second["next"]}).json()
    assert (third["tasks"], third["deleted"], third["more"]) == ([], [], False)


def test_a_task_deleted_before_the_first_request_is_not_listed(ann: TestClient) -> None:
    ann.delete(f"/api/tasks/{_create(ann)['id']}")
    left = [_create(ann), _create(ann)]

    first = _changes(ann, limit=1)
    second = _changes(ann, first["next"], limit=1)

    assert first["tasks"] + second["tasks"] == left
    assert first["deleted"] + second["deleted"] == []
    assert (first["more"], second["more"]) == (True, False)


def test_tasks_deleted_before_the_first_request_are_never_listed(ann: TestClient) -> None:
    kept = _create(ann)
    for _ in range(3):
        ann.delete(f"/api/tasks/{_create(ann)['id']}")

    first = _changes(ann)

    assert first["tasks"] == [kept]
    assert _changes(ann, first["next"])["deleted"] == []


def test_an_update_to_the_same_values_is_not_listed(ann: TestClient, replica: Replica) -> None:
    task = _create(ann)
    replica.pull()
    ann.put(f"/api/tasks/{task['id']}", json={"title": task["title"]})

    assert _changes(ann, replica.since)["tasks"] == []


def test_the_token_stays_the_same_until_something_changes(ann: TestClient, bob: TestClient) -> None:
    _create(ann)
    token = _settled_token(ann)
    _create(bob)

    assert _changes(ann, token) == {"tasks": [], "deleted": [], "next": token, "more": False}

    task = _create(ann)
    assert _changes(ann, token)["tasks"] == [task]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "?status=pending", {"json": {"status": "completed"}}),
        ("DELETE", "?status=pending", {}),
        ("POST", "/import", {"content": '{"title": "one"}\n{"title": "two"}'}),
    ],
)
def test_many_changes_at_once_are_all_listed(
    ann: TestClient, replica: Replica, method: str, path: str, body: dict[str, Any]
) -> None:
    for _ in range(7):
        _create(ann)
    replica.pull()

    assert ann.request(method, f"/api/tasks{path}", **body).is_success

    replica.pull(limit=2)
    assert replica.tasks == {task["id"]: task for task in ann.get("/api/tasks").json()}


def test_a_tombstone_contains_nothing_that_its_owner_wrote(ann: TestClient, engine: Engine) -> None:
    task = _create(ann, "s3cret", description="s3cret", tags=["s3cret"], due_date="2026-01-31")
    ann.post("/api/tasks", json={"title": "s3cret"}, headers={"Idempotency-Key": "s3cret"})
    ann.delete(f"/api/tasks/{task['id']}")
    ann.delete("/api/tasks?status=pending")

    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM task")).all()

    assert len(rows) == 2
    assert "s3cret" not in str(rows)
    assert "2026-01-31" not in str(rows)
    assert {row.user_id for row in rows} == {"ann"}


def test_a_tombstone_is_invisible(ann: TestClient, engine: Engine) -> None:
    task = _create(ann, tags=["a"])
    path = f"/api/tasks/{task['id']}"
    ann.delete(path)

    assert [ann.request(method, path).status_code for method in ("GET", "DELETE")] == [404] * 2
    assert ann.put(path, json={"title": "x"}).status_code == 404
    assert ann.patch(f"{path}/complete").status_code == 404
    assert ann.patch(f"/api/tasks?id={task['id']}", json={"title": "x"}).json() == {"updated": 0}
    assert ann.delete("/api/tasks?status=pending").json() == {"deleted": 0}
    assert ann.get("/api/tasks").headers["X-Total-Count"] == "0"
    assert ann.get("/api/tasks/export").content == b""
    assert ann.get("/api/tags").json() == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM task")).scalar_one() == 1


def test_tombstones_do_not_count_as_tasks(database_url: URL) -> None:
    app = create_app(settings_for(database_url, tasks_per_user=2))
    with TestClient(app, headers=bearer("ann")) as ann:
        for _ in range(5):
            ann.delete(f"/api/tasks/{_create(ann)['id']}")

        assert ann.post("/api/tasks/import", content='{"title": "x"}').status_code == 201
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 409


def test_after_an_erasure_nothing_is_left_and_old_tokens_are_refused(
    ann: TestClient, bob: TestClient, engine: Engine
) -> None:
    ann.delete(f"/api/tasks/{_create(ann)['id']}")
    _create(ann)
    tokens, of_bob = (_changes(ann)["next"], _settled_token(ann)), _changes(bob)["next"]

    ann.delete("/api/me")

    for of_ann in tokens:
        assert ann.get(f"/api/tasks/changes?since={of_ann}").json() == GONE
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM task")).all() == []
    task = _create(ann)
    for of_ann in tokens:
        assert ann.get(f"/api/tasks/changes?since={of_ann}").json() == GONE
    assert _changes(ann)["tasks"] == [task]
    assert _changes(bob, of_bob)["tasks"] == []


def test_the_token_of_another_user_is_refused(ann: TestClient, bob: TestClient) -> None:
    _create(ann)
    _create(bob)

    for of_ann in (_changes(ann)["next"], _settled_token(ann)):
        assert bob.get(f"/api/tasks/changes?since={of_ann}").json() == GONE


def test_the_token_of_another_database_is_refused(ann: TestClient, engine: Engine) -> None:
    token = _changes(ann)["next"]
    with engine.connect() as connection:
        connection.execute(text(CHANGE_IDENTITY))

    assert ann.get(f"/api/tasks/changes?since={token}").json() == GONE


def test_the_token_of_another_database_is_refused_although_its_latest_change_is_alike(
    sqlite_url: URL, tmp_path: Path
) -> None:
    first = create_app(settings_for(sqlite_url))
    second = create_app(settings_for(make_url(f"sqlite:///{tmp_path / 'todo.db'}")))
    with TestClient(first, headers=bearer("ann")) as ann:
        _create(ann)
        token = _settled_token(ann)

    with TestClient(second, headers=bearer("ann")) as ann:
        _create(ann)

        assert ann.get(f"/api/tasks/changes?since={token}").json() == GONE


def test_a_token_without_changes_is_checked_now_and_then(ann: TestClient, engine: Engine) -> None:
    _create(ann)
    token = _settled_token(ann)
    checked_at = _fields(token)["checked_at"]
    # The second is of a process whose clock is wrong.
    others = [
        _token(_fields(token) | {"checked_at": checked_at + offset})
        for offset in (-CHECK_INTERVAL_SECONDS, 2 * CHECK_INTERVAL_SECONDS)
    ]
    for other in others:
        assert abs(_fields(_changes(ann, other)["next"])["checked_at"] - checked_at) < 60

    with engine.connect() as connection:
        connection.execute(text(CHANGE_IDENTITY))

    for other in others:
        assert ann.get(f"/api/tasks/changes?since={other}").json() == GONE
    if engine.dialect.name == "postgresql":  # on SQLite, every request notices another identity
        assert _changes(ann, token)["next"] == token
    _create(ann)
    assert ann.get(f"/api/tasks/changes?since={token}").json() == GONE


@on_postgresql
def test_a_row_that_another_transaction_wrote_is_not_the_latest_change(
    ann: TestClient, engine: Engine
) -> None:
    """A restored dump has the same positions, but its rows were written by the restore."""
    _create(ann)
    token = _settled_token(ann)

    with engine.connect() as connection:
        connection.execute(text("UPDATE task SET title = title"))
        connection.execute(text(CHANGE_IDENTITY))

    assert ann.get(f"/api/tasks/changes?since={token}").json() == GONE


def test_a_token_that_is_ahead_of_the_database_is_refused(ann: TestClient) -> None:
    fields = _fields(_changes(ann)["next"])

    for ahead in ({"horizon": 2**62}, {"latest": [2**62, 1, ""]}):
        token = _token(fields | ahead)
        assert ann.get(f"/api/tasks/changes?since={token}").json() == GONE


@pytest.mark.parametrize(
    "since",
    [
        "",
        "x",
        "ä",
        "e30",
        "bnVsbA",
        "W10",
        "=",
        "%00",
        "eyJzb3J0Ijoi",
        urlsafe_b64encode(b"[" * 3000).decode(),
    ],
)
def test_an_invalid_token_is_refused(ann: TestClient, since: str) -> None:
    response = ann.get(f"/api/tasks/changes?since={since}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "since"


@pytest.mark.parametrize(
    "field",
    [
        *({name: value} for name in ("horizon", "checked_at") for value in (-1, 2**63, "1.5")),
        {"known": None},
        {"origin": 1},
        *({"latest": value} for value in (None, 1, [], [1, 2], [1, 2, 3], [2**63, 2, "3"])),
        {"more": None},
        {"is_first": "maybe"},
    ],
)
def test_a_token_that_was_tampered_with_is_refused(
    ann: TestClient, field: dict[str, object]
) -> None:
    token = _token(_fields(_changes(ann)["next"]) | field)

    assert ann.get(f"/api/tasks/changes?since={token}").status_code == 422


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "status=pending", "q=x"])
def test_only_since_and_limit_are_parameters(ann: TestClient, query: str) -> None:
    assert ann.get(f"/api/tasks/changes?{query}").status_code == 422


def _fields(token: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return fields


def _token(fields: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def test_tombstones_are_purged_when_they_are_old(
    ann: TestClient, engine: Engine, purge: Callable[[object], str]
) -> None:
    old, recent, live = _create(ann), _create(ann), _create(ann)
    before = _changes(ann)["next"]
    ann.delete(f"/api/tasks/{old['id']}")
    between = _changes(ann, before)["next"]
    ann.delete(f"/api/tasks/{recent['id']}")
    with engine.connect() as connection:
        long_ago = datetime.now(UTC) - timedelta(days=90, minutes=1)
        tombstone = update(TASKS).where(TASKS.c.id == old["id"])
        connection.execute(tombstone.values(deleted_at=long_ago))

    assert purge(90) == "Removed 1 tombstone\n"
    assert purge(90) == "Removed 0 tombstones\n"

    assert ann.get(f"/api/tasks/changes?since={before}").json() == GONE
    assert _changes(ann, between)["deleted"] == [recent["id"]]
    assert _changes(ann)["tasks"] == [live]


def test_a_database_without_the_tables_is_not_purged(
    empty_database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url.render_as_string(hide_password=False))
    monkeypatch.setattr(sys, "argv", ["main.py", "purge"])

    with pytest.raises(SystemExit, match="Nothing was purged: The service has no tables here yet"):
        main()


@pytest.mark.parametrize("days", ["0", "-1", "x", "100000", ""])
def test_the_days_to_keep_are_a_positive_number(
    days: str, purge: Callable[[object], str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        purge(days)

    assert "argument --days: must be a whole number from 1 to 99999" in capsys.readouterr().err


def test_a_client_starts_over_after_an_erasure(ann: TestClient, replica: Replica) -> None:
    _create(ann)
    replica.pull()
    ann.delete("/api/me")
    task = _create(ann)

    replica.pull()

    assert replica.tasks == {task["id"]: task}


def test_a_purge_between_two_pages_of_a_later_listing_is_noticed(
    ann: TestClient, replica: Replica, engine: Engine, purge: Callable[[object], str]
) -> None:
    gone = [_create(ann) for _ in range(3)]
    replica.pull()
    _create(ann)
    for task in gone:
        ann.delete(f"/api/tasks/{task['id']}")
    replica.pull_page(1)
    _age_tombstones(engine)

    assert purge(1) == "Removed 3 tombstones\n"

    replica.pull()
    assert replica.tasks == {task["id"]: task for task in ann.get("/api/tasks").json()}


def _age_tombstones(engine: Engine) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=1000)
    with engine.connect() as connection:
        tombstones = update(TASKS).where(TASKS.c.deleted_at.is_not(None))
        connection.execute(tombstones.values(deleted_at=long_ago))


def test_a_first_listing_continues_after_a_purge(
    ann: TestClient, purge: Callable[[object], str]
) -> None:
    tasks = [_create(ann) for _ in range(3)]
    first = _changes(ann, limit=2)

    purge(1)

    assert first["tasks"] + _changes(ann, first["next"])["tasks"] == tasks


INSERT = (
    "INSERT INTO task (user_id, title, status, created_at, updated_at)"
    " VALUES ('ann', 'imported', 'pending', now(), now())"
)


@on_postgresql
def test_a_change_that_commits_late_is_not_missed(
    ann: TestClient, replica: Replica, other_connection: Connection
) -> None:
    """The other transaction gets its position first, and commits last."""
    late, early = _create(ann, "late"), _create(ann, "early")
    replica.pull()
    _retitle(other_connection, late["id"])
    ann.put(f"/api/tasks/{early['id']}", json={"title": "changed"})
    for _ in range(3):
        replica.pull()
        assert replica.titles() == ["late", "changed"]

    other_connection.commit()

    replica.pull()

    assert replica.titles() == ["changed by hand", "changed"]


@on_postgresql
def test_a_tombstone_that_is_later_than_an_open_transaction_is_not_purged(
    ann: TestClient,
    replica: Replica,
    engine: Engine,
    other_connection: Connection,
    purge: Callable[[object], str],
) -> None:
    """No client could get a token that is later, so all would start over again and again."""
    _create(ann)
    _retitle(other_connection, _create(ann)["id"])
    ann.delete(f"/api/tasks/{_create(ann)['id']}")
    _age_tombstones(engine)

    assert purge(1) == "Removed 0 tombstones\n"

    replica.pull()
    assert _changes(ann, replica.since)["more"] is False
    other_connection.commit()
    assert purge(1) == "Removed 1 tombstone\n"


@on_postgresql
def test_a_task_that_is_created_during_an_erasure_does_not_hide_it(
    ann: TestClient, replica: Replica, other_connection: Connection
) -> None:
    _create(ann, "erased")
    replica.pull()
    other_connection.execute(text("DELETE FROM task WHERE user_id = 'ann'"))
    survivor = _create(ann, "survivor")
    replica.pull()

    other_connection.commit()

    replica.pull()
    assert replica.tasks == {survivor["id"]: survivor}


@on_postgresql
def test_a_change_that_is_rolled_back_is_not_listed(
    ann: TestClient, replica: Replica, other_connection: Connection
) -> None:
    task = _create(ann, "kept")
    _retitle(other_connection, task["id"])
    replica.pull()

    other_connection.rollback()

    replica.pull()

    assert replica.titles() == ["kept"]


def _retitle(connection: Connection, task_id: int) -> None:
    """Change a task like a process of the previous version, which does not set `changed`."""
    connection.execute(
        text("UPDATE task SET title = 'changed by hand', version = version + 1 WHERE id = :id"),
        {"id": task_id},
    )


@on_postgresql
def test_an_unfinished_import_delays_no_other_change(
    ann: TestClient, replica: Replica, other_connection: Connection
) -> None:
    replica.pull()
    other_connection.execute(text(INSERT))
    task = _create(ann, "during")
    for _ in range(3):
        replica.pull()
        assert replica.tasks == {task["id"]: task}

    other_connection.commit()

    replica.pull()

    assert sorted(replica.titles()) == ["during", "imported"]
