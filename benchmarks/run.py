"""Measures the service: `uv run benchmarks/run.py`; docs/performance.md says what and how."""

import argparse
import os
import platform
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# Found through the line above.
from benchmarks import (
    breakdown,
    comparison,
    embedded,
    growth,
    options,
    round_trips,
    startup,
    workers,
)
from benchmarks.load import require_wrk
from benchmarks.report import Bench, Results, progress, write
from benchmarks.servers import postgres

SECTIONS: dict[str, Callable[[Bench], Results]] = {
    "operations": comparison.measure,
    "breakdown": breakdown.measure,
    "round-trips": round_trips.measure,
    "growth": growth.measure,
    "workers": workers.measure,
    "sqlite": embedded.measure,
    "startup": startup.measure,
    "options": options.measure,
}

FULL, QUICK = (1.5, 5), (0.5, 1)  # seconds of a round, and rounds
TERMINATED = 128 + signal.SIGTERM
LIBRARIES = ("fastapi", "starlette", "pydantic", "sqlalchemy", "psycopg2-binary", "uvicorn")


def main() -> None:
    """Run the sections that were asked for, print their tables, and write them down."""
    arguments = _parse()
    require_wrk()
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    stamp = f"{datetime.now(UTC):%Y-%m-%d}; rounds of {arguments.seconds:g} s: {arguments.rounds}."
    with postgres() as server, tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            server,
            Path(folder),
            arguments.seconds,
            arguments.rounds,
            arguments.quick,
            arguments.server,
        )
        for name in arguments.only or SECTIONS:
            measured = SECTIONS[name](bench)
            tables = {
                place: f"{text}\n\n{stamp}"
                for place, text in measured.items()
                if not place.endswith(".svg")
            }
            progress("")
            for place, text in tables.items():
                print(f"\n{place}\n\n{text}", flush=True)
            if arguments.write:
                write(measured | tables)
    if arguments.write and not arguments.only:
        write({"machine": _machine()})


def _machine() -> str:
    """Say on what all of it was run."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    gibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"Measured on {os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()})"
        f" with {gibibytes:.0f} GiB, Linux {platform.release().partition('-')[0]},\n"
        f"Python {platform.python_version()}, {versions}."
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: within 2 minutes")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; repeatable")
    parser.add_argument("--seconds", type=float, help="of each round (1.5, quick 0.5)")
    parser.add_argument("--rounds", type=int, help="whose median counts (5, quick 1)")
    parser.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        help="put the tables into docs/performance.md (done unless quick)",
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        nargs=3,
        metavar=("NAME", "PATH", "COMMAND"),
        help="another server to compare with: the path of its tasks, and the command with {port} "
        "in it; it gets DATABASE_URL, BETTER_AUTH_SECRET and HS256 tokens whose sub is the user",
    )
    arguments = parser.parse_args()
    seconds, rounds = QUICK if arguments.quick else FULL
    arguments.seconds = arguments.seconds or seconds
    arguments.rounds = arguments.rounds or rounds
    if arguments.write is None:
        arguments.write = not arguments.quick
    return arguments


if __name__ == "__main__":
    main()
