"""Measure the startup time and the memory of a process."""

import statistics

from sqlalchemy import make_url

from benchmarks.comparison import MANY, OURS, USUAL
from benchmarks.operations import Target
from benchmarks.report import Bench, Results, number, progress, table
from benchmarks.servers import Server, our_command, our_environment, uvicorn_command

STARTS = 5
MIB = 2**20


def measure(bench: Bench) -> Results:
    """Start all servers several times in turn, and put each under load once."""
    sqlite = make_url(f"sqlite:///{bench.folder}/startup.db")
    postgres = bench.postgres.database("startup")
    usual = bench.postgres.database("startup_usual")
    servers = {
        f"{OURS}, SQLite": (our_command(), our_environment(sqlite)),
        f"{OURS}, PostgreSQL": (our_command(), our_environment(postgres)),
        f"{OURS}, PostgreSQL, MCP": (our_command(), our_environment(postgres, MCP="true")),
        f"{OURS}, PostgreSQL, 2 workers": (our_command(2), our_environment(postgres)),
        USUAL: (uvicorn_command("usual:app"), our_environment(usual)),
        "FastAPI alone": (uvicorn_command("floors:fastapi"), {}),
    }
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    resident: dict[str, int] = {}
    loaded: dict[str, int] = {}
    for start in range(1 + bench.rounds if bench.quick else STARTS):
        for name, (command, environment) in servers.items():
            progress(f"start-up: {name}, start {start + 1}")
            server = Server(command, bench.folder, **environment)
            try:
                # The first start creates the schema and writes bytecode.
                seconds[name].append(server.wait("/health"))
                if not loaded.get(name):
                    resident[name] = server.resident_bytes()
                    operation = "list of 20" if environment else "/def"
                    target = Target(server, bench.postgres.cpu_seconds, bench.folder)
                    target.measure(operation, MANY, bench.seconds)
                    loaded[name] = server.resident_bytes()
            finally:
                server.stop()
    rows = [
        (
            name,
            *(number(figure) for figure in (taken[0], statistics.median(taken[1:]))),
            *(number(size / MIB) for size in (resident[name], loaded[name])),
        )
        for name, taken in seconds.items()
    ]
    header = ("server", "first start, s", "later starts, s", "memory, MiB", "after load, MiB")
    return {"startup": table(header, rows)}
