"""Every kind of database failure under load, with the real process."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Self

import psycopg2
import pytest

from tests.contract.operations import PROTECTED
from tests.e2e.server import free_port
from tests.faults.conftest import HANG_SECONDS, Measured, Serve, with_one_and_two_workers
from tests.faults.load import Client, Results, create, get, load, until
from tests.faults.postgres import PostgreSQL

# How long a client may wait for a response.
ANSWER_LIMIT_SECONDS = 5

TERMINATE_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)

needs_pgbouncer = pytest.mark.skipif(
    shutil.which("pgbouncer", path="/usr/sbin:/usr/bin") is None,
    reason="PgBouncer is not installed",
)


class HealthChecks:
    """Clients that request /health and /ready continuously."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.health = await self._stack.enter_async_context(load(self._port, 1, get("/health")))
        self.ready = await self._stack.enter_async_context(load(self._port, 1, get("/ready")))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


@with_one_and_two_workers
def test_a_killed_database_loses_no_acknowledged_write(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> tuple[Results, HealthChecks, float]:
        async with load(server.port, 100) as results, HealthChecks(server.port) as health_checks:
            await asyncio.sleep(2)
            postgres.kill()
            await asyncio.sleep(1)
            await asyncio.to_thread(postgres.start)
            ready = time.monotonic()
            await asyncio.sleep(2)
        return results, health_checks, results.first_success(ready)

    results, health_checks, back_after = asyncio.run(scenario())
    found = postgres.ids()

    assert set(results.codes) == {201, 503}
    assert results.acknowledged <= found
    assert set(health_checks.health.codes) == {200}
    assert set(health_checks.ready.codes) == {200, 503}
    assert results.slowest < HANG_SECONDS
    measured(
        "killed and started again under 100 clients",
        workers,
        codes=results.codes,
        slowest_answer=_seconds(results.slowest),
        first_success=f"{_seconds(back_after)} after it was ready",
        slowest_health=_seconds(health_checks.health.slowest),
        acknowledged=f"{len(results.acknowledged)}, found {len(results.acknowledged & found)}",
    )


@with_one_and_two_workers
def test_a_frozen_database_does_not_block_requests(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> tuple[Results, HealthChecks, float]:
        async with load(server.port, 100) as results, HealthChecks(server.port) as health_checks:
            await asyncio.sleep(1)
            await asyncio.to_thread(postgres.freeze)
            await asyncio.sleep(8)
            await asyncio.to_thread(postgres.thaw)
            thawed = time.monotonic()
            await asyncio.sleep(2)
        return results, health_checks, results.first_success(thawed)

    results, health_checks, back_after = asyncio.run(scenario())
    found = postgres.ids()

    assert set(results.codes) == {201, 503}
    assert results.acknowledged <= found
    assert set(health_checks.health.codes) == {200}
    assert set(health_checks.ready.codes) == {200, 503}
    assert max(results.slowest, health_checks.ready.slowest) < HANG_SECONDS
    measured(
        "frozen for 8 s under 100 clients",
        workers,
        codes=results.codes,
        slowest_answer=_seconds(results.slowest),
        first_success=f"{_seconds(back_after)} after it spoke again",
        slowest_health=_seconds(health_checks.health.slowest),
        slowest_ready=_seconds(health_checks.ready.slowest),
        acknowledged=f"{len(results.acknowledged)}, found {len(results.acknowledged & found)}",
    )


@with_one_and_two_workers
def test_an_unavailable_database_is_503_at_once(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> tuple[Results, float]:
        postgres.kill()
        async with load(server.port, 10) as results:
            await asyncio.sleep(1)
        await asyncio.to_thread(postgres.start)
        return results, await until(server.port)

    results, back_after = asyncio.run(scenario())

    assert set(results.codes) == {503}
    assert all(b"\r\nretry-after: 1\r\n" in response.head for response in results.responses)
    measured(
        "connection refused",
        workers,
        codes=results.codes,
        slowest_answer=_seconds(results.slowest),
        first_success=f"{_seconds(back_after)} after it was ready",
    )


@with_one_and_two_workers
def test_killed_backends_fail_only_their_own_requests(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> Results:
        async with load(server.port, 20) as results:
            for _ in range(10):
                await asyncio.sleep(0.2)
                await asyncio.to_thread(postgres.run, TERMINATE_ALL)
        return results

    results = asyncio.run(scenario())
    found = postgres.ids()

    assert set(results.codes) <= {201, 503}
    assert results.acknowledged <= found
    measured(
        "all backends killed ten times under 20 clients",
        workers,
        codes=results.codes,
        slowest_answer=_seconds(results.slowest),
        acknowledged=f"{len(results.acknowledged)}, found {len(results.acknowledged & found)}",
    )


@with_one_and_two_workers
def test_connections_closed_by_the_server_while_idle_fail_no_request(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> list[int]:
        async with load(server.port, 32):
            await asyncio.sleep(1)
        await asyncio.to_thread(postgres.run, TERMINATE_ALL)
        clients = [Client(server.port) for _ in range(64)]
        responses = await asyncio.gather(*(create(client, -1, 0) for client in clients))
        for client in clients:
            client.close()
        return [response.status for response in responses]

    codes = asyncio.run(scenario())

    assert codes == [201] * 64
    measured("idle connections closed by the server", workers, next_64_requests="all succeed")


@with_one_and_two_workers
def test_writes_to_a_standby_are_503_until_it_is_promoted(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)

    async def scenario() -> tuple[Results, Results, float]:
        await asyncio.to_thread(postgres.demote)
        await until(server.port, 200, get("/api/tasks"))
        async with (
            load(server.port, 10) as writes,
            load(server.port, 5, get("/api/tasks")) as reads,
        ):
            await asyncio.sleep(2)
        await asyncio.to_thread(postgres.promote)
        return writes, reads, await until(server.port)

    writes, reads, back_after = asyncio.run(scenario())

    assert set(writes.codes) == {503}
    assert set(reads.codes) == {200}
    measured(
        "failover to a standby",
        workers,
        writes=writes.codes,
        reads=reads.codes,
        slowest_answer=_seconds(max(writes.slowest, reads.slowest)),
        first_write=f"{_seconds(back_after)} after it was promoted",
    )


@with_one_and_two_workers
def test_a_long_lock_is_503_and_leaves_no_sessions_behind(
    serve: Serve, postgres: PostgreSQL, measured: Measured, workers: int
) -> None:
    server = serve(postgres.setting, workers)
    holder = psycopg2.connect(host="127.0.0.1", port=postgres.port, user="postgres")
    holder.cursor().execute("LOCK TABLE task")

    async def scenario() -> tuple[Results, float]:
        async with load(server.port, 40) as results:
            await asyncio.sleep(0.1)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        assert await asyncio.to_thread(postgres.run, waiting) == [(0,)]
        holder.close()
        return results, await until(server.port)

    results, back_after = asyncio.run(scenario())

    assert set(results.codes) == {503}
    assert results.slowest < HANG_SECONDS
    measured(
        "table locked by another session",
        workers,
        codes=results.codes,
        slowest_answer=_seconds(results.slowest),
        first_success=f"{_seconds(back_after)} after it was unlocked",
    )


@pytest.fixture
def pgbouncer(postgres: PostgreSQL) -> Iterator[str]:
    """The DATABASE_URL of a pooler in transaction mode, which accepts no startup parameters."""
    port = free_port()
    configuration = postgres.folder / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={postgres.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n"
    )
    command = ["/usr/sbin/pgbouncer", "-q", str(configuration)]
    with subprocess.Popen(command, user=postgres.user, stderr=subprocess.DEVNULL) as pooler:
        url = postgres.url.set(port=port)
        while not _connects(port):
            time.sleep(0.02)
        yield url.render_as_string(hide_password=False)
        pooler.terminate()


def _connects(port: int) -> bool:
    try:
        psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


@needs_pgbouncer
def test_every_operation_works_through_pgbouncer_in_transaction_mode(
    serve: Serve, postgres: PostgreSQL, pgbouncer: str, measured: Measured
) -> None:
    postgres.run("DROP TABLE IF EXISTS task, todo_backend_version, todo_backend_sync")
    server = serve(pgbouncer)

    async def scenario() -> tuple[dict[str, int], Results]:
        client = Client(server.port)
        codes = {}
        for operation in PROTECTED:
            task = (await create(client, 0, 0)).task["id"]
            path = operation.path.replace("/1", f"/{task}")
            response = await client.request(operation.method, path, {"title": "through PgBouncer"})
            codes[f"{operation.method} {operation.path}"] = response.status
        client.close()
        async with load(server.port, 50) as results:
            await asyncio.sleep(2)
        return codes, results

    codes, results = asyncio.run(scenario())
    with psycopg2.connect(pgbouncer.replace("+psycopg2", "")) as connection:
        cursor = connection.cursor()
        cursor.execute("SHOW statement_timeout")
        left_behind = cursor.fetchone()
    connection.close()

    assert [name for name, code in codes.items() if not 200 <= code < 300] == []
    assert results.codes.keys() == {201}
    assert left_behind == ("0",)
    measured(
        "PgBouncer in transaction mode, 4 connections, 50 clients",
        1,
        operations=f"{len(codes)}, all succeed",
        codes=results.codes,
        slowest_answer=_seconds(results.slowest),
    )
