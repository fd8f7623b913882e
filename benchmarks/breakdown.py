"""Where the time of a request goes: servers that do one thing more each, up to the whole service.

Served by itself, `breakdown:app` is the one of them that STEP names.
"""

import os
from collections import defaultdict, namedtuple
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from math import nan
from typing import Any

from fastapi import FastAPI
from psycopg2.extensions import cursor as Psycopg2Cursor  # noqa: N812  # it is a class
from sqlalchemy import URL, Compiled, Connection
from sqlalchemy.sql import ClauseElement
from starlette.types import ASGIApp
from typing_extensions import override

from benchmarks.comparison import ASYNC, DEF, FEW
from benchmarks.floors import fastapi as constant
from benchmarks.load import Sample, median
from benchmarks.operations import Target, start
from benchmarks.report import Bench, Results, number, progress, ratio, table
from benchmarks.servers import our_command, uvicorn_command
from db import Database
from gate import CORS, Headers
from logs import RequestLog, configure_logging
from main import create_app, freeze
from overload import Limit
from settings import Settings

OPERATIONS = ("GET one", "list of 20", "PUT")
CONSTANT_PATHS = {DEF: "/def", ASYNC: "/async"}
# As main.py serves.
SERVED = ("--loop", "asyncio", "--http", "protocol:Protocol", "--no-access-log")


class _Kept(Database):
    """Gives again what each statement has given once."""

    def __init__(self, url: URL, *, auto_migrate: bool) -> None:
        super().__init__(url, auto_migrate=auto_migrate)
        self._given: dict[object, Any] = {}

    @override
    async def one(self, statement: Any, **parameters: object) -> Any:
        if statement not in self._given:
            self._given[statement] = await super().one(statement, **parameters)
        return self._given[statement]

    @override
    async def all(self, statement: Any, **parameters: object) -> Any:
        if statement not in self._given:
            self._given[statement] = await super().all(statement, **parameters)
        return self._given[statement]


class _Driver(Database):
    """Executes the statements without SQLAlchemy and without a limit of time."""

    def __init__(self, url: URL, *, auto_migrate: bool) -> None:
        super().__init__(url, auto_migrate=auto_migrate)
        self._statements: dict[object, Compiled] = {}

    @override
    async def one(self, statement: Any, **parameters: object) -> Any:
        return next(iter(await self.all(statement, **parameters)), None)

    @override
    async def all(self, statement: Any, **parameters: object) -> Sequence[Any]:
        return await self.run(lambda connection: self._execute(connection, statement, parameters))

    def _execute(
        self, connection: Connection, statement: ClauseElement, parameters: dict[str, object]
    ) -> Sequence[Any]:
        driver: Any = connection.connection.driver_connection
        with driver.cursor(cursor_factory=Psycopg2Cursor) as cursor:
            compiled = self._compiled(statement)
            cursor.execute(str(compiled), {**compiled.params, **parameters})
            row = _row_of(tuple(column.name for column in cursor.description or ()))
            return [row._make(values) for values in cursor]

    def _compiled(self, statement: ClauseElement) -> Compiled:
        if statement not in self._statements:
            self._statements[statement] = statement.compile(self.engine)
        return self._statements[statement]


@lru_cache
def _row_of(names: tuple[str, ...]) -> type[Any]:
    return namedtuple("Row", names)  # noqa: PYI024  # the statement has the types


def _constant() -> ASGIApp:
    return constant


def _guarded_constant() -> ASGIApp:
    return RequestLog(Headers(CORS(Limit(constant), ["http://localhost:3000"])))


def _service_with(database: type[Database]) -> FastAPI:
    settings = Settings()
    app = create_app(settings)
    app.state.database = database(settings.database_url, auto_migrate=False)
    return app


ALONE = "an async handler, the service's loop and protocol"
AROUND = "headers, CORS, request id, limit in flight"
LINE = "the line in the log"
ROUTE = "route, token, parameters, task as JSON"
STATEMENT = "the statement, through psycopg2 in a greenlet"
WHOLE = "SQLAlchemy, the time limit: the service"
LOWEST = "the lowest: a constant by an async handler, and that statement"

# What each does that the one before does not; what it answers, and how much it logs.
STEPS: dict[str, tuple[str | None, str, Callable[[], ASGIApp]]] = {
    ALONE: (CONSTANT_PATHS[ASYNC], "WARNING", _constant),
    AROUND: (CONSTANT_PATHS[ASYNC], "WARNING", _guarded_constant),
    LINE: (CONSTANT_PATHS[ASYNC], "INFO", _guarded_constant),
    ROUTE: (None, "INFO", lambda: _service_with(_Kept)),
    STATEMENT: (None, "INFO", lambda: _service_with(_Driver)),
}


def measure(bench: Bench) -> Results:
    """Measure all of them in turn."""
    database = bench.postgres.database("breakdown")
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    with ExitStack() as stack:
        progress("breakdown: starting")
        whole = start(bench, stack, our_command(), database)
        command = uvicorn_command("floors:fastapi")
        targets: dict[str, tuple[Target, str | None]] = {
            DEF: (start(bench, stack, command, database, whole), CONSTANT_PATHS[DEF])
        }
        command = [*uvicorn_command("breakdown:app"), *SERVED]
        for name, (path, level, _) in STEPS.items():
            target = start(bench, stack, command, database, whole, STEP=name, LOG_LEVEL=level)
            targets[name] = (target, path)
        targets[WHOLE] = (whole, None)
        for round_ in range(bench.rounds):
            for operation in OPERATIONS:
                progress(f"breakdown: round {round_ + 1} of {bench.rounds}, {operation}")
                for name, (target, path) in targets.items():
                    sample = target.measure(path or operation, FEW, bench.seconds)
                    samples[operation, name].append(sample)
    medians = {key: median(of_key) for key, of_key in samples.items()}
    used = {
        name: {operation: medians[operation, name].server_us for operation in OPERATIONS}
        for name in targets
    }
    rows = []
    before = dict.fromkeys(OPERATIONS, nan)
    for name, now in used.items():
        errors = sum(medians[operation, name].errors for operation in OPERATIONS)
        rows.append(_row(name, now, before, used[DEF], str(errors)))
        before = now
    lowest = {
        operation: used[ALONE][operation] + used[STATEMENT][operation] - used[ROUTE][operation]
        for operation in OPERATIONS
    }
    rows.append(_row(LOWEST, lowest, dict.fromkeys(OPERATIONS, nan), used[DEF], ""))
    columns = (f"{each}: {figure}" for each in OPERATIONS for figure in ("us", "more", "ratio"))
    return {"breakdown": table(("what is done", *columns, "errors"), rows)}


Microseconds = Mapping[str, float]


def _row(
    name: str, now: Microseconds, before: Microseconds, constant: Microseconds, errors: str
) -> list[str]:
    row = [name]
    for operation in OPERATIONS:
        more = now[operation] - before[operation]
        row += map(number, (now[operation], more, ratio(now[operation], constant[operation])))
    return [*row, errors]


def __getattr__(name: str) -> ASGIApp:
    """`breakdown:app`, built when a server asks for it, as main:app is."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _, level, build = STEPS[os.environ["STEP"]]
    configure_logging(level)
    app = build()
    freeze()
    return app
