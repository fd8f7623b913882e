"""Measure requests for changes, of users with few and with many tasks, beside reading one task."""

from collections import defaultdict
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.parse import quote

from benchmarks.comparison import FEW
from benchmarks.load import Sample, median, send
from benchmarks.operations import call, connected, create, request
from benchmarks.report import Bench, Results, number, progress, ratio, table
from benchmarks.servers import Server, our_command, our_environment, serving

USERS = 20
FEW_TASKS, MANY_TASKS, MANY_TASKS_QUICK = 20, 100_000, 10_000
CHANGES = 10
GET, NOTHING, PAGE = "GET one", "no changes", f"{CHANGES} changes"


def measure(bench: Bench) -> Results:
    """Measure users with few tasks and one user with many, on one database."""
    many = MANY_TASKS_QUICK if bench.quick else MANY_TASKS
    users = {f"{FEW_TASKS} tasks": range(USERS), f"{many:,} tasks": range(USERS, USERS + 1)}
    database = bench.postgres.database("changes")
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    with ExitStack() as stack:
        progress("changes: starting")
        server = stack.enter_context(
            serving(our_command(), bench.folder, "/ready", **our_environment(database))
        )
        owner = f"CASE WHEN number < {many} THEN {USERS} ELSE number % {USERS} END"
        bench.postgres.execute(
            database,
            f"""
            INSERT INTO task (user_id, title, status, created_at, updated_at)
            SELECT 'user-' || {owner}, 'Buy milk', 'pending', now(), now()
            FROM generate_series(0, {many + USERS * FEW_TASKS - 1}) AS number
            """,
        )
        requests = {name: _requests(server, of_them) for name, of_them in users.items()}
        bench.postgres.execute(database, "VACUUM ANALYZE task")
        bench.postgres.execute(database, "CHECKPOINT")  # which would otherwise run meanwhile
        watched = (server.cpu_seconds, bench.postgres.cpu_seconds)
        for round_ in range(bench.rounds):
            progress(f"changes: round {round_ + 1} of {bench.rounds}")
            for name, by_operation in requests.items():
                for operation, of_it in by_operation.items():
                    sample = send(
                        server.url, of_it, FEW, bench.seconds, watched, folder=bench.folder
                    )
                    samples[operation, name].append(sample)
    return {"changes": _table({key: median(of_key) for key, of_key in samples.items()}, *users)}


def _requests(server: Server, users: range) -> dict[str, list[bytes]]:
    """Change some tasks of each user, and return requests for these changes and for none."""
    requests: dict[str, list[bytes]] = {GET: [], NOTHING: [], PAGE: []}
    with connected(server) as connection:
        for user in users:
            before = _follow(connection, user, "")
            tasks = [create(connection, "/api/tasks", user)["id"] for _ in range(CHANGES)]
            after = _follow(connection, user, before)
            requests[GET].append(request("GET", f"/api/tasks/{tasks[0]}", user))
            requests[PAGE].append(request("GET", _path(before), user))
            requests[NOTHING].append(request("GET", _path(after), user))
    return requests


def _follow(connection: HTTPConnection, user: int, since: str) -> str:
    """Ask until there are no more changes, and return the last `next`."""
    more = True
    while more:
        changes = call(connection, "GET", _path(since), user)
        since, more = str(changes["next"]), bool(changes["more"])
    return since


def _path(since: str) -> str:
    return "/api/tasks/changes?limit=500" + (f"&since={quote(since)}" if since else "")


def _table(medians: dict[tuple[str, str], Sample], few: str, many: str) -> str:
    get = medians[GET, few]
    rows = []
    for operation in (GET, NOTHING, PAGE):
        one, other = medians[operation, few], medians[operation, many]
        figures = (
            *(one.p50_ms, other.p50_ms, ratio(other.p50_ms, one.p50_ms)),
            *(one.server_us, ratio(one.server_us, get.server_us)),
            *(one.database_us, ratio(one.database_us, get.database_us)),
        )
        rows.append((operation, *map(number, figures), str(one.errors + other.errors)))
    header = (
        *("request", f"p50, ms: {few}", f"p50, ms: {many}", f"{many} : {few}"),
        *("server CPU, us", f": {GET}", "database CPU, us", f": {GET}", "errors"),
    )
    return table(header, rows)
