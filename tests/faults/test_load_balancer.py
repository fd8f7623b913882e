"""Two copies of the service behind HAProxy, with PgBouncer. One copy is killed."""

import configparser
import os
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from psycopg2.extensions import make_dsn
from sqlalchemy import URL

from docs.contracts.generate import CONTRACT
from settings import ROOT
from tests.actors import SECRET, bearer
from tests.e2e.conftest import HAPROXY, PATH
from tests.e2e.server import Server, free_port

PGBOUNCER = shutil.which("pgbouncer", path=PATH)

pytestmark = [
    pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed"),
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed"),
]

EXAMPLES = ROOT / "examples/deployment"
USERS = 8
ROUNDS_BEFORE, ROUNDS_AFTER = 80, 160
LIMIT_SECONDS = 60
PAGE = 100

# Without a key, the other copy repeats what the killed copy has just done.
POST_TAKES_A_KEY = "Idempotency-Key" in CONTRACT.read_text()


@pytest.fixture
def pooled_url(postgresql_url: URL, tmp_path: Path, environment: dict[str, str]) -> Iterator[URL]:
    """The database behind PgBouncer, with the example's configuration except the addresses."""
    port = free_port()
    config = configparser.ConfigParser()
    config.read(EXAMPLES / "pgbouncer.ini")
    sockets = {name: str(value) for name, value in postgresql_url.query.items()}
    parameters = postgresql_url.translate_connect_args(username="user", database="dbname")
    config["databases"]["todo"] = make_dsn(**parameters, **sockets)
    config["pgbouncer"].update(
        {"listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": ""},
        auth_type="any",
    )
    path = tmp_path / "pgbouncer.ini"
    with path.open("w") as file:
        config.write(file)
    # PgBouncer refuses to run as root, as which CI runs. PostgreSQL's user can access its socket.
    user = Path(sockets["host"]).owner() if sockets else "nobody"
    as_user = [f"--user={user}"] if os.geteuid() == 0 else []
    server = Server([str(PGBOUNCER), *as_user, str(path)], tmp_path, environment, port)
    yield URL.create("postgresql", "ann", host="127.0.0.1", port=port, database="todo")
    server.stop()


@pytest.fixture
def copies(start: Callable[..., Server], pooled_url: URL) -> list[Server]:
    variables = {
        "BETTER_AUTH_SECRET": SECRET.get_secret_value(),
        "DATABASE_URL": pooled_url.render_as_string(hide_password=False),
    }
    started = [start("python", "main.py", "--port", "{port}", **variables) for _ in range(2)]
    return [copy.wait("/ready") for copy in started]


@pytest.fixture
def balancer(copies: list[Server], tmp_path: Path, environment: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    addresses = {
        f"TASKS_{number}": f"127.0.0.1:{copy.port}" for number, copy in enumerate(copies, start=1)
    }
    variables = environment | addresses | {"LISTEN": f"127.0.0.1:{port}"}
    command = [str(HAPROXY), "-f", str(EXAMPLES / "haproxy.cfg")]
    server = Server(command, tmp_path, variables, port)
    yield server.wait("/ready")
    server.stop()


class Worker:
    """A user who sends requests without a pause and records the results. A failure stops it."""

    def __init__(self, http: httpx2.Client, name: str) -> None:
        self._http = http
        self._name = name
        self.requests = 0
        # By title: the last confirmed description and status, or None if deleted.
        self.acknowledged: dict[str, tuple[str | None, str] | None] = {}

    def work(self, rounds: threading.Semaphore, done: threading.Event) -> None:
        number = 0
        while not done.is_set():
            self._run_round(f"{self._name} {number}", delete=number % 3 == 0)
            number += 1
            rounds.release()

    def _run_round(self, title: str, *, delete: bool) -> None:
        # HAProxy also retries POST with a key, and then the status is 200.
        key = {"Idempotency-Key": str(uuid4())}
        created = self._request("POST", "", {200, 201}, json={"title": title}, headers=key)
        self.acknowledged[title] = (None, "pending")
        path = f"/{created.json()['id']}"
        self._request("PUT", path, json={"description": title})
        self.acknowledged[title] = (title, "pending")
        self._request("PATCH", f"{path}/complete")
        self.acknowledged[title] = (title, "completed")
        assert self._request("GET", path).json()["status"] == "completed"
        self._request("GET", "?limit=3")
        if delete:
            # If HAProxy retries, the second response is 404, since the task is deleted.
            self._request("DELETE", path, {204, 404})
            self.acknowledged[title] = None

    def _request(
        self,
        method: str,
        path: str,
        good: Collection[int] = (200,),
        **others: Any,  # noqa: ANN401  # arguments of httpx2
    ) -> httpx2.Response:
        self.requests += 1
        response = self._http.request(method, f"/api/tasks{path}", **others)
        assert response.status_code in good, f"{method} {path}: {response.text}"
        return response

    def stored(self) -> dict[str, list[tuple[str | None, str]]]:
        """Return the user's tasks as the service has stored them, by title."""
        tasks: defaultdict[str, list[tuple[str | None, str]]] = defaultdict(list)
        offset = 0
        while page := self._request("GET", f"?limit={PAGE}&offset={offset}").json():
            offset += PAGE
            for task in page:
                tasks[task["title"]].append((task["description"], task["status"]))
        return tasks


@pytest.fixture
def workers(balancer: Server) -> Iterator[list[Worker]]:
    with ExitStack() as clients:
        names = [f"user-{number}" for number in range(USERS)]
        yield [
            Worker(
                clients.enter_context(
                    httpx2.Client(base_url=balancer.url, headers=bearer(name), timeout=30)
                ),
                name,
            )
            for name in names
        ]


def test_killing_a_copy_under_load_fails_no_request_and_loses_no_write(
    balancer: Server, copies: list[Server], workers: list[Worker]
) -> None:
    rounds, done = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(USERS) as pool:
        working = [pool.submit(worker.work, rounds, done) for worker in workers]
        _wait_for(ROUNDS_BEFORE, rounds)
        copies[0].process.kill()
        _wait_for(ROUNDS_AFTER, rounds)
        done.set()

    assert [work.exception() for work in working] == [None] * USERS
    for worker in workers:
        stored = worker.stored()
        kept = {title: [task] for title, task in worker.acknowledged.items() if task}
        assert {title: stored[title][:1] for title in kept} == kept
        assert stored == kept or not POST_TAKES_A_KEY
    # HAProxy noticed the failure, retried on the other copy (`+`), and never gave up.
    logged = balancer.log.read_text()
    retried = re.findall(r" \d+/\d+/\d+/\d+/\+\d+ ", logged)
    requests = sum(worker.requests for worker in workers)
    print(f"{requests} requests, {len(retried)} of them retried on the other copy")
    assert retried


def _wait_for(count: int, rounds: threading.Semaphore) -> None:
    for _ in range(count):
        rounds.acquire(timeout=LIMIT_SECONDS)
