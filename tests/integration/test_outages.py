"""The database is away, comes, goes, and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import URL, make_url
from starlette.testclient import TestClient

import db
from main import create_app
from tests.actors import bearer, settings_for
from tests.wire import Wire, wire_to


@pytest.fixture
def wire(postgresql_url: URL) -> Iterator[Wire]:
    with wire_to(postgresql_url) as wire:
        yield wire


@pytest.fixture
def app(wire: Wire) -> FastAPI:
    return create_app(settings_for(wire.url))


def _assert_unavailable(client: TestClient) -> None:
    for path in ("/api/tasks", "/ready"):
        response = client.get(path)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert response.json() == {
            "detail": "The database is not available; try again",
            "status_code": 503,
        }
    assert client.get("/health").json() == {"status": "ok"}


def test_the_app_starts_before_its_database(
    empty_postgresql: URL, caplog: pytest.LogCaptureFixture
) -> None:
    with wire_to(empty_postgresql) as wire:
        wire.refusing = True
        app = create_app(settings_for(wire.url))

        with TestClient(app, headers=bearer("ann")) as ann:
            assert "Answering 503 until this is mended: " in caplog.text
            _assert_unavailable(ann)

            wire.refusing = False
            assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201
            assert ann.get("/ready").json() == {"status": "ok"}


def test_the_database_goes_and_comes_back(ann: TestClient, wire: Wire, anns_task: str) -> None:
    wire.refusing = True
    wire.cut()
    _assert_unavailable(ann)

    wire.refusing = False
    assert ann.get(anns_task).status_code == 200
    assert ann.get("/ready").json() == {"status": "ok"}


def test_connections_closed_while_idle_cost_no_failed_request(
    ann: TestClient, wire: Wire, anns_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "UNTESTED_IDLE_SECONDS", 0)
    wire.cut()

    assert ann.get(anns_task).status_code == 200


def test_an_idle_connection_that_still_works_is_used_again(
    ann: TestClient, wire: Wire, anns_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "UNTESTED_IDLE_SECONDS", 0)
    before = set(wire.open)

    assert ann.get(anns_task).status_code == 200
    assert wire.open == before


def test_a_sqlite_file_that_cannot_be_opened_is_503(tmp_path: Path) -> None:
    app = create_app(settings_for(make_url(f"sqlite:///{tmp_path}/nonexistent/todo.db")))

    with TestClient(app, headers=bearer("ann")) as ann:
        _assert_unavailable(ann)


def test_a_file_that_is_no_database_is_503(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "todo.db").write_text("a letter to my aunt " * 100)
    app = create_app(settings_for(make_url(f"sqlite:///{tmp_path / 'todo.db'}")))

    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.get("/api/tasks").status_code == 503
    assert "file is not a database" in caplog.text
