"""Measure where the time of a request goes, with servers that each add one layer of the service.

`breakdown:app` is the server that the environment variable STEP names.
"""

import os
from collections import defaultdict, namedtuple
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import lru_cache
from math import nan
from typing import Any, ClassVar

from fastapi import FastAPI
from psycopg2.extensions import cursor as Psycopg2Cursor  # noqa: N812  # it is a class
from sqlalchemy import Compiled, Connection
from sqlalchemy.sql import ClauseElement
from sqlmodel import Session
from starlette.types import ASGIApp
from typing_extensions import override

import db
from benchmarks.comparison import ASYNC, DEF, FEW
from benchmarks.floors import fastapi as constant
from benchmarks.load import Sample, median
from benchmarks.operations import Target, start
from benchmarks.report import Bench, Results, number, progress, ratio, table
from benchmarks.servers import our_command, uvicorn_command
from gate import CORS, Headers
from logs import RequestLog, configure_logging
from main import create_app, freeze
from overload import InFlight, Limit
from settings import Settings

OPERATIONS = ("GET one", "list of 20", "PUT")
CONSTANT_PATHS = {DEF: "/def", ASYNC: "/async"}
# The same options as in main.py.
SERVED = ("--loop", "asyncio", "--http", "protocol:Protocol", "--no-access-log")


class _Rows(list[Any]):
    """Rows with the methods of a result."""

    def all(self) -> list[Any]:
        return self

    def one_or_none(self) -> object:
        return next(iter(self), None)


class _CachedSession(Session):
    """Executes each statement once, and then returns the same rows again."""

    cached: ClassVar[dict[object, _Rows]] = {}

    @override
    def exec(self, statement: Any, *, params: Any = None, **_: Any) -> Any:
        if statement not in self.cached:
            self.cached[statement] = _Rows(super().exec(statement, params=params))
        return self.cached[statement]


class _ConnectionSession(Session):
    """Executes the statements on connections that it keeps from the pool, without a transaction."""

    idle: ClassVar[list[Connection]] = []

    @override
    def exec(self, statement: Any, *, params: Any = None, **_: Any) -> Any:
        connection = self.idle.pop() if self.idle else self.info["database"].engine.connect()
        rows = _Rows(connection.execute(statement, params))
        self.idle.append(connection)
        return rows


class _DriverSession(Session):
    """Executes the statements without SQLAlchemy and without a time limit."""

    idle: ClassVar[list[Any]] = []
    compiled: ClassVar[dict[object, Compiled]] = {}

    @override
    def exec(self, statement: Any, *, params: Any = None, **_: Any) -> Any:
        # Do not return the connection to the pool.
        pooled: Any = (
            self.idle.pop() if self.idle else self.info["database"].engine.raw_connection()
        )
        with pooled.driver_connection.cursor(cursor_factory=Psycopg2Cursor) as cursor:
            compiled = self._compiled(statement)
            cursor.execute(str(compiled), {**compiled.params, **params})
            row = _row_of(tuple(column.name for column in cursor.description or ()))
            rows = _Rows(row._make(values) for values in cursor)
        self.idle.append(pooled)
        return rows

    def _compiled(self, statement: ClauseElement) -> Compiled:
        if statement not in self.compiled:
            self.compiled[statement] = statement.compile(self.get_bind())
        return self.compiled[statement]


@lru_cache
def _row_of(names: tuple[str, ...]) -> type[Any]:
    return namedtuple("Row", names)  # noqa: PYI024  # the statement has the types


def _constant() -> ASGIApp:
    return constant


def _guarded_constant() -> ASGIApp:
    return RequestLog(Headers(CORS(Limit(constant, InFlight()), ["http://localhost:3000"])))


def _service_with(session_type: type[Session]) -> FastAPI:
    # Do not use `dependency_overrides`: FastAPI would analyze the dependencies on each request.
    vars(db)["Session"] = session_type  # get_session looks this name up on each request
    return create_app(Settings())


ALONE = "an async handler, the service's loop and protocol"
AROUND = "headers, CORS, request id, limit in flight"
LINE = "the line in the log"
ROUTE = "route, token, parameters, an idle session, task as JSON"
STATEMENT = "the statement, through psycopg2 in a greenlet"
SQLALCHEMY = "SQLAlchemy's statement and result, the time limit"
WHOLE = "the session's transaction, the pool: the service"
LOWEST = "the lowest: a constant by an async handler, and that statement"

# By the layer that the server adds: the path to request, the log level, and the app.
STEPS: dict[str, tuple[str | None, str, Callable[[], ASGIApp]]] = {
    ALONE: (CONSTANT_PATHS[ASYNC], "WARNING", _constant),
    AROUND: (CONSTANT_PATHS[ASYNC], "WARNING", _guarded_constant),
    LINE: (CONSTANT_PATHS[ASYNC], "INFO", _guarded_constant),
    ROUTE: (None, "INFO", lambda: _service_with(_CachedSession)),
    STATEMENT: (None, "INFO", lambda: _service_with(_DriverSession)),
    SQLALCHEMY: (None, "INFO", lambda: _service_with(_ConnectionSession)),
}


def measure(bench: Bench) -> Results:
    """Measure all servers in turn."""
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
    """Create `breakdown:app` on first access, as `main` does."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _, level, build = STEPS[os.environ["STEP"]]
    configure_logging(level)
    app = build()
    freeze()
    return app
