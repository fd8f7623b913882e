"""Two processes that start at once upgrade the database of an earlier version."""

from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import URL, create_engine

from tests.actors import SECRET, bearer
from tests.e2e.server import Server
from tests.earlier import FIRST, SECOND, TO_SECOND, VERSION, execute, insert

TASKS = 10_000
SHOWN = "SELECT id, user_id, title, description, status, version FROM task ORDER BY id"


# From the first version, every row must be folded again; from the second, none.
@pytest.mark.parametrize(("title", "words"), [("İstanbul {}", "istanbul"), ("London {}", "LONDON")])
def test_two_processes_upgrade_ten_thousand_tasks_at_once(
    empty_database_url: URL,
    start: Callable[..., Server],
    title: str,
    words: str,
) -> None:
    engine = create_engine(empty_database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for script in (VERSION, FIRST, SECOND, TO_SECOND):
            execute(connection, script)
        connection.exec_driver_sql("BEGIN")
        insert(
            connection,
            (
                {"user_id": f"user-{number % 4}", "title": title.format(number)}
                for number in range(TASKS)
            ),
        )
        connection.exec_driver_sql("COMMIT")
        before = connection.exec_driver_sql(SHOWN).all()
    settings = {
        "BETTER_AUTH_SECRET": SECRET.get_secret_value(),
        "DATABASE_URL": empty_database_url.render_as_string(hide_password=False),
    }

    servers = [start("python", "main.py", "--port", "{port}", **settings) for _ in range(2)]
    for server in servers:
        server.wait("/ready")

    responses = [
        httpx2.get(
            f"{servers[user % 2].url}/api/tasks?limit=1&q={words}", headers=bearer(f"user-{user}")
        )
        for user in range(4)
    ]
    with engine.connect() as connection:
        after = connection.exec_driver_sql(SHOWN).all()
        versions = connection.exec_driver_sql("SELECT * FROM todo_backend_version").all()
    engine.dispose()
    assert [response.headers["X-Total-Count"] for response in responses] == [str(TASKS // 4)] * 4
    assert after == before
    assert [tuple(row) for row in versions] == [("todo_0005",)]
