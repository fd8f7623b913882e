"""Measures the service: `uv run benchmarks/run.py`; docs/performance.md says what and how."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

# Found through the line above.
from benchmarks import comparison, embedded, growth, options, round_trips, startup, workers
from benchmarks.load import require_wrk
from benchmarks.report import Bench, Results, progress, write
from benchmarks.servers import postgres

SECTIONS: dict[str, Callable[[Bench], Results]] = {
    "operations": comparison.measure,
    "round-trips": round_trips.measure,
    "growth": growth.measure,
    "workers": workers.measure,
    "sqlite": embedded.measure,
    "startup": startup.measure,
    "options": options.measure,
}


def main() -> None:
    """Run the sections that were asked for, print their tables, and write them down."""
    arguments = _parse()
    require_wrk()
    results: Results = {}
    with postgres() as server, tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            server,
            Path(folder),
            arguments.seconds or (0.5 if arguments.quick else 2),
            arguments.rounds or (1 if arguments.quick else 5),
            arguments.quick,
            arguments.server,
        )
        for name in arguments.only or SECTIONS:
            results |= SECTIONS[name](bench)
    progress("")
    for name, text in results.items():
        if not name.endswith(".svg"):
            print(f"\n{name}\n\n{text}")
    if arguments.write:
        write(results)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: within 2 minutes")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; repeatable")
    parser.add_argument("--seconds", type=float, help="of each round (2, quick 0.5)")
    parser.add_argument("--rounds", type=int, help="of each figure, of which the median counts")
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
    if arguments.write is None:
        arguments.write = not arguments.quick
    return arguments


if __name__ == "__main__":
    main()
