"""Database outages: before the start, while running, and recovery."""

import asyncio
import select
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI
from psycopg2.extensions import set_wait_callback
from sqlalchemy import URL, Connection, NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

import db
import driver
import overload
from db import Database
from main import create_app
from routes import health
from tests.actors import bearer, settings_for
from tests.wire import Wire, wire_to

Result = TypeVar("Result")


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
            assert "Responding with 503 until this is fixed: " in caplog.text
            _assert_unavailable(ann)

            wire.refusing = False
            assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201
            assert ann.get("/ready").json() == {"status": "ok"}


@contextmanager
def _read_only(url: URL) -> Iterator[None]:
    """Make new connections to the database read-only."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(
            f"ALTER DATABASE {url.database} SET default_transaction_read_only = on"
        )
        yield
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.exec_driver_sql(
            f"ALTER DATABASE {url.database} RESET default_transaction_read_only"
        )


def test_the_app_starts_on_a_database_that_is_read_only(
    empty_postgresql: URL, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings_for(empty_postgresql))
    with ExitStack() as clients:
        with _read_only(empty_postgresql):
            ann = clients.enter_context(TestClient(app, headers=bearer("ann")))
            assert "Responding with 503 until this is fixed: cannot execute" in caplog.text
            assert ann.get("/api/tasks").status_code == 503

        app.state.database.engine.dispose()
        assert ann.get("/api/tasks").status_code == 200


def test_a_restarted_database_is_used_again(ann: TestClient, wire: Wire, anns_task: str) -> None:
    wire.refusing = True
    wire.cut()
    _assert_unavailable(ann)

    wire.refusing = False
    assert ann.get(anns_task).status_code == 200
    assert ann.get("/ready").json() == {"status": "ok"}


def test_a_connection_closed_while_idle_fails_no_request(
    ann: TestClient, wire: Wire, anns_task: str
) -> None:
    wire.cut()

    assert ann.get(anns_task).status_code == 200


def test_a_connection_closed_by_the_server_fails_no_request(postgresql_url: URL) -> None:
    end_others = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    others = create_engine(postgresql_url, poolclass=NullPool)
    app = create_app(settings_for(postgresql_url))

    with TestClient(app, headers=bearer("ann")) as ann:
        for _ in range(3):  # the next socket gets the number of a closed one
            assert ann.post("/api/tasks", json={"title": "Buy milk"}).status_code == 201
            with others.connect() as connection:
                assert connection.execute(end_others).scalars().all() == [True]


def test_an_unsolicited_notice_does_not_close_a_connection(
    ann: TestClient, wire: Wire, anns_task: str
) -> None:
    before = set(wire.open)
    wire.notify()

    assert ann.get(anns_task).status_code == 200
    assert wire.open == before


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limits to a tenth, so that a test can wait for them."""
    monkeypatch.setattr(driver, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(overload, "QUEUE_SECONDS", 0.15)
    monkeypatch.setattr(driver, "HANG_UP_AFTER_SECONDS", 0.05)


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("path", ["/api/tasks", "/ready"])
def test_a_database_that_stops_responding_is_503_until_it_responds(
    ann: TestClient, wire: Wire, path: str
) -> None:
    assert ann.get(path).status_code == 200
    before = set(wire.clients)
    wire.freeze()

    for _ in range(2):  # the first request has a connection, the second does not
        response = ann.get(path)
        assert response.status_code == 503
        assert response.json()["detail"] == "The database is not available; try again"
        assert ann.get("/health").status_code == 200

    wire.thaw()
    assert ann.get(path).status_code == 200
    while before & wire.clients:
        time.sleep(0.01)  # pragma: no cover  # they may be closed by now


@pytest.mark.usefixtures("short_limits")
def test_a_connection_that_is_made_too_late_is_closed(app: FastAPI, wire: Wire) -> None:
    with TestClient(app, headers=bearer("ann")) as ann:
        app.state.database.engine.dispose()
        wire.freeze()
        assert ann.get("/api/tasks").status_code == 503

        wire.thaw()
        assert ann.get("/api/tasks").status_code == 200
        while len(wire.clients) > 1:
            time.sleep(0.01)  # pragma: no cover  # it may be closed by now


@pytest.mark.usefixtures("short_limits")
def test_name_servers_that_do_not_respond_are_not_waited_for(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()

    def lookup(*_: object, **__: object) -> None:
        given_up.wait(30)
        raise OSError("Temporary failure in name resolution")

    with TestClient(app, headers=bearer("ann")) as ann:
        app.state.database.engine.dispose()
        monkeypatch.setattr(socket, "getaddrinfo", lookup)

        assert ann.get("/api/tasks").status_code == 503
        given_up.set()


def test_a_host_without_an_address_is_503_and_named(
    wire: Wire, reasons: Callable[[], list[str]]
) -> None:
    app = create_app(settings_for(wire.url.set(host="nonexistent.invalid")))

    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.get("/api/tasks").status_code == 503
    assert reasons() == ["Cannot resolve nonexistent.invalid"]


def test_a_hostaddr_is_not_looked_up(wire: Wire) -> None:
    url = wire.url.set(host="nonexistent.invalid").update_query_dict({"hostaddr": "127.0.0.1"})

    with TestClient(create_app(settings_for(url)), headers=bearer("ann")) as ann:
        assert ann.get("/api/tasks").json() == []


def test_unreachable_hosts_are_skipped_if_there_are_others(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "ADDRESS_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = [f"127.0.0.1:{port}" for port in (silent.getsockname()[1], wire.url.port)]
        hosts.insert(0, "nonexistent.invalid:5432")
        url = wire.url.set(host="", port=None).update_query_dict({"host": hosts})

        with TestClient(create_app(settings_for(url)), headers=bearer("ann")) as ann:
            assert ann.get("/api/tasks").json() == []


def test_no_statement_is_sent_after_the_deadline(
    ann: TestClient, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.statements.clear()
    monkeypatch.setattr(driver, "ANSWER_SECONDS", driver.HANG_UP_AFTER_SECONDS)

    assert ann.post("/api/tasks", json={"title": "x"}).status_code == 503
    assert wire.statements == []


@pytest.fixture
def locked(postgresql_url: URL) -> Iterator[Connection]:
    """A transaction that locks the table."""
    engine = create_engine(postgresql_url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("LOCK TABLE task")
        yield connection


@pytest.mark.usefixtures("short_limits")
def test_a_statement_that_waits_too_long_is_canceled_in_the_server(
    app: FastAPI, locked: Connection
) -> None:
    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 503

        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM"
        waiting += " pg_database WHERE datname = current_database())"
        assert locked.exec_driver_sql(waiting).scalar_one() == 0
        locked.rollback()
        assert ann.get("/api/tasks").json() == []


@pytest.mark.usefixtures("short_limits")
def test_a_request_that_gets_no_connection_is_503_in_time(
    wire: Wire, locked: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "POOL_SIZE", 1)
    app = create_app(settings_for(wire.url))

    with TestClient(app, headers=bearer("ann")) as ann, ThreadPoolExecutor(2) as pool:
        responses = [response.json() for response in pool.map(ann.get, ["/api/tasks"] * 2)]
        locked.rollback()
        codes = [response.status_code for response in pool.map(ann.get, ["/api/tasks"] * 8)]

    assert [response["detail"] for response in responses] == [
        "The database is not available; try again"
    ] * 2
    assert codes == [200] * 8


@pytest.fixture
def database(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database with a single connection."""
    monkeypatch.setattr(db, "POOL_SIZE", 1)
    database = Database(database_url, auto_migrate=False)
    yield database
    database.engine.dispose()


def _run(database: Database, use: Callable[[Connection], Result]) -> Coroutine[Any, Any, Result]:
    """Use a connection like a handler for a request of Ann's."""

    def work() -> Result:
        with database.engine.connect() as connection:
            return use(connection)

    return database.run("ann", work)


def _one(connection: Connection) -> object:
    return connection.exec_driver_sql("SELECT 1").scalar_one()


# Never ends by itself.
COUNT_FOREVER = (
    "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)"
    " SELECT count(*) FROM number"
)
SLOW = {"postgresql": "SELECT pg_sleep(30)", "sqlite": COUNT_FOREVER}


async def _give_up(database: Database) -> bool:
    """Cancel a request while it executes a statement; return whether it has ended by then."""
    begun, ended = threading.Event(), threading.Event()

    def use(connection: Connection) -> None:
        begun.set()
        try:
            connection.exec_driver_sql(SLOW[connection.dialect.name])
        finally:
            ended.set()

    running = asyncio.create_task(_run(database, use))
    await asyncio.to_thread(begun.wait, 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return ended.is_set()


def test_a_request_that_gives_up_does_not_delay_the_next(database: Database) -> None:
    async def give_up_and_run() -> object:
        await _give_up(database)
        return await _run(database, _one)

    database.schema.require_current()
    assert asyncio.run(give_up_and_run()) == 1


def test_a_request_that_gives_up_connecting_leaves_no_connection_behind(wire: Wire) -> None:
    database = Database(wire.url, auto_migrate=False)
    database.schema.require_current()
    database.engine.dispose()
    connections_before = wire.connections
    wire.freeze()

    async def give_up() -> None:
        running = asyncio.create_task(_run(database, _one))
        await asyncio.sleep(0)  # until it has started to connect
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(give_up())
    wire.thaw()
    while wire.connections == connections_before or wire.clients:
        time.sleep(0.01)  # pragma: no cover  # it may be closed by now
    database.engine.dispose()


def test_a_statement_larger_than_the_socket_buffers_is_sent(postgresql_url: URL) -> None:
    database = Database(postgresql_url, auto_migrate=False)
    database.schema.require_current()
    statement = f"SELECT length('{'x' * 20_000_000}')"

    length = asyncio.run(
        _run(database, lambda connection: connection.exec_driver_sql(statement).scalar_one())
    )

    assert length == 20_000_000
    database.close()


def test_a_transaction_without_time_to_commit_is_rolled_back(postgresql_url: URL) -> None:
    """If its connection stayed in the pool, later statements would join the transaction."""
    database = Database(postgresql_url, auto_migrate=False)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE noted (by text)")

    def insert_too_late(connection: Connection) -> None:
        with driver.time_limit(60), driver.transaction(connection):
            connection.exec_driver_sql("INSERT INTO noted VALUES ('ann')")
            driver.start_deadline(0)

    with (
        database.engine.connect() as connection,
        pytest.raises(OperationalError, match="No time left"),
    ):
        insert_too_late(connection)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO noted VALUES ('bob')")

    others = create_engine(postgresql_url, poolclass=NullPool)
    with others.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM noted").scalars().all() == ["bob"]
    database.close()


def test_the_time_limit_applies_to_plain_psycopg2_connections_too(postgresql_url: URL) -> None:
    set_wait_callback(driver.wait)
    engine = create_engine(postgresql_url, poolclass=NullPool)

    with (
        engine.connect() as connection,
        driver.time_limit(0),
        pytest.raises(OperationalError, match="did not respond in time"),
    ):
        connection.exec_driver_sql("SELECT pg_sleep(1)")


def test_handlers_run_in_threads_if_the_event_loop_cannot_watch_sockets(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(select, "poll")
    app = create_app(settings_for(postgresql_url))

    with TestClient(app, headers=bearer("ann")) as ann:
        ann.post("/api/tasks/import", content=b'{"title": "%s"}\n' % (b"x" * 200) * 2000)
        assert ann.get("/api/tasks").headers["X-Total-Count"] == "2000"


def test_a_slow_schema_check_does_not_delay_the_response(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    with TestClient(app) as client:
        monkeypatch.setattr(health, "READY_SECONDS", 0.1)
        monkeypatch.setattr(app.state.database.schema, "require_current", ended.wait)

        response = client.get("/ready")
        ended.set()

    assert response.status_code == 503
    assert response.json()["detail"] == "The database is not available; try again"


def test_the_schema_check_counts_towards_the_time_of_a_request(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(app, headers=bearer("ann")) as ann:
        monkeypatch.setattr(driver, "HANG_UP_AFTER_SECONDS", driver.ANSWER_SECONDS - 0.5)
        schema = app.state.database.schema
        schema.is_current = False
        monkeypatch.setattr(schema, "require_current", lambda: time.sleep(0.6))
        assert ann.get("/api/tasks").status_code == 503

        schema.is_current = True

        assert ann.get("/api/tasks").status_code == 200


def test_connections_to_a_server_that_became_read_only_are_dropped(
    app: FastAPI, wire: Wire, postgresql_url: URL
) -> None:
    with TestClient(app, headers=bearer("ann")) as ann:
        with _read_only(postgresql_url):
            wire.cut()
            assert ann.post("/api/tasks", json={"title": "x"}).status_code == 503
            assert ann.get("/api/tasks").json() == []

        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 503
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201


def test_a_sqlite_file_that_cannot_be_opened_is_503(tmp_path: Path) -> None:
    app = create_app(settings_for(make_url(f"sqlite:///{tmp_path}/nonexistent/todo.db")))

    with TestClient(app, headers=bearer("ann")) as ann:
        _assert_unavailable(ann)


def test_a_file_that_is_not_a_database_is_503(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "todo.db").write_text("a letter to my aunt " * 100)
    app = create_app(settings_for(make_url(f"sqlite:///{tmp_path / 'todo.db'}")))

    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.get("/api/tasks").status_code == 503
    assert "file is not a database" in caplog.text


def test_a_locked_sqlite_file_is_503_until_it_is_unlocked(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "SQLITE_BUSY_TIMEOUT_SECONDS", 0.1)
    with (
        TestClient(create_app(settings_for(sqlite_url)), headers=bearer("ann")) as ann,
        closing(sqlite3.connect(str(sqlite_url.database), isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 503
        assert ann.get("/api/tasks").json() == []

        other.execute("ROLLBACK")
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201


def test_a_statement_on_sqlite_is_interrupted_at_the_deadline(sqlite_url: URL) -> None:
    database = Database(sqlite_url, auto_migrate=False)

    with (
        database.engine.connect() as connection,
        driver.time_limit(0.1),
        pytest.raises(OperationalError, match="interrupted"),
    ):
        connection.exec_driver_sql(COUNT_FOREVER)

    database.close()


def test_a_request_cancelled_on_sqlite_ends_before_its_connection_is_used_again(
    sqlite_url: URL,
) -> None:
    database = Database(sqlite_url, auto_migrate=False)

    assert asyncio.run(_give_up(database))
    database.close()


def test_a_text_on_sqlite_that_is_not_utf_8_is_503(sqlite_url: URL) -> None:
    app = create_app(settings_for(sqlite_url))
    with TestClient(app, headers=bearer("ann")) as ann:
        ann.post("/api/tasks", json={"title": "x"})
        with app.state.database.engine.connect() as connection:
            connection.exec_driver_sql("UPDATE task SET title = CAST(x'ff' AS TEXT)")

        assert ann.get("/api/tasks").status_code == 503


def test_read_only_sqlite_connections_are_dropped(sqlite_url: URL) -> None:
    app = create_app(settings_for(sqlite_url))
    both = threading.Barrier(2)

    def query_only(connection: Connection) -> object:
        both.wait(30)  # until the other call uses its connection
        return connection.exec_driver_sql("PRAGMA query_only").scalar_one()

    def make_query_only(connection: Connection) -> object:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        return query_only(connection)

    async def run_two(use: Callable[[Connection], object]) -> list[object]:
        responses = [_run(app.state.database, use) for _ in range(2)]
        return list(await asyncio.gather(*responses))

    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.portal is not None
        assert ann.portal.call(run_two, make_query_only) == [1, 1]

        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 503
        assert ann.portal.call(run_two, query_only) == [0, 0]
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201


def test_a_damaged_sqlite_file_is_503(sqlite_url: URL, reasons: Callable[[], list[str]]) -> None:
    app = create_app(settings_for(sqlite_url))
    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201
        app.state.database.engine.dispose()
        with Path(str(sqlite_url.database)).open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 8 * 4096)

        assert ann.get("/api/tasks").status_code == 503
    assert reasons() == ["database disk image is malformed"]
