"""Measure the cost of settings: the service with different environments, in turn."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from typing_extensions import override

from benchmarks.comparison import FEW
from benchmarks.operations import Target, in_turn, start
from benchmarks.report import Bench, Results, number, progress, ratio, table
from benchmarks.servers import our_command

MEASURED = ("GET one", "PUT")
DEFAULTS = "the defaults"


def _environments(folder: Path, collector: str) -> dict[str, dict[str, str]]:
    metrics = folder / "metrics"
    metrics.mkdir()
    return {
        DEFAULTS: {},
        "the defaults, again": {},  # shows the noise
        "no line for each request": {"LOG_LEVEL": "WARNING"},
        "MCP": {"MCP": "true"},
        "metrics": {"PROMETHEUS_MULTIPROC_DIR": str(metrics)},
        "telemetry, each request": {"OTEL_EXPORTER_OTLP_ENDPOINT": collector},
        "telemetry, one in ten": {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
        },
    }


class _Sink(BaseHTTPRequestHandler):
    """Accepts telemetry like a collector, and discards it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""


@contextmanager
def _collector() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def measure(bench: Bench) -> Results:
    """Compare the CPU time per request in each environment with that in the first."""
    with ExitStack() as stack:
        targets: dict[str, Target] = {}
        environments = _environments(bench.folder, stack.enter_context(_collector()))
        for name, variables in environments.items():
            progress(f"options: starting with {name}")
            database = bench.postgres.database(f"options_{len(targets)}")
            targets[name] = start(bench, stack, our_command(), database, **variables)
        medians = in_turn(bench, "options", targets, MEASURED, FEW)
    rows = [
        (
            *(operation, name),
            *map(number, (sample.per_second, sample.p95_ms, sample.server_us)),
            number(ratio(sample.server_us, medians[operation, DEFAULTS].server_us)),
            str(sample.errors),
        )
        for (operation, name), sample in medians.items()
    ]
    header = (
        "operation", "with", "requests/s", "p95, ms", "server CPU, us", "ratio", "errors",
    )  # fmt: skip
    return {"options": table(header, rows)}
