"""Compare one process with two, with many clients."""

from contextlib import ExitStack

from benchmarks.comparison import MANY
from benchmarks.operations import OPERATIONS, in_turn, start
from benchmarks.report import Bench, Results, number, progress, ratio, table
from benchmarks.servers import our_command

WORKERS = {"1 worker": 1, "2 workers": 2}


def measure(bench: Bench) -> Results:
    """Measure the operations on both in turn."""
    with ExitStack() as stack:
        targets = {}
        for name, workers in WORKERS.items():
            progress(f"workers: starting {name}")
            database = bench.postgres.database(f"workers_{workers}")
            targets[name] = start(bench, stack, our_command(workers), database)
        medians = in_turn(bench, "workers", targets, OPERATIONS, MANY)
    rows = []
    for operation in OPERATIONS:
        one, two = (medians[operation, name] for name in WORKERS)
        figures = (
            *(one.per_second, two.per_second, ratio(two.per_second, one.per_second)),
            *(one.p95_ms, two.p95_ms, two.server_us, two.database_us),
        )
        rows.append((operation, *map(number, figures), str(one.errors + two.errors)))
    header = (
        "operation", "requests/s, 1", "requests/s, 2", "2 : 1", "p95, ms, 1", "p95, ms, 2",
        "server CPU, us, 2", "database CPU, us, 2", "errors",
    )  # fmt: skip
    return {"workers": table(header, rows)}
