"""Measure how many database round trips an operation needs, by delaying the database."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import psycopg2
from psycopg2.extensions import cursor
from sqlalchemy import URL

from benchmarks.comparison import OURS, USUAL
from benchmarks.delay import delayed
from benchmarks.operations import OPERATIONS, call, connected
from benchmarks.report import Bench, Results, number, progress, table
from benchmarks.servers import our_command, our_environment, plain, serving, uvicorn_command

DELAY_SECONDS = 0.002  # roughly that of a database in the same region
LIVES, LIVES_QUICK = 300, 50
PING = "the smallest statement"
USER = 0


def measure(bench: Bench) -> Results:
    """Compare each operation's latency with and without the delay, one request at a time."""
    commands = {OURS: our_command(), USUAL: uvicorn_command("usual:app")}
    took_ms: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        connections: dict[tuple[str, bool], HTTPConnection] = {}
        pings: dict[bool, cursor] = {}
        for name, command in commands.items():
            progress(f"round trips: starting {name}")
            database = bench.postgres.database(f"round_trips_{len(connections)}")
            for far in (False, True):
                url = stack.enter_context(delayed(database, DELAY_SECONDS if far else 0))
                pings[far] = stack.enter_context(_cursor(url))
                environment = our_environment(url)
                server = serving(command, bench.folder, "/health", **environment)
                connections[name, far] = stack.enter_context(connected(stack.enter_context(server)))
        for life in range(LIVES_QUICK if bench.quick else LIVES):
            progress(f"round trips: task {life + 1}")
            for far, ping in pings.items():
                began = time.perf_counter()
                ping.execute("SELECT 1")
                took_ms[PING, "", far].append((time.perf_counter() - began) * 1e3)
            ids: dict[tuple[str, bool], object] = dict.fromkeys(connections)
            # Alternate between near and far, so that both get the same noise.
            for operation, method, path, fields in _life(life):
                for (name, far), connection in connections.items():
                    task_path = f"/api/tasks{path.format(ids[name, far])}"
                    began = time.perf_counter()
                    task = call(connection, method, task_path, USER, **fields)
                    took_ms[operation, name, far].append((time.perf_counter() - began) * 1e3)
                    if method == "POST":
                        ids[name, far] = task["id"]
    one_ms = _undisturbed(took_ms[PING, "", True]) - _undisturbed(took_ms[PING, "", False])
    rows = []
    for operation in OPERATIONS:
        for name in commands:
            near, far_ = (_undisturbed(took_ms[operation, name, far]) for far in (False, True))
            figures = (near, far_, far_ - near, (far_ - near) / one_ms)
            rows.append((operation, name, *map(number, figures)))
    header = ("operation", "server", "near, ms", "far, ms", "more, ms", "round trips")
    return {"round-trips": table(header, rows)}


def _life(life: int) -> list[tuple[str, str, str, dict[str, str]]]:
    """Return the requests from creating to deleting a task: operation, method, path, JSON."""
    return [
        ("POST", "POST", "", {"title": f"Buy milk {life}"}),
        ("GET one", "GET", "/{}", {}),
        ("PUT", "PUT", "/{}", {"title": "Buy bread"}),
        ("PATCH complete", "PATCH", "/{}/complete", {}),
        ("list of 20", "GET", "?limit=20", {}),
        ("DELETE", "DELETE", "/{}", {}),
    ]


def _undisturbed(took_ms: list[float]) -> float:
    """Return the lower quartile, which other work on the machine hardly affects."""
    return sorted(took_ms)[len(took_ms) // 4]


@contextmanager
def _cursor(url: URL) -> Iterator[cursor]:
    connection = psycopg2.connect(plain(url))
    connection.autocommit = True
    with connection.cursor() as cursor_:
        yield cursor_
    connection.close()
