"""Compare the six operations on the service, the usual code, the floors and other servers."""

import json
import math
import shlex
import subprocess
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import URL

from benchmarks.load import Sample, median, wait_until_idle
from benchmarks.operations import OPERATIONS, READERS, Target, call, connected, create
from benchmarks.report import Bench, Results, bar_chart, number, progress, ratio, table
from benchmarks.servers import (
    Postgres,
    our_command,
    our_environment,
    plain,
    serving,
    uvicorn_command,
)
from tests.wire import wire_to

OURS, USUAL, DRIVER = "this service", "the usual code", "bare ASGI + psycopg2"
DATABASE = "the database alone"
DEF, ASYNC, BARE = "FastAPI, def, constant", "FastAPI, async def, constant", "uvicorn, constant"
CONSTANT = "a constant"
CONSTANT_PATHS = {BARE: "/", DEF: "/def", ASYNC: "/async"}
FEW, MANY = 8, 100  # connections
MANY_ROUNDS_PER_FEW = 0.6

SAMPLE = "sample"  # the database in which the statements are recorded, with the service's schema
# Values that are easy to find in a statement.
SAMPLE_ID, SAMPLE_TITLE, SAMPLE_USER = 1_234_567_890, "Sample title", 0
SAMPLES = {
    "GET one": ("GET", f"/{SAMPLE_ID}", {}),
    "list of 20": ("GET", "?limit=20", {}),
    "POST": ("POST", "", {"title": SAMPLE_TITLE, "description": "Two liters, whole"}),
    "PUT": ("PUT", f"/{SAMPLE_ID}", {"title": SAMPLE_TITLE, "status": "in_progress"}),
    "PATCH complete": ("PATCH", f"/{SAMPLE_ID}/complete", {}),
    "DELETE": ("DELETE", f"/{SAMPLE_ID}", {}),
}
# The operations in `floors.driver`, by method and path.
ROUTES = ("GET id", "GET ", "POST ", "PUT id", "PATCH id/complete", "DELETE id")
DELETED_PER_SECOND_MAX = 20_000

Measured = dict[tuple[str, str, int], list[Sample]]


def measure(bench: Bench) -> Results:
    """Measure everything in turn, in several rounds, so that all of it gets the same noise."""
    measured: Measured = defaultdict(list)
    statements = sample_statements(bench.postgres, bench.folder)
    with ExitStack() as stack:
        targets = _start(bench, stack, statements)
        floor = _Floor(bench, statements)
        for round_ in range(bench.rounds):
            for connections in (FEW, MANY):
                if connections == MANY and round_ >= math.ceil(bench.rounds * MANY_ROUNDS_PER_FEW):
                    continue
                for operation in (CONSTANT, *OPERATIONS):
                    progress(
                        f"operations: round {round_ + 1} of {bench.rounds}, "
                        f"{connections} connections, {operation}"
                    )
                    for name, target in targets.items():
                        if (name in CONSTANT_PATHS) == (operation == CONSTANT):
                            path = CONSTANT_PATHS.get(name, operation)
                            sample = target.measure(path, connections, bench.seconds)
                            measured[name, operation, connections].append(sample)
                    if operation != CONSTANT and connections == FEW:
                        measured[DATABASE, operation, connections].append(floor.measure(operation))
    medians = {key: median(samples) for key, samples in measured.items()}
    return {
        "operations-8": _table(medians, FEW),
        "operations-100": _table(medians, MANY),
        "ratios": _ratios(medians),
        "performance.svg": _chart(medians),
    }


def sample_statements(postgres: Postgres, folder: Path) -> dict[str, str]:
    """Record the statements of each operation, with placeholders for the values that vary."""
    database = postgres.database(SAMPLE)
    statements = {}
    with (
        wire_to(database) as wire,
        serving(our_command(), folder, "/ready", **our_environment(wire.url)) as server,
        connected(server) as connection,
    ):
        postgres.execute(database, f"ALTER SEQUENCE task_id_seq RESTART WITH {SAMPLE_ID}")
        create(connection, "/api/tasks", SAMPLE_USER)
        for operation, (method, path, fields) in SAMPLES.items():
            wire.statements.clear()
            call(connection, method, f"/api/tasks{path}", SAMPLE_USER, **fields)
            statements[operation] = (
                ";\n".join(wire.statements)
                .replace("%", "%%")
                .replace(str(SAMPLE_ID), "%(id)s")
                .replace(f"'{SAMPLE_TITLE}'", "%(title)s")
                .replace(f"'user-{SAMPLE_USER}'", "%(user)s")
            )
    return statements


def _start(bench: Bench, stack: ExitStack, statements: dict[str, str]) -> dict[str, Target]:
    """Start all servers, each with its own database that contains the same tasks."""
    file = bench.folder / "statements.json"
    file.write_text(json.dumps(dict(zip(ROUTES, map(statements.get, OPERATIONS), strict=True))))
    commands = {
        OURS: (our_command(), "/api/tasks", "template1"),
        USUAL: (uvicorn_command("usual:app"), "/api/tasks", "template1"),
        DRIVER: (uvicorn_command("floors:driver"), "/api/tasks", SAMPLE),
    }
    for name, path, given in bench.others:
        commands[name] = (shlex.split(given), path, "template1")
    targets = {}
    for number_, (name, (command, path, template)) in enumerate(commands.items()):
        progress(f"operations: starting {name}")
        database = bench.postgres.database(f"operations_{number_}", template)
        environment = our_environment(database, STATEMENTS=str(file))
        server = stack.enter_context(serving(command, bench.folder, "/health", **environment))
        targets[name] = Target(server, bench.postgres.cpu_seconds, bench.folder, path)
        targets[name].seed()
    for name, app in ((BARE, "floors:bare"), (DEF, "floors:fastapi"), (ASYNC, "floors:fastapi")):
        server = stack.enter_context(serving(uvicorn_command(app), bench.folder))
        targets[name] = Target(server, bench.postgres.cpu_seconds, bench.folder)
    return targets


class _Floor:
    """The statements alone, sent by pgbench."""

    def __init__(self, bench: Bench, statements: dict[str, str]) -> None:
        self._bench = bench
        self._seconds = math.ceil(bench.seconds)
        self._statements = statements
        self._database = bench.postgres.database("floor", SAMPLE)
        self._first_id = copy_tasks(bench.postgres, self._database, 20 * READERS, first_user=0)

    def measure(self, operation: str) -> Sample:
        """Run the statement of an operation for at least one second."""
        number_ = f"random(0, {20 * READERS - 1})"
        first, first_user = self._first_id, 0
        if operation == "DELETE":
            count, first_user = DELETED_PER_SECOND_MAX * self._seconds, READERS
            first = copy_tasks(self._bench.postgres, self._database, count, first_user)
            number_ = f":client_id + :n * {FEW}"
        statement = (
            self._statements[operation]
            .replace("%(id)s", ":id")
            .replace("%(title)s", "'Buy :n'")
            .replace("%(user)s", "'user-:user'")
            .replace("%%", "%")
        )
        script = self._bench.folder / "pgbench.sql"
        script.write_text(
            f"\\set number {number_}\n\\set n :n + 1\n\\set id {first} + :number\n"
            f"\\set user {first_user} + :number % {READERS}\n{statement};\n"
        )
        return self._run(script)

    def _run(self, script: Path) -> Sample:
        log = self._bench.folder / "pgbench"
        before = self._bench.postgres.cpu_seconds()
        subprocess.run(
            [
                self._bench.postgres.programs / "pgbench", "--no-vacuum", f"--client={FEW}",
                f"--time={self._seconds}", "--define=n=0", f"--file={script}",
                "--log", f"--log-prefix={log}", plain(self._database),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        wait_until_idle(self._bench.postgres.cpu_seconds)
        used = self._bench.postgres.cpu_seconds() - before
        (written,) = log.parent.glob("pgbench.[0-9]*")
        # Columns: client, transaction number, duration in us, script, time in s, and its us.
        took = sorted(int(line.split()[2]) / 1e3 for line in written.read_text().splitlines())
        written.unlink()
        if not took:  # the machine is so busy that connecting took all the time
            return self._run(script)
        p50, p95, p99 = (took[int(len(took) * share)] for share in (0.5, 0.95, 0.99))
        database_us = used / len(took) * 1e6
        return Sample(len(took) / self._seconds, p50, p95, p99, math.nan, database_us, 0)


def copy_tasks(postgres: Postgres, database: URL, count: int, first_user: int) -> int:
    """Copy a task for READERS users in turn; return the first of the consecutive ids."""
    columns = ", ".join(
        str(name)
        for (name,) in postgres.execute(
            database,
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = 'task' AND column_name NOT IN ('id', 'user_id')",
        )
    )
    postgres.execute(
        database,
        f"INSERT INTO task (user_id, {columns})"
        f" SELECT 'user-' || {first_user} + number % {READERS}, {columns}"
        f" FROM (SELECT * FROM task LIMIT 1), generate_series(0, {count - 1}) AS number",
    )
    ((last,),) = postgres.execute(database, "SELECT max(id) FROM task")
    return int(str(last)) - count + 1


def _table(medians: dict[tuple[str, str, int], Sample], connections: int) -> str:
    constant = medians[DEF, CONSTANT, connections].server_us
    header = (
        "operation", "server", "requests/s", "p50, ms", "p95, ms", "p99, ms",
        "server CPU, us", "CPU : FastAPI def", "database CPU, us", "errors",
    )  # fmt: skip
    return table(
        header,
        [
            (
                operation,
                name,
                *map(number, sample[:4]),
                number(sample.server_us),
                number(ratio(sample.server_us, constant)),
                number(sample.database_us if operation != CONSTANT else math.nan),
                str(sample.errors),
            )
            for (name, operation, measured_with), sample in sorted(
                medians.items(), key=lambda item: (CONSTANT, *OPERATIONS).index(item[0][1])
            )
            if measured_with == connections
        ],
    )


def _ratios(medians: dict[tuple[str, str, int], Sample]) -> str:
    """Compare the service with the FastAPI constants and the usual code."""
    rows = []
    for operation in OPERATIONS:
        row = [operation]
        for connections in (FEW, MANY):
            ours = medians[OURS, operation, connections]
            usual = medians[USUAL, operation, connections]
            row += [
                number(ratio(ours.server_us, medians[DEF, CONSTANT, connections].server_us)),
                number(ratio(ours.server_us, medians[ASYNC, CONSTANT, connections].server_us)),
                number(ratio(usual.server_us, ours.server_us)),
                number(ratio(ours.per_second, usual.per_second)),
            ]
        rows.append(row)
    header = ["operation"]
    for connections in (FEW, MANY):
        header += [
            f"CPU : FastAPI def, {connections}",
            f"CPU : FastAPI async def, {connections}",
            f"CPU, usual : ours, {connections}",
            f"requests/s, ours : usual, {connections}",
        ]
    return table(header, rows)


def _chart(medians: dict[tuple[str, str, int], Sample]) -> str:
    groups: dict[str, dict[str, float]] = {operation: {} for operation in OPERATIONS}
    for (name, operation, connections), sample in medians.items():
        if connections == FEW and operation != CONSTANT and name != DATABASE:
            groups[operation][name] = sample.server_us
    for bars in groups.values():
        bars[DEF] = medians[DEF, CONSTANT, FEW].server_us
    return bar_chart("Server CPU per request, microseconds (less is better)", groups)
