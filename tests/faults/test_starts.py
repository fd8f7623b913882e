"""Many processes start at once on a database without a schema."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
from sqlalchemy import URL

from tests.actors import SECRET, bearer
from tests.e2e.server import Server

SECRET_TEXT = SECRET.get_secret_value()


def _create(server: Server) -> int:
    response = httpx2.post(
        f"{server.url}/api/tasks", json={"title": "x"}, headers=bearer("ann"), timeout=30
    )
    return response.status_code


def test_six_processes_start_at_once_on_an_empty_database(
    start: Callable[..., Server], empty_database_url: URL
) -> None:
    url = empty_database_url.render_as_string(hide_password=False)
    servers = [
        start(
            "uv", "run", "main.py", "--port", "{port}",
            BETTER_AUTH_SECRET=SECRET_TEXT, DATABASE_URL=url,
        )
        for _ in range(6)
    ]  # fmt: skip

    for server in servers:
        server.wait("/ready")
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(_create, servers)) == [201] * 6
    for server in servers:
        log = server.log.read_text()
        assert "ERROR" not in log
        assert "Traceback" not in log
        assert "mended" not in log
