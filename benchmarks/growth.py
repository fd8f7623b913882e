"""Measure how the cost grows with the size of the table and with the number of a user's tasks."""

import re
from collections import defaultdict
from contextlib import ExitStack
from math import nan
from urllib.parse import parse_qs, quote, urlsplit

from sqlalchemy import URL

from benchmarks.load import Sample, median, send
from benchmarks.operations import TOKENS, connected, request
from benchmarks.report import Bench, Results, number, progress, ratio, table
from benchmarks.servers import Postgres, Server, our_command, our_environment, serving

SMALL, LARGE, LARGE_QUICK = 1_000, 5_000_000, 200_000  # rows
FEW_USERS, FEW_TASKS = 50, 10  # user-0 to user-49 have ten tasks each, spread over the table
MANY_USER = 50  # user-50 has every fiftieth row of the large table
CONNECTIONS = 4
FIRST_PAGE = "first page"
PAGE = FEW_TASKS  # so that the first page of every user has the same size
WALKED_PAGE = 100  # the maximum page size
NAMED_MAX = 500  # how many tasks GET and PUT use

# SQL expressions for the columns, as far as the table has them.
VALUES = {
    "user_id": "owner",
    "title": "title",
    "description": "'Two liters, whole, and look at the date before you take it'",
    "status": "(ARRAY['pending', 'in_progress', 'completed'])[1 + number % 3]",
    "created_at": "at",
    "updated_at": "at",
    "version": "1",
    "title_folded": "lower(title)",
    "description_folded": "'two liters, whole, and look at the date before you take it'",
}


def measure(bench: Bench) -> Results:
    """Measure a small and a large table, the latter with users of few and of many tasks."""
    rows = LARGE_QUICK if bench.quick else LARGE
    deep_page = rows // MANY_USER // PAGE // 10
    with ExitStack() as stack:
        loads: dict[str, tuple[Server, dict[str, list[bytes]]]] = {}
        for size in (SMALL, rows):
            progress(f"growth: filling {size:,} rows")
            database = bench.postgres.database(f"growth_{size}")
            environment = our_environment(database)
            server = stack.enter_context(
                serving(our_command(), bench.folder, "/ready", **environment)
            )
            _fill(bench.postgres, database, size)
            users = list(range(FEW_USERS))
            named = _named(bench.postgres, database, users)
            loads[f"{size:,} rows"] = (server, _requests(users, named))
        named = _named(bench.postgres, database, [MANY_USER])
        requests = _requests([MANY_USER], named) | _deep(server, deep_page)
        loads[f"{rows // MANY_USER:,} tasks"] = (server, requests)
        samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        for round_ in range(bench.rounds):
            for operation in requests:
                progress(f"growth: round {round_ + 1} of {bench.rounds}, {operation}")
                for name, (target, by_operation) in loads.items():
                    if operation in by_operation:
                        watched = (target.cpu_seconds, bench.postgres.cpu_seconds)
                        samples[operation, name].append(
                            send(
                                target.url, by_operation[operation], CONNECTIONS, bench.seconds,
                                watched, folder=bench.folder,
                            )
                        )  # fmt: skip
    medians = {key: median(of_key) for key, of_key in samples.items()}
    return {"growth": _table(medians, list(requests), list(loads))}


def _fill(postgres: Postgres, database: URL, rows: int) -> None:
    """Fill the table with SQL, with each user's tasks spread over it."""
    present = postgres.execute(
        database, "SELECT column_name FROM information_schema.columns WHERE table_name = 'task'"
    )
    columns = [name for (name,) in present if name in VALUES]
    step = rows // (FEW_USERS * FEW_TASKS)
    many = f"WHEN number % {MANY_USER} = 1 THEN 'user-{MANY_USER}'" if rows > SMALL else ""
    postgres.execute(
        database,
        f"""
        INSERT INTO task ({", ".join(map(str, columns))})
        SELECT {", ".join(VALUES[str(name)] for name in columns)}
        FROM (
            SELECT
                number,
                CASE WHEN number % {step} = 0 THEN 'user-' || number / {step} % {FEW_USERS} {many}
                    ELSE 'other-' || number % {rows // 100} END AS owner,
                'Task ' || number || CASE number % 101 WHEN 0 THEN ' needle' ELSE '' END AS title,
                now() - make_interval(secs => {rows} - number) AS at
            FROM generate_series(0, {rows - 1}) AS number
        )
        """,
    )
    postgres.execute(database, "VACUUM ANALYZE task")
    postgres.execute(database, "CHECKPOINT")


def _named(postgres: Postgres, database: URL, users: list[int]) -> list[tuple[object, ...]]:
    """Return the ids and users of some of the users' tasks, from all over the table."""
    names = ", ".join(f"'user-{user}'" for user in users)
    return postgres.execute(
        database,
        "SELECT id, substr(user_id, 6)::int FROM task"
        f" WHERE user_id IN ({names}) ORDER BY hashint8(id) LIMIT {NAMED_MAX}",
    )


def _requests(users: list[int], named: list[tuple[object, ...]]) -> dict[str, list[bytes]]:
    def of_users(query: str) -> list[bytes]:
        return [request("GET", f"/api/tasks?limit={PAGE}{query}", user) for user in users]

    return {
        "GET one": [request("GET", f"/api/tasks/{id_}", int(str(user))) for id_, user in named],
        "PUT": [
            request("PUT", f"/api/tasks/{id_}", int(str(user)), title=title)
            for title in ("Buy bread", "Buy butter")
            for id_, user in named
        ],
        FIRST_PAGE: of_users("&total=false"),
        "first page, with the total": of_users(""),
        "search": of_users("&q=needle&total=false"),
        "search, with the total": of_users("&q=needle"),
        "search that finds nothing": of_users("&q=nowhere&total=false"),
    }


def _deep(server: Server, page: int) -> dict[str, list[bytes]]:
    """Return requests for a page that only a user with many tasks has."""
    start = f"/api/tasks?limit={PAGE}&total=false"
    offset = f"{start}&offset={(page - 1) * PAGE}"
    deep = {f"page {page:,} by offset": [request("GET", offset, MANY_USER)]}
    if cursor := _cursor(server, (page - 1) * PAGE):
        path = f"{start}&cursor={quote(cursor)}"
        deep[f"page {page:,} by cursor"] = [request("GET", path, MANY_USER)]
    return deep


def _cursor(server: Server, tasks: int) -> str | None:
    """Follow the links over a number of tasks; return the cursor after them."""
    headers = {"Authorization": f"Bearer {TOKENS[MANY_USER]}"}
    cursor = None
    with connected(server) as connection:
        while tasks > 0:
            size = tasks % WALKED_PAGE or WALKED_PAGE
            path = f"/api/tasks?limit={size}&total=false"
            connection.request(
                "GET", path + (f"&cursor={quote(cursor)}" if cursor else ""), headers=headers
            )
            response = connection.getresponse()
            response.read()
            following = re.search(r'<([^>]*)>; *rel="?next', response.headers.get("Link", ""))
            if following is None:
                return None
            (cursor,) = parse_qs(urlsplit(following[1]).query)["cursor"]
            tasks -= size
    return cursor


def _table(medians: dict[tuple[str, str], Sample], operations: list[str], loads: list[str]) -> str:
    nothing = Sample(nan, nan, nan, nan, nan, nan, 0)
    first = medians[FIRST_PAGE, loads[-1]]
    rows = []
    for operation in operations:
        small, large, many = (medians.get((operation, name), nothing) for name in loads)
        figures = (
            *(small.p50_ms, large.p50_ms, many.p50_ms),
            *(ratio(large.p50_ms, small.p50_ms), ratio(many.p50_ms, large.p50_ms)),
            ratio(many.p50_ms, first.p50_ms) if operation.startswith("page ") else nan,
            *(small.database_us, large.database_us, many.database_us),
        )
        errors = small.errors + large.errors + many.errors
        rows.append((operation, *map(number, figures), str(errors)))
    small_name, large_name, many_name = loads
    header = (
        "operation",
        *(f"p50, ms: {name}" for name in loads),
        f"{large_name} : {small_name}",
        f"{many_name} : {FEW_TASKS}",
        f"page : {FIRST_PAGE}",
        *(f"database CPU, us: {name}" for name in loads),
        "errors",
    )
    return table(header, rows)
