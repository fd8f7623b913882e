"""The log of the real process, for each command that starts it."""

import json
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import URL, create_engine, text

from tests.actors import SECRET, bearer
from tests.e2e.server import Server


@pytest.mark.parametrize(
    "command", ["uv run main.py --port {port}", "uv run uvicorn main:app --port {port}"]
)
def test_a_failure_has_one_traceback_without_secrets(
    start: Callable[..., Server], postgresql_url: URL, command: str
) -> None:
    url = postgresql_url.render_as_string(hide_password=False)
    secret = SECRET.get_secret_value()
    server = start(*command.split(), BETTER_AUTH_SECRET=secret, DATABASE_URL=url).wait("/ready")
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE task ADD CONSTRAINT by_hand CHECK (title = 'x')"))
    engine.dispose()

    headers = bearer("ann") | {"X-Request-ID": "abc"}
    response = httpx2.post(f"{server.url}/api/tasks", json={"title": "untold"}, headers=headers)
    server.stop()

    assert (response.status_code, response.headers["X-Request-ID"]) == (500, "abc")
    log = server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    request, traceback = [line for line in lines if line.get("request_id") == "abc"]
    assert [request[name] for name in ("route", "status", "user_id")] == ["/api/tasks", 500, "ann"]
    assert 'violates check constraint "by_hand"' in traceback["exc_info"]
    assert log.count("Traceback") == traceback["exc_info"].count("Traceback")
    for untold in ("INSERT", "untold", secret, headers["Authorization"].split()[1]):
        assert untold not in log
