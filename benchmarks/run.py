"""Run the benchmarks: `uv run benchmarks/run.py`. docs/performance.md describes them."""

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

# The line above makes these importable.
from benchmarks import (
    assistants,
    breakdown,
    changes,
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
    "changes": changes.measure,
    "assistants": assistants.measure,
    "workers": workers.measure,
    "sqlite": embedded.measure,
    "startup": startup.measure,
    "options": options.measure,
}

FULL, QUICK = (1.5, 5), (0.5, 1)  # seconds per round, number of rounds
TERMINATED = 128 + signal.SIGTERM
LIBRARIES = ("fastapi", "starlette", "pydantic", "sqlalchemy", "psycopg2-binary", "uvicorn")


def main() -> None:
    """Run the selected sections, print their tables, and write them into the documents."""
    arguments = _parse()
    require_wrk()
    # On SIGTERM, still stop the processes that this one has started.
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
    """Describe the machine and the versions of the libraries."""
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
    parser.add_argument("--quick", action="store_true", help="one short round: under 2 minutes")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; repeatable")
    parser.add_argument("--seconds", type=float, help="per round (default: 1.5, with --quick 0.5)")
    parser.add_argument("--rounds", type=int, help="report their median (default: 5, --quick 1)")
    parser.add_argument(
        "--write",
        action=argparse.BooleanOptionalAction,
        help="write the tables into docs/performance.md (the default without --quick)",
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        nargs=3,
        metavar=("NAME", "PATH", "COMMAND"),
        help="another server to compare with: the path of its tasks, and its command with {port}; "
        "it gets DATABASE_URL, BETTER_AUTH_SECRET, and HS256 tokens with the user as sub",
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
