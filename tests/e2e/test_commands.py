"""The commands of the README, run as processes."""

import json
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.actors import SECRET, bearer
from tests.e2e.server import Server

Start = Callable[..., Server]
Run = Callable[..., subprocess.CompletedProcess[str]]

SECRET_TEXT = SECRET.get_secret_value()


def _create(server: Server) -> int:
    response = httpx2.post(
        f"{server.url}/api/tasks", json={"title": "x"}, headers=bearer("ann"), timeout=30
    )
    return response.status_code


def _logged(server: Server, logger: str) -> list[dict[str, Any]]:
    """Return the lines of a logger. All lines must be JSON."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in lines if line["logger"] == logger]


SIGNALED = 128 + signal.SIGTERM  # after the shutdown, uvicorn raises the signal again


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [
        ("uv run main.py --port {port}", SIGNALED),
        ("uv run main.py --port {port} --workers 2", 0),
        ("uv run main.py --port {port} --reload", 0),
        ("uv run python -m uvicorn main:app --port {port} --workers 2", 0),
    ],
)
def test_every_documented_command_serves_and_stops(
    start: Start, command: str, exit_code: int
) -> None:
    server = start(*command.split(), BETTER_AUTH_SECRET=SECRET_TEXT).wait()

    assert _create(server) == 201
    assert server.stop() == exit_code
    log = server.log.read_text()
    assert "Traceback" not in log
    (line,) = [line for line in log.splitlines() if "POST" in line]
    fields = json.loads(line)
    assert (fields["method"], fields["route"], fields["status"]) == ("POST", "/api/tasks", 201)
    assert fields["user_id"] == "ann"


def test_the_first_start_writes_a_secret_readable_only_by_the_owner(
    start: Start, run: Run, checkout: Path
) -> None:
    server = start("uv", "run", "main.py", "--port", "{port}").wait()

    written = checkout / ".env"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    name, _, secret = written.read_text().strip().partition("=")
    assert (name, len(secret)) == ("BETTER_AUTH_SECRET", 43)
    assert "Wrote a random BETTER_AUTH_SECRET" in server.log.read_text()
    assert secret not in server.log.read_text()

    token = run("uv", "run", "main.py", "token", "ann").stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx2.get(f"{server.url}/api/tasks", headers=headers).json() == []
    assert (checkout / "todo.db").exists()

    server.stop()
    again = start("uv", "run", "main.py", "--port", "{port}").wait()
    assert httpx2.get(f"{again.url}/api/tasks", headers=headers).status_code == 200


NOTHING_SET = (
    "Cannot start: Neither BETTER_AUTH_URL nor BETTER_AUTH_SECRET is set: "
    "set one of them to your Better Auth server's URL or secret\n"
)
EMPTY_SECRET = (
    "Cannot start: BETTER_AUTH_SECRET is empty; set it to the secret of your Better Auth server\n"
)
BAD_URL = (
    "Cannot start: "
    "DATABASE_URL must begin with postgresql:// or with sqlite:/// and the path of a file\n"
)


@pytest.mark.parametrize(
    ("command", "variables", "line"),
    [
        (["uv", "run", "main.py", "token", "ann"], {}, NOTHING_SET),
        (["uv", "run", "uvicorn", "main:app"], {}, NOTHING_SET),
        (["uv", "run", "main.py"], {"BETTER_AUTH_SECRET": ""}, EMPTY_SECRET),
        (
            ["uv", "run", "main.py"],
            {"BETTER_AUTH_SECRET": SECRET_TEXT, "DATABASE_URL": "mysql://u:s3cret@h/d"},
            BAD_URL,
        ),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line(
    run: Run, command: list[str], variables: dict[str, str], line: str
) -> None:
    ended = run(*command, **variables)

    assert (ended.returncode, ended.stderr, ended.stdout) == (3, line, "")


COMMANDS = [
    ["uv", "run", "main.py"],
    ["uv", "run", "main.py", "token", "ann"],
    ["uv", "run", "uvicorn", "main:app"],
    ["uv", "run", "alembic", "current"],
    ["uv", "run", "alembic", "upgrade", "head"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_part_of_a_password(run: Run, command: list[str]) -> None:
    url = "postgresql://app:Sup3r@S3cretTail@db.example/db"

    ended = run(*command, BETTER_AUTH_SECRET=SECRET_TEXT, DATABASE_URL=url)

    start, _, reason = ended.stderr.partition(": in a user name")
    assert start == "Cannot start: DATABASE_URL has a character that must be percent-encoded"
    assert reason.count("\n") == 1
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "cretTail" not in ended.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_utf_16_env_file_is_refused_in_one_line(
    run: Run, checkout: Path, command: list[str]
) -> None:
    (checkout / ".env").write_text(f"BETTER_AUTH_SECRET={SECRET_TEXT}\r\n", "utf-16")

    ended = run(*command)

    line = f"Cannot start: {checkout / '.env'} is not in UTF-8: save it as UTF-8\n"
    assert (ended.returncode, ended.stderr, ended.stdout) == (3, line, "")


def test_workers_that_cannot_start_are_not_restarted(run: Run) -> None:
    ended = run("uv", "run", "uvicorn", "main:app", "--workers", "2", "--port", "0")

    assert ended.stderr.count(NOTHING_SET) == 2
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_reported_without_a_traceback(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        ended = run("uv", "run", "main.py", "--port", port, BETTER_AUTH_SECRET=SECRET_TEXT)

    assert ended.returncode != 0
    assert "address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unreachable_database_is_logged_in_one_line_and_503(start: Start) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://ann:s3cret@127.0.0.1:{closed.getsockname()[1]}/todo"
        server = start(
            "uv", "run", "main.py", "--port", "{port}",
            BETTER_AUTH_SECRET=SECRET_TEXT, DATABASE_URL=url,
        ).wait()  # fmt: skip

        assert _create(server) == 503
    server.stop()  # the line of a request is written after the response
    started, requests = _logged(server, "main"), _logged(server, "logs")
    (message,) = [line["message"] for line in started]
    assert message.startswith(
        "Responding with 503 until this is fixed: Cannot connect to 127.0.0.1: "
    )
    assert [line["status"] for line in requests if line["method"] == "POST"] == [503]
    assert requests[-1]["reason"].startswith("Cannot connect to 127.0.0.1: ")
    assert "Traceback" not in server.log.read_text()
    assert "s3cret" not in server.log.read_text()
