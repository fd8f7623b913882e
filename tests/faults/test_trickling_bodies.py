"""A normal client beside clients that send bodies as slowly as the server allows."""

import asyncio

import psutil
import pytest

from tests.actors import bearer
from tests.e2e.server import Server
from tests.faults.conftest import Measured, Serve, with_one_and_two_workers
from tests.faults.load import Results, get, load
from tests.faults.postgres import PostgreSQL

SECONDS = 4  # less than the server's limit for a body
OF_ONE_USER, OF_OTHERS = 400, 100
PAUSE_SECONDS = 0.02
# Tolerance for other processes on the machine: the ratio of two short latencies is noisy.
NOISE_MS = 10

FRAMINGS = {
    "announced": (b"Content-Length: 4000", b" "),
    "in chunks": (b"Transfer-Encoding: chunked", b"1\r\n \r\n"),
}


async def _trickle(port: int, user: str, framing: str) -> None:
    """Send a byte of the body every 0.5 s until the connection is closed or this is canceled."""
    header, part = FRAMINGS[framing]
    token = bearer(user)["Authorization"].encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: " + token + b"\r\n")
    writer.write(header + b"\r\n\r\n")
    try:
        while not reader.at_eof():
            writer.write(part)
            await asyncio.sleep(0.5)
    finally:
        writer.close()


async def _run_client(port: int) -> Results:
    async with load(port, 1, get("/api/tasks"), pause_seconds=PAUSE_SECONDS) as results:
        await asyncio.sleep(SECONDS)
    return results


async def _run_client_with_others(port: int, framing: str) -> Results:
    users = ["bob"] * OF_ONE_USER + [f"user-{number}" for number in range(OF_OTHERS)]
    others = [asyncio.create_task(_trickle(port, user, framing)) for user in users]
    await asyncio.sleep(1)
    results = await _run_client(port)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return results


def _resident_mebibytes(server: Server) -> float:
    supervisor = psutil.Process(server.process.pid)
    processes = [supervisor, *supervisor.children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 2**20


@pytest.mark.parametrize("framing", FRAMINGS)
@with_one_and_two_workers
def test_500_trickling_bodies_do_not_slow_others_down(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int, framing: str
) -> None:
    server = serve(postgres.setting, workers)
    asyncio.run(
        _run_client_with_others(server.port, framing)
    )  # memory is allocated on the first run
    before = _resident_mebibytes(server)

    alone = asyncio.run(_run_client(server.port))
    beside = asyncio.run(_run_client_with_others(server.port, framing))
    grown = _resident_mebibytes(server) - before

    assert alone.codes.keys() == beside.codes.keys() == {200}
    assert beside.percentile(95) < 2 * alone.percentile(95) + NOISE_MS
    assert grown < 8
    measured(
        f"{OF_ONE_USER} trickling bodies of one user and {OF_OTHERS} of others, {framing}",
        workers,
        p95_beside_them=f"{beside.percentile(95):.1f} ms",
        p95_alone=f"{alone.percentile(95):.1f} ms",
        memory=f"{grown:+.1f} MiB",
    )
