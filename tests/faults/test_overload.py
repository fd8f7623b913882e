"""More load than the service can handle: many clients, slow clients, and a long time."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

import overload
from tests.actors import bearer
from tests.e2e.server import Server
from tests.faults.conftest import HANG_SECONDS, Measured, Serve, needs_wrk, with_one_and_two_workers
from tests.faults.load import Results, get, load, requests_of, until
from tests.faults.postgres import PostgreSQL

SECONDS = 5
USERS = 1000  # with pauses between requests
SOAK_SECONDS = int(os.environ.get("SOAK_SECONDS", "15"))


def _latency(results: Results, *statuses: int) -> str:
    p50, p95 = (results.percentile(percent, *statuses) for percent in (50, 95))
    return f"p50 {p50:.0f} ms, p95 {p95:.0f} ms"


def _processes(server: Server) -> list[psutil.Process]:
    supervisor = psutil.Process(server.process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def _resident_mebibytes(server: Server) -> float:
    return sum(process.memory_info().rss for process in _processes(server)) / 2**20


@with_one_and_two_workers
def test_a_hundred_clients_get_no_503(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> Results:
        async with load(server.port, 100, get("/api/tasks/1")) as results:
            await asyncio.sleep(3)
        return results

    results = asyncio.run(scenario())

    assert results.codes.keys() <= {200, 404}
    measured(
        "100 clients, each asking again at once",
        workers,
        answers_per_second=len(results.responses) // 3,
        latency=_latency(results),
    )


@needs_wrk
@with_one_and_two_workers
def test_excess_requests_are_refused_quickly_and_the_rest_is_served_quickly(
    serve: Serve, postgres: PostgreSQL, measured: Measured, tmp_path: Path, workers: int
) -> None:
    server = serve(postgres.setting, workers)
    users_of = partial(
        requests_of, port=server.port, path="/api/tasks?limit=1", seconds=SECONDS, folder=tmp_path
    )

    async def scenario() -> tuple[float, Results, Results, Results]:
        await until(server.port)
        health_check = partial(load, server.port, 1, get("/health"), pause_seconds=0.02)
        async with health_check() as calm:
            await asyncio.sleep(1)
        capacity = await asyncio.to_thread(users_of, 50 * workers, pause_seconds=0)
        carried = len(capacity.responses) / SECONDS
        async with health_check() as health:
            results = await asyncio.to_thread(users_of, USERS, pause_seconds=USERS / (3 * carried))
        return carried, calm, results, health

    carried, calm, results, health = asyncio.run(scenario())

    assert set(results.codes) == {200, 503}
    assert set(health.codes) == {200}
    assert results.slowest < HANG_SECONDS
    measured(
        "three times the requests that it can answer",
        workers,
        can_answer=f"{carried:.0f}/s",
        asked=f"{len(results.responses) / SECONDS:.0f}/s",
        accepted=f"{results.codes[200] / SECONDS:.0f}/s, {_latency(results, 200)}",
        refused=f"{results.codes[503] / SECONDS:.0f}/s, {_latency(results, 503)}",
        health=f"{_latency(health)} (at rest {_latency(calm)})",
    )


@with_one_and_two_workers
def test_more_clients_than_the_limit_are_refused_and_nothing_hangs(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)
    clients = 3 * overload.IN_FLIGHT_MAX * workers

    async def scenario() -> tuple[Results, float]:
        async with load(server.port, clients, get("/api/tasks?limit=1")) as results:
            await asyncio.sleep(1)
            adapted = time.monotonic()
            await asyncio.sleep(4)
        return results, adapted

    results, adapted = asyncio.run(scenario())
    first, later = results.sent(0, adapted), results.sent(adapted)

    assert set(first.codes) == set(later.codes) == {200, 503}
    assert all(b"\r\nretry-after: 1\r\n" in a.head for a in results.responses if a.status == 503)
    assert results.slowest < HANG_SECONDS
    measured(
        f"{clients} clients, each asking again at once",
        workers,
        codes=later.codes,
        accepted=f"{_latency(later, 200)} (in the first second {_latency(first, 200)})",
        refused=_latency(later, 503),
    )


@pytest.fixture
def connections() -> Iterator[Callable[[int, int, bytes], None]]:
    with ExitStack() as opened:

        def open_some(port: int, count: int, sent: bytes) -> None:
            for _ in range(count):
                connection = opened.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(("127.0.0.1", port))
                connection.sendall(sent)

        yield open_some


LIST = f"GET /api/tasks?limit=100 HTTP/1.1\r\nAuthorization: {bearer('ann')['Authorization']}\r\n"
EXPORT = LIST.replace("?limit=100", "/export")


@pytest.mark.parametrize(
    ("what", "count", "sent"),
    [
        ("1,000 connections that say nothing", 1000, b""),
        ("200 heads that do not end", 200, b"GET /api/tasks HTTP/1.1\r\nX: "),
        ("100 bodies that do not end", 100, None),
        ("200 readers of 100 tasks that do not read", 200, f"{LIST}Host: x\r\n\r\n".encode()),
        ("50 readers of all tasks that do not read", 50, f"{EXPORT}Host: x\r\n\r\n".encode()),
    ],
)
@with_one_and_two_workers
def test_slow_clients_do_not_affect_others(
    serve: Serve,
    postgres: PostgreSQL,
    connections: Callable[[int, int, bytes], None],
    measured: Measured,
    workers: int,
    what: str,
    count: int,
    sent: bytes | None,
) -> None:
    server = serve(postgres.setting, workers)
    if sent is None:
        authorization = bearer("ann")["Authorization"]
        head = f"POST /api/tasks HTTP/1.1\r\nAuthorization: {authorization}\r\n"
        sent = f"{head}Content-Length: 9\r\n\r\n{{".encode()
    before = _resident_mebibytes(server)

    async def scenario() -> Results:
        connections(server.port, count, sent)
        await until(server.port)  # starting at once is a burst, of which some requests are refused
        async with load(server.port, 1) as results:
            await asyncio.sleep(2)
        return results

    results = asyncio.run(scenario())

    assert set(results.codes) == {201}
    grown = _resident_mebibytes(server) - before
    measured(
        what, workers, codes=results.codes, latency=_latency(results), memory=f"{grown:+.0f} MiB"
    )


@with_one_and_two_workers
def test_memory_and_descriptors_do_not_leak(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    def usage() -> tuple[float, int]:
        descriptors = sum(process.num_fds() for process in _processes(server))
        return _resident_mebibytes(server), descriptors

    async def scenario() -> list[tuple[float, int]]:
        noted = []
        writers, readers = load(server.port, 8), load(server.port, 8, get("/api/tasks?limit=100"))
        async with writers, readers, load(server.port, 2, get("/api/tasks/x")):
            await asyncio.sleep(5)  # fills pools and caches
            for _ in range(SOAK_SECONDS):
                await asyncio.sleep(1)
                noted.append(usage())
        return noted

    noted = asyncio.run(scenario())
    third = len(noted) // 3
    early, late = noted[:third], noted[-third:]
    memory = [sum(rss for rss, _ in part) / third for part in (early, late)]
    descriptors = [max(fds for _, fds in part) for part in (early, late)]

    assert memory[1] < memory[0] * 1.1
    assert descriptors[1] <= descriptors[0] + 2
    measured(
        f"{SOAK_SECONDS} s of mixed requests",
        workers,
        memory=f"{memory[0]:.1f} MiB in the first third, {memory[1]:.1f} MiB in the last",
        descriptors=f"{descriptors[0]}, then {descriptors[1]}",
    )
