"""Other applications in the same database, and the tables of earlier versions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Engine, create_engine
from starlette.testclient import TestClient

from main import create_app
from settings import ROOT
from tests.actors import bearer, settings_for
from tests.earlier import FIRST, SECOND, TO_SECOND, VERSION, execute, insert

BETTER_AUTH = """
CREATE TABLE "user" (id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE);
CREATE TABLE session (id TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE,
    "userId" TEXT NOT NULL REFERENCES "user" (id));
CREATE TABLE account (id TEXT PRIMARY KEY, "userId" TEXT NOT NULL REFERENCES "user" (id));
CREATE TABLE verification (id TEXT PRIMARY KEY, identifier TEXT NOT NULL);
CREATE TABLE jwks (id TEXT PRIMARY KEY, "publicKey" TEXT NOT NULL)
"""
FOREIGN_VERSION = f"{VERSION}; {TO_SECOND}"
ROW = """;
INSERT INTO task (user_id, title, status, created_at, updated_at)
    VALUES ('ann', 'a neighbor', 'pending', '2026-01-31 12:00:00', '2026-01-31 12:00:00')
"""
USERS = "CREATE TABLE users (id VARCHAR(255) PRIMARY KEY); INSERT INTO users VALUES ('ann');"
FOREIGN_TASKS = {
    "another": "CREATE TABLE task (user_id TEXT, title TEXT, status TEXT, created_at TEXT,"
    " updated_at TEXT)",
    "without our constraint and index": "CREATE TABLE task ({id}, user_id VARCHAR(255) NOT NULL,"
    " title VARCHAR(200) NOT NULL, description VARCHAR(2000), status VARCHAR(16) NOT NULL,"
    " created_at {time} NOT NULL, updated_at {time} NOT NULL)",
    "with a column more": f"{FIRST}; ALTER TABLE task ADD COLUMN board INTEGER",
    "with a column less": f"{FIRST}; {SECOND}; ALTER TABLE task DROP COLUMN replayed",
    "with other states": f"{FIRST}".replace("in_progress", "waiting"),
    "with another length": f"{FIRST}".replace("200", "100"),
    "with a unique title": f"{FIRST}; CREATE UNIQUE INDEX uq_title ON task (title)",
    "of users": USERS
    + FIRST.replace("VARCHAR(255) NOT NULL", "VARCHAR(255) NOT NULL REFERENCES users (id)"),
}


@pytest.fixture
def engine(empty_database_url: URL) -> Iterator[Engine]:
    engine = create_engine(empty_database_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def prepare(engine: Engine) -> Callable[..., None]:
    """Execute scripts before the service starts."""

    def run(*scripts: str) -> None:
        with engine.connect() as connection:
            for script in scripts:
                execute(connection, script)
        engine.dispose()

    return run


@pytest.fixture
def alembic(empty_database_url: URL, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration for Alembic's commands on the database."""
    monkeypatch.setenv("DATABASE_URL", empty_database_url.render_as_string(hide_password=False))
    return Config(toml_file=ROOT / "pyproject.toml")


def _rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.exec_driver_sql(statement)]
    engine.dispose()
    return rows


@pytest.mark.parametrize("auto_migrate", [True, False])
@pytest.mark.parametrize("script", FOREIGN_TASKS.values(), ids=FOREIGN_TASKS.keys())
def test_a_task_table_of_another_application_is_left_alone(
    empty_database_url: URL,
    prepare: Callable[..., None],
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    reasons: Callable[[], list[str]],
    script: str,
    auto_migrate: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    prepare(FOREIGN_VERSION, script + ROW)
    before = _rows(engine, "SELECT * FROM task")

    app = create_app(settings_for(empty_database_url, auto_migrate=auto_migrate))
    with TestClient(app, headers=bearer("ann")) as ann:
        codes = [
            ann.request(method, path, json={"title": "x"} if method == "POST" else None).status_code
            for method, path in [
                ("GET", "/ready"),
                ("GET", "/api/tasks"),
                ("POST", "/api/tasks"),
                ("DELETE", "/api/tasks?status=pending"),
                ("DELETE", "/api/me"),
            ]
        ]

    assert codes == [503] * 5
    assert len(reasons()) == 5
    for reason in [*reasons(), caplog.text]:
        if auto_migrate:
            assert "The table task in this database does not belong to this service" in reason
        else:
            assert "The service has no tables here yet" in reason
    assert _rows(engine, "SELECT * FROM task") == before
    assert _rows(engine, "SELECT * FROM alembic_version") == [("0002",)]


def test_the_command_alembic_refuses_a_foreign_table_in_one_line(
    prepare: Callable[..., None], alembic: Config, engine: Engine
) -> None:
    prepare(FOREIGN_VERSION, FOREIGN_TASKS["another"] + ROW)
    before = _rows(engine, "SELECT * FROM task")

    with pytest.raises(
        CommandError, match="The table task in this database does not belong to this service"
    ):
        command.upgrade(alembic, "head")

    assert _rows(engine, "SELECT * FROM task") == before


def test_a_view_named_task_is_left_alone(
    empty_database_url: URL, prepare: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    prepare("CREATE VIEW task AS SELECT 1 AS id, 'ann' AS user_id")

    with TestClient(create_app(settings_for(empty_database_url))) as client:
        assert client.get("/ready").status_code == 503

    assert "The table task in this database does not belong to this service" in caplog.text


def test_a_foreign_sqlite_file_is_not_changed(empty_sqlite: URL) -> None:
    file = Path(str(empty_sqlite.database))
    engine = create_engine(empty_sqlite, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        execute(connection, FOREIGN_TASKS["another"] + ROW)
    engine.dispose()
    before = file.read_bytes()

    with TestClient(create_app(settings_for(empty_sqlite)), headers=bearer("ann")) as ann:
        assert ann.delete("/api/me").status_code == 503

    assert {path: path.read_bytes() for path in file.parent.iterdir()} == {file: before}


def test_the_tables_of_better_auth_and_of_alembic_applications_do_not_matter(
    empty_database_url: URL, prepare: Callable[..., None], alembic: Config, engine: Engine
) -> None:
    prepare(FOREIGN_VERSION, BETTER_AUTH)

    with TestClient(create_app(settings_for(empty_database_url)), headers=bearer("ann")) as ann:
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201
        assert ann.get("/ready").status_code == 200
        assert ann.delete("/api/me").status_code == 204

    command.check(alembic)  # raises if it proposes a change
    assert _rows(engine, "SELECT * FROM alembic_version") == [("0002",)]


EARLIER = {"0001": [VERSION, FIRST], "0002": [VERSION, FIRST, SECOND, TO_SECOND]}


@pytest.mark.parametrize("by", ["start", "command"])
@pytest.mark.parametrize("revision", EARLIER)
def test_the_tables_of_an_earlier_version_are_upgraded_with_their_tasks(
    empty_database_url: URL,
    prepare: Callable[..., None],
    engine: Engine,
    alembic: Config,
    revision: str,
    by: str,
) -> None:
    prepare(*EARLIER[revision], "CREATE INDEX somebodys_own ON task (status)")
    if revision == "0002":
        with engine.connect() as connection:
            insert(connection, [{"title": "Äpfel", "key": "k"}, {"title": "İstanbul"}])
    else:
        prepare(ROW.removeprefix(";").replace("a neighbor", "İstanbul"))
    shown = "SELECT id, user_id, title, status FROM task ORDER BY id"
    before = _rows(engine, shown)
    if by == "command":
        command.upgrade(alembic, "head")

    app = create_app(settings_for(empty_database_url, auto_migrate=by == "start"))
    with TestClient(app, headers=bearer("ann")) as ann:
        assert ann.get("/ready").status_code == 200
        found = [task["title"] for task in ann.get("/api/tasks?q=istanbul").json()]

    assert found == ["İstanbul"]
    assert _rows(engine, shown) == before
    assert _rows(engine, "SELECT * FROM todo_backend_version") == [("todo_0005",)]
    # Processes of the earlier version may still run and read this.
    assert _rows(engine, "SELECT * FROM alembic_version") == [(revision,)]


def test_an_earlier_version_is_not_upgraded_without_auto_migrate(
    empty_database_url: URL, prepare: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    prepare(*EARLIER["0002"])

    app = create_app(settings_for(empty_database_url, auto_migrate=False))
    with TestClient(app) as client:
        assert client.get("/ready").status_code == 503

    assert "run `uv run alembic upgrade head`" in caplog.text


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("DROP INDEX uq_task_user_id_idempotency_key", "uq_task_user_id_idempotency_key"),
        (
            "DROP INDEX {name}; CREATE INDEX {name} ON task (user_id, idempotency_key)",
            "uq_task_user_id_idempotency_key",
        ),
        ("ALTER TABLE task DROP COLUMN replayed", "task.replayed"),
        ("ALTER TABLE task RENAME COLUMN title TO name", "task.title"),
        ("ALTER TABLE task RENAME TO tasks", "task.created_at"),
    ],
)
def test_a_removed_column_or_index_that_statements_need_is_reported(
    empty_database_url: URL,
    prepare: Callable[..., None],
    reasons: Callable[[], list[str]],
    change: str,
    missing: str,
) -> None:
    with TestClient(create_app(settings_for(empty_database_url)), headers=bearer("ann")) as running:
        assert running.get("/ready").status_code == 200

        prepare(change.replace("{name}", missing))

        assert running.get("/ready").status_code == 503
        assert running.post("/api/tasks", json={"title": "x"}).status_code == 503
    with TestClient(create_app(settings_for(empty_database_url)), headers=bearer("ann")) as started:
        assert started.get("/api/tasks").status_code == 503
    of_ready, _, of_start = reasons()
    assert of_ready == of_start
    assert "The schema is at revision todo_0005, but lacks " in of_ready
    assert missing in of_ready


@pytest.mark.parametrize(
    ("kind", "change", "missing"),
    [
        ("sqlite", "DROP TRIGGER task_inserted", "task_inserted"),
        ("postgresql", "ALTER TABLE task ALTER changed DROP DEFAULT", "task_inserted"),
        ("sqlite", "DROP TRIGGER task_changed", "task_changed"),
        ("postgresql", "DROP TRIGGER task_changed ON task", "task_changed"),
        ("postgresql", "ALTER TABLE task DISABLE TRIGGER task_changed", "task_changed"),
    ],
)
def test_a_schema_that_does_not_order_changes_is_refused(
    request: pytest.FixtureRequest,
    kind: str,
    change: str,
    missing: str,
    reasons: Callable[[], list[str]],
) -> None:
    url: URL = request.getfixturevalue(f"{kind}_url")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(change)
    engine.dispose()

    with TestClient(create_app(settings_for(url)), headers=bearer("ann")) as ann:
        assert ann.get("/ready").status_code == 503
        assert ann.get("/api/tasks/changes").status_code == 503

    assert {reason.partition(", but ")[2].partition(":")[0] for reason in reasons()} == {
        f"lacks {missing}"
    }


SCHEMAS = {
    "another application, later in the search path": (
        "app, public",
        f"CREATE SCHEMA app; {FOREIGN_TASKS['another']}{ROW}",
        200,
        "app",
    ),
    "another application, out of the search path": (
        "public",
        "CREATE SCHEMA app; SET search_path = app; " + FOREIGN_TASKS["another"] + ROW,
        200,
        "public",
    ),
    "another application, first in the search path": (
        "app, public",
        "CREATE SCHEMA app; SET search_path = app; " + FOREIGN_TASKS["another"] + ROW,
        503,
        None,
    ),
    "an earlier version, behind a schema that is empty": (
        "app, public",
        f"CREATE SCHEMA app; {FIRST}; {SECOND}",
        200,
        "public",
    ),
    "a schema that does not exist": ("nowhere", "SELECT 1", 503, None),
    "a name that must be quoted": ('"My App"', 'CREATE SCHEMA "My App"', 200, "My App"),
}


@pytest.mark.parametrize(
    ("search_path", "script", "status", "schema"), SCHEMAS.values(), ids=SCHEMAS.keys()
)
def test_tables_are_created_and_used_in_the_same_schema(
    empty_postgresql: URL, search_path: str, script: str, status: int, schema: str | None
) -> None:
    engine = create_engine(empty_postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        execute(connection, script)
        connection.exec_driver_sql(
            f"ALTER DATABASE {empty_postgresql.database} SET search_path = {search_path}"
        )
    engine.dispose()

    with TestClient(create_app(settings_for(empty_postgresql)), headers=bearer("ann")) as ann:
        assert ann.get("/ready").status_code == status
        assert ann.get("/api/tasks").status_code == status

    where = "SELECT schemaname FROM pg_tables WHERE tablename = 'todo_backend_version'"
    assert _rows(engine, where) == ([] if schema is None else [(schema,)])


def test_a_foreign_table_earlier_in_the_search_path_is_not_used(
    empty_postgresql: URL, reasons: Callable[[], list[str]]
) -> None:
    engine = create_engine(empty_postgresql, isolation_level="AUTOCOMMIT")
    with TestClient(create_app(settings_for(empty_postgresql))) as client:
        assert client.get("/ready").status_code == 200
    with engine.connect() as connection:
        execute(connection, "CREATE SCHEMA app; SET search_path = app; " + FIRST)
        execute(connection, f"{SECOND}{ROW}")
        connection.exec_driver_sql(
            f"ALTER DATABASE {empty_postgresql.database} SET search_path = app, public"
        )
    engine.dispose()

    with TestClient(create_app(settings_for(empty_postgresql)), headers=bearer("ann")) as ann:
        assert ann.delete("/api/me").status_code == 503

    assert "but lacks task.changed, task.created_at" in reasons()[-1]
    assert len(_rows(engine, "SELECT * FROM app.task")) == 1


def test_an_unrecognized_table_can_be_stamped_as_ours(
    empty_database_url: URL, prepare: Callable[..., None], alembic: Config
) -> None:
    prepare(VERSION, FIRST, SECOND, TO_SECOND, "ALTER TABLE task ADD COLUMN note TEXT")
    with pytest.raises(CommandError, match="the first of which is: column note TEXT"):
        command.upgrade(alembic, "head")

    command.stamp(alembic, "todo_0002")

    with TestClient(create_app(settings_for(empty_database_url)), headers=bearer("ann")) as ann:
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201
