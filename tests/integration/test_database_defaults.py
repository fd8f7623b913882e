"""Defaults of a database or a role, and databases that do not use UTF-8."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, create_engine
from starlette.testclient import TestClient

from main import create_app
from settings import ROOT
from tests.actors import bearer, settings_for

DEFAULTS = [
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_deferrable = on",
    "statement_timeout = '10ms'",
    "TimeZone = 'Asia/Kathmandu'",
    "DateStyle = 'German, DMY'",
    "DateStyle = 'SQL, MDY'",
    "IntervalStyle = 'sql_standard'",
    "standard_conforming_strings = off",
    "backslash_quote = off",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "client_encoding = 'LATIN1'",
    "client_min_messages = 'debug5'",
    "client_min_messages = 'error'",
    "synchronous_commit = off",
    "quote_all_identifiers = on",
    "transform_null_equals = on",
    "enable_indexscan = off",
]
HOSTILE = "'\\' \\\\ %s %(x)s \"ä\" \U0001f4dd"


def _set(database: URL, default: str) -> None:
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {database.database} SET {default}")
    engine.dispose()


@pytest.mark.parametrize("default", DEFAULTS)
def test_the_databases_defaults_do_not_matter(empty_postgresql: URL, default: str) -> None:
    _set(empty_postgresql, default)

    with TestClient(create_app(settings_for(empty_postgresql)), headers=bearer("ann")) as ann:
        assert ann.get("/ready").status_code == 200
        created = ann.post("/api/tasks", json={"title": HOSTILE, "description": "x"})
        task = created.headers["Location"]
        changed = ann.put(task, json={"description": HOSTILE})
        found = ann.get("/api/tasks", params={"q": HOSTILE.upper()})
        exported = ann.get("/api/tasks/export")
        imported = ann.post("/api/tasks/import", content=exported.content)
        listed = ann.get("/api/tasks?sort=updated_at&limit=1")
        next_ = ann.get(listed.headers["Link"].partition(">")[0].removeprefix("<"))

    assert changed.json()["title"] == changed.json()["description"] == HOSTILE
    assert created.json()["created_at"].endswith("Z")
    assert changed.json()["created_at"] == created.json()["created_at"]
    assert found.json() == [changed.json()]
    assert imported.json() == {"imported": 1}
    assert len(next_.json()) == 1


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_concurrent_writers_of_one_row_all_succeed(
    postgresql_url: URL, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.USER_POOL_SIZE", 8)
    _set(postgresql_url, f"default_transaction_isolation = '{level}'")

    with TestClient(create_app(settings_for(postgresql_url)), headers=bearer("ann")) as ann:
        task = ann.post("/api/tasks", json={"title": "0"}).headers["Location"]

        def write(number: int) -> int:
            return ann.put(task, json={"title": str(number)}).status_code

        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(write, range(1, 161)))
        version = ann.get(task).headers["ETag"]

    assert codes == [200] * 160
    assert version == '"161"'


def test_a_lock_timeout_is_503(postgresql_url: URL) -> None:
    _set(postgresql_url, "lock_timeout = '1ms'")
    engine = create_engine(postgresql_url)

    with TestClient(create_app(settings_for(postgresql_url)), headers=bearer("ann")) as ann:
        task = ann.post("/api/tasks", json={"title": "x"}).headers["Location"]
        with engine.connect() as other:
            other.exec_driver_sql("SELECT * FROM task WHERE user_id = 'ann' FOR UPDATE")
            assert ann.put(task, json={"title": "y"}).status_code == 503
        assert ann.put(task, json={"title": "y"}).status_code == 200
    engine.dispose()


@pytest.fixture
def make_encoded(postgres_url: URL) -> Iterator[Callable[[str], URL]]:
    """Create an empty database with an encoding."""
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    names: list[str] = []

    def make(encoding: str) -> URL:
        name = f"todo_in_{encoding.lower()}_{os.getpid()}"
        with engine.connect() as connection:
            connection.exec_driver_sql(
                f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
                " LC_COLLATE 'C' LC_CTYPE 'C'"
            )
        names.append(name)
        return postgres_url.set(database=name)

    yield make
    with engine.connect() as connection:
        for name in names:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.mark.parametrize("auto_migrate", [True, False])
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_a_database_that_cannot_store_all_of_unicode_is_refused(
    make_encoded: Callable[[str], URL],
    caplog: pytest.LogCaptureFixture,
    reasons: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    auto_migrate: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    url = make_encoded(encoding)
    problem = (
        f"The database's encoding is {encoding}, which cannot store every character: "
        "use a database that was created with ENCODING 'UTF8'"
    )

    app = create_app(settings_for(url, auto_migrate=auto_migrate))
    with TestClient(app, headers=bearer("ann")) as ann:
        codes = [ann.get(path).status_code for path in ("/ready", "/api/tasks")]

    assert codes == [503, 503]
    assert f"Responding with 503 until this is fixed: {problem}" in caplog.text
    assert reasons() == [problem] * 2
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
    with pytest.raises(CommandError) as refused:
        command.upgrade(Config(toml_file=ROOT / "pyproject.toml"), "head")
    assert str(refused.value) == problem


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_sqlite_file_in_utf_16_can_store_all_of_unicode(empty_sqlite: URL, encoding: str) -> None:
    with closing(sqlite3.connect(str(empty_sqlite.database))) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE another (name TEXT)")

    with TestClient(create_app(settings_for(empty_sqlite)), headers=bearer("ann")) as ann:
        created = ann.post("/api/tasks", json={"title": HOSTILE})
        found = ann.get("/api/tasks", params={"q": 'Ä" \U0001f4dd'})
        by_title = ann.get("/api/tasks?sort=title")

    assert created.json()["title"] == HOSTILE
    assert found.json() == by_title.json() == [created.json()]
