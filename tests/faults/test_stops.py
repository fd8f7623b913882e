"""Shutdown, SIGKILL, and SQLite files that are locked, read-only or on a full disk."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from settings import ROOT
from tests import actors
from tests.actors import bearer
from tests.e2e.server import Server
from tests.faults.conftest import HANG_SECONDS, Measured, Serve, with_one_and_two_workers
from tests.faults.load import Results, get, load, until
from tests.faults.postgres import PostgreSQL

SECRET = actors.SECRET.get_secret_value()
END_LIMIT_SECONDS = 10


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "todo.db"


def _ids(file: Path) -> set[object]:
    with closing(sqlite3.connect(file)) as connection:
        return {id_ for (id_,) in connection.execute("SELECT id FROM task")}


@with_one_and_two_workers
def test_sigterm_under_load_drops_no_request(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> tuple[Results, float, float]:
        async with load(server.port, 50) as results:
            await asyncio.sleep(2)
            signaled_at = time.monotonic()
            await asyncio.to_thread(server.stop)
            exited_at = time.monotonic()
        return results, signaled_at, exited_at

    results, signaled_at, exited_at = asyncio.run(scenario())
    found = postgres.ids()
    before = Results([response for response in results.responses if response.began < signaled_at])
    in_flight = [
        response for response in before.responses if response.began + response.seconds > signaled_at
    ]

    assert set(before.codes) == {201}
    assert results.acknowledged <= found
    assert exited_at - signaled_at < END_LIMIT_SECONDS
    measured(
        "SIGTERM under 50 clients",
        workers,
        in_flight=f"{len(in_flight)}, all answered",
        exited=f"after {exited_at - signaled_at:.2f} s",
        acknowledged=f"{len(results.acknowledged)}, found {len(results.acknowledged & found)}",
    )


@pytest.mark.parametrize(
    "command",
    [[str(ROOT / "main.py")], ["-m", "uvicorn", "main:app", "--app-dir", str(ROOT)]],
    ids=["main.py", "uvicorn"],
)
def test_sigterm_stops_the_process_despite_incomplete_requests(
    command: list[str], tmp_path: Path, environment: dict[str, str], measured: Measured
) -> None:
    variables = {"DATABASE_URL": f"sqlite:///{tmp_path / 'todo.db'}", "BETTER_AUTH_SECRET": SECRET}
    whole = [sys.executable, *command, "--port", "{port}"]
    server = Server(whole, tmp_path, environment | variables).wait()
    head = f"POST /api/tasks HTTP/1.1\r\nAuthorization: {bearer('ann')['Authorization']}\r\n"
    with ExitStack() as connections:
        for sent in [f"{head}Content-Length: 9\r\n\r\n{{", head, ""]:
            connection = socket.create_connection(("127.0.0.1", server.port))
            connections.enter_context(connection).sendall(sent.encode())
        signaled_at = time.monotonic()
        server.stop()
    seconds = time.monotonic() - signaled_at

    assert seconds < END_LIMIT_SECONDS
    measured(
        f"SIGTERM with half a request sent, {Path(command[0]).name}{' '.join(command[1:3])}",
        1,
        exited=f"after {seconds:.2f} s",
    )


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_sigterm_ends_imports_with_a_503_and_stores_nothing_of_them(
    serve: Serve, postgres: PostgreSQL, file: Path, kind: str
) -> None:
    url = postgres.setting if kind == "postgresql" else f"sqlite:///{file}"
    server = serve(url)
    before = postgres.ids() if kind == "postgresql" else _ids(file)
    bodies = [
        (b"\n" * 100, 1000),  # most of it does not arrive
        (b'{"title": "x"}\n' * 900_000, None),  # takes longer than the server waits
    ]

    def send(connection: socket.socket, body: bytes, announced: int | None) -> None:
        head = (
            f"POST /api/tasks/import HTTP/1.1\r\nHost: x\r\nOrigin: http://localhost:3000\r\n"
            f"Authorization: {bearer('ann')['Authorization']}\r\n"
            f"Content-Length: {announced or len(body)}\r\n\r\n"
        )
        connection.settimeout(30)
        connection.sendall(head.encode() + body)

    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in bodies
        ]
        for connection, (body, announced) in zip(connections, bodies, strict=True):
            send(connection, body, announced)
        signaled_at = time.monotonic()
        exit_code = server.stop()
        seconds = time.monotonic() - signaled_at
        responses = [
            b"".join(iter(partial(connection.recv, 65536), b"")) for connection in connections
        ]

    assert exit_code == -signal.SIGTERM
    assert seconds < END_LIMIT_SECONDS
    for response in responses:
        head, _, content = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"access-control-allow-origin: http://localhost:3000" in head
        assert b"retry-after: 1" in head
        assert json.loads(content) == {
            "detail": "The server is stopping; try again",
            "status_code": 503,
        }
    assert (postgres.ids() if kind == "postgresql" else _ids(file)) == before


def test_workers_stop_when_their_supervisor_is_killed(serve: Serve, file: Path) -> None:
    server = serve(f"sqlite:///{file}", 2)
    workers = psutil.Process(server.process.pid).children()

    server.process.kill()

    _, alive = psutil.wait_procs(workers, HANG_SECONDS)
    assert alive == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@with_one_and_two_workers
def test_sigkill_loses_no_acknowledged_write(
    serve: Serve, postgres: PostgreSQL, file: Path, measured: Measured, kind: str, workers: int
) -> None:
    url = postgres.setting if kind == "postgresql" else f"sqlite:///{file}"
    server = serve(url, workers)

    async def scenario() -> Results:
        async with load(server.port, 20) as results:
            await asyncio.sleep(2)
            os.killpg(server.process.pid, signal.SIGKILL)
        return results

    results = asyncio.run(scenario())
    serve(url, workers)
    found = postgres.ids() if kind == "postgresql" else _ids(file)

    assert set(results.codes) == {0, 201}
    assert results.acknowledged <= found
    measured(
        f"SIGKILL of the service under 20 clients, {kind}",
        workers,
        acknowledged=f"{len(results.acknowledged)}, found {len(results.acknowledged & found)}",
    )


@with_one_and_two_workers
def test_a_full_disk_is_503_until_space_is_freed(
    serve: Serve, file: Path, measured: Measured, workers: int
) -> None:
    server = serve(f"sqlite:///{file}", workers)

    def limit_files(size: int) -> None:
        # The kernel refuses to enlarge the file, as on a full disk.
        supervisor = psutil.Process(server.process.pid)
        for process in (supervisor, *supervisor.children(recursive=True)):
            process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    async def scenario() -> tuple[Results, Results, float]:
        limit_files(file.with_name("todo.db-wal").stat().st_size)
        async with load(server.port, 4) as writes, load(server.port, 1, get("/api/tasks")) as reads:
            await asyncio.sleep(1)
        limit_files(psutil.RLIM_INFINITY)
        return writes, reads, await until(server.port)

    writes, reads, back_after = asyncio.run(scenario())

    assert set(writes.codes) == {503}
    assert set(reads.codes) == {200}
    measured(
        "no room on the disk, SQLite",
        workers,
        writes=writes.codes,
        reads=reads.codes,
        slowest_answer=f"{writes.slowest:.2f} s",
        first_write=f"{back_after:.2f} s after there was room",
    )


@with_one_and_two_workers
def test_writes_to_a_locked_file_are_503_until_it_is_unlocked(
    serve: Serve, file: Path, measured: Measured, workers: int
) -> None:
    server = serve(f"sqlite:///{file}", workers)

    async def scenario() -> tuple[Results, Results, float]:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            health_checks = load(server.port, 1, get("/health"))
            async with load(server.port, 40) as writes, health_checks as health:
                await asyncio.sleep(0.1)
        return writes, health, await until(server.port)

    writes, health, back_after = asyncio.run(scenario())

    assert set(writes.codes) == {503}
    assert set(health.codes) == {200}
    assert writes.slowest < HANG_SECONDS
    measured(
        "file locked by another process, SQLite, 40 clients",
        workers,
        codes=writes.codes,
        slowest_answer=f"{writes.slowest:.2f} s",
        first_write=f"{back_after:.2f} s after it was unlocked",
    )


@with_one_and_two_workers
def test_writes_to_a_read_only_file_are_503_until_it_is_writable(
    serve: Serve,
    file: Path,
    tmp_path: Path,
    environment: dict[str, str],
    measured: Measured,
    workers: int,
) -> None:
    first = serve(f"sqlite:///{file}")
    first.stop()
    file.chmod(0o444)
    # Without this capability, file modes apply to root too.
    modest = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    variables = {"DATABASE_URL": f"sqlite:///{file}", "BETTER_AUTH_SECRET": SECRET}
    command = [*modest, sys.executable, str(ROOT / "main.py"), "--port", "{port}"]
    command += ["--workers", str(workers)]
    server = Server(command, tmp_path, environment | variables).wait()

    def make_writable() -> None:
        for path in tmp_path.glob(
            "todo.db*"
        ):  # SQLite creates its temporary files with the mode of the database
            path.chmod(0o644)

    async def scenario() -> tuple[Results, float]:
        async with load(server.port, 4) as writes:
            await asyncio.sleep(1)
        make_writable()
        return writes, await until(server.port)

    try:
        writes, back_after = asyncio.run(scenario())
    finally:
        server.stop()

    assert set(writes.codes) == {503}
    measured(
        "read-only file, SQLite",
        workers,
        codes=writes.codes,
        first_write=f"{back_after:.2f} s after it was writable",
    )
