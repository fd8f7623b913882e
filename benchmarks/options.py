"""What a setting costs: our server in several environments, in turn."""

from contextlib import ExitStack

from benchmarks.comparison import FEW
from benchmarks.operations import Target, in_turn, start
from benchmarks.report import Bench, Results, number, progress, table
from benchmarks.servers import our_command

MEASURED = ("GET one", "PUT")
DEFAULTS = "the defaults"
ENVIRONMENTS: dict[str, dict[str, str]] = {
    DEFAULTS: {},
    "the defaults, again": {},  # what it differs by is noise
}


def measure(bench: Bench) -> Results:
    """Compare the processor time of a request in each environment with that in the first."""
    with ExitStack() as stack:
        targets: dict[str, Target] = {}
        for name, variables in ENVIRONMENTS.items():
            progress(f"options: starting with {name}")
            database = bench.postgres.database(f"options_{len(targets)}")
            targets[name] = start(bench, stack, our_command(), database, **variables)
        medians = in_turn(bench, "options", targets, MEASURED, FEW)
    rows = [
        (
            *(operation, name),
            *map(number, (sample.per_second, sample.p95_ms, sample.server_us)),
            f"{sample.server_us - medians[operation, DEFAULTS].server_us:+.0f}",
            str(sample.errors),
        )
        for (operation, name), sample in medians.items()
    ]
    header = (
        "operation", "with", "requests/s", "p95, ms", "server CPU, us", "more, us", "errors",
    )  # fmt: skip
    return {"options": table(header, rows)}
