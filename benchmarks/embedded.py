"""Compare SQLite with PostgreSQL under a hundred clients, and measure SQLite's pragmas.

`embedded:app` is the service with the SQLite pragma from the environment variable PRAGMA.
"""

import os
import shutil
from contextlib import ExitStack

from fastapi import FastAPI
from sqlalchemy import event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from benchmarks.comparison import MANY
from benchmarks.load import Sample
from benchmarks.operations import OPERATIONS, Target, in_turn, start
from benchmarks.report import Bench, Results, number, progress, table
from benchmarks.servers import our_command, uvicorn_command
from db import Database
from main import create_app
from settings import Settings

WRITES = ("POST", "PUT")
AS_IT_IS = "as the service sets it"
PRAGMAS = {
    AS_IT_IS: "",  # SQLite's default for synchronous is FULL
    "synchronous = NORMAL": "PRAGMA synchronous = NORMAL",
    "busy_timeout = 100 ms": "PRAGMA busy_timeout = 100",
    "busy_timeout = 10 s": "PRAGMA busy_timeout = 10000",
}
COLUMNS = ("requests/s", "p50, ms", "p95, ms", "p99, ms", "server CPU, us", "errors")


def measure(bench: Bench) -> Results:
    """Measure all operations on both databases, then the writes with each pragma."""
    file = bench.folder / "todo.db"
    with ExitStack() as stack:
        databases: dict[str, Target] = {}
        urls = {
            "SQLite": make_url(f"sqlite:///{file}"),
            "PostgreSQL": bench.postgres.database("beside_sqlite"),
        }
        for name, url in urls.items():
            progress(f"SQLite: starting on {name}")
            databases[name] = start(bench, stack, our_command(), url)
        both = in_turn(bench, "SQLite", databases, OPERATIONS, MANY)
    results = {"sqlite": table(("operation", "database", *COLUMNS), _rows(both))}
    with ExitStack() as stack:
        targets: dict[str, Target] = {}
        for workers in (1, 2):
            for name, pragma in PRAGMAS.items():
                progress(f"SQLite: starting with {name}")
                copied = shutil.copy(file, bench.folder / f"todo_{len(targets)}.db")
                command = [*uvicorn_command("embedded:app"), "--workers", str(workers)]
                target = start(
                    bench,
                    stack,
                    command,
                    make_url(f"sqlite:///{copied}"),
                    databases["SQLite"],
                    PRAGMA=pragma,
                )
                targets[f"{name}, {workers} process{'es' * (workers > 1)}"] = target
        settings = in_turn(bench, "SQLite", targets, WRITES, MANY)
    results["sqlite-settings"] = table(("operation", "setting", *COLUMNS), _rows(settings))
    return results


def _rows(medians: dict[tuple[str, str], Sample]) -> list[tuple[str, ...]]:
    return [
        (operation, name, *map(number, sample[:5]), str(sample.errors))
        for (operation, name), sample in medians.items()
    ]


def __getattr__(name: str) -> FastAPI:
    """Create `embedded:app` on first access, as `main` does."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = create_app(Settings())
    database: Database = app.state.database

    @event.listens_for(database.engine, "connect")
    def set_pragma(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        if pragma := os.environ["PRAGMA"]:
            connection.cursor().execute(pragma)

    return app
