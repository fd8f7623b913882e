"""Telemetry with a collector and two processes. It costs nothing if it is disabled."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.actors import SECRET, bearer
from tests.e2e.server import START_LIMIT_SECONDS, Server

SECRET_TEXT = SECRET.get_secret_value()


class Collector(ThreadingHTTPServer):
    """An OTLP server over HTTP that stores what it receives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Export)
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.metrics: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Export(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    self.server.spans += scope.spans
        elif self.path == "/v1/metrics":
            for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for instruments in measured.scope_metrics:
                    self.server.metrics |= {metric.name for metric in instruments.metrics}
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def _attributes(span: Span) -> dict[str, str | int]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


def test_a_collector_gets_requests_and_statements_without_user_input(
    start: Callable[..., Server],
) -> None:
    with collector() as sink:
        server = start(
            "uv", "run", "main.py", "--port", "{port}",
            BETTER_AUTH_SECRET=SECRET_TEXT, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
        ).wait()  # fmt: skip
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        httpx2.get(
            f"{server.url}/api/tasks?q=s3cret",
            headers={**bearer("ann"), "traceparent": parent},
        )
        server.stop()

    created = [span for span in sink.spans if span.trace_id.hex() == parent[3:35]]
    (request,) = [span for span in created if span.kind == Span.SPAN_KIND_SERVER]
    (statement,) = [span for span in created if span.kind == Span.SPAN_KIND_CLIENT]
    assert (request.name, statement.name) == ("GET /api/tasks", "SELECT")
    assert request.parent_span_id.hex() == parent[36:52]
    assert statement.parent_span_id == request.span_id
    span_attributes = _attributes(request)
    assert (span_attributes["http.route"], span_attributes["http.response.status_code"]) == (
        "/api/tasks",
        200,
    )
    assert span_attributes["url.query"] == "REDACTED"
    assert _attributes(statement)["db.system.name"] == "sqlite"
    assert "http.server.request.duration" in sink.metrics
    assert "s3cret" not in str(sink.spans)


def test_a_collector_gets_nothing_that_an_assistant_writes(start: Callable[..., Server]) -> None:
    with collector() as sink:
        server = start(
            "uv", "run", "main.py", "--port", "{port}", MCP="true",
            BETTER_AUTH_SECRET=SECRET_TEXT, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
        ).wait()  # fmt: skip
        for method, name in [
            ("tools/call", "list_tasks"),
            ("tools/call", "s3cret"),
            ("s3cret", ""),
        ]:
            parameters = {"name": name, "arguments": {"q": "s3cret"}}
            message = {"jsonrpc": "2.0", "id": "s3cret", "method": method, "params": parameters}
            httpx2.post(f"{server.url}/mcp", json=message, headers=bearer("ann"))
        server.stop()

    named = [span.name for span in sink.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert named.count("POST /mcp") == 3
    assert "s3cret" not in str(sink.spans)


def test_an_unavailable_collector_does_not_delay_anything(start: Callable[..., Server]) -> None:
    server = start(
        "uv", "run", "main.py", "--port", "{port}",
        BETTER_AUTH_SECRET=SECRET_TEXT, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
    ).wait()  # fmt: skip

    for _ in range(10):
        assert httpx2.get(f"{server.url}/api/tasks", headers=bearer("ann")).status_code == 200
    server.stop()  # fails if it takes too long


def test_two_processes_share_their_metrics(start: Callable[..., Server], tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    server = start(
        "uv", "run", "main.py", "--port", "{port}", "--workers", "2",
        BETTER_AUTH_SECRET=SECRET_TEXT, PROMETHEUS_MULTIPROC_DIR=str(folder),
    ).wait()  # fmt: skip

    # Repeat until each of the two processes has accepted a connection.
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < deadline
        httpx2.get(f"{server.url}/health")
    requests = 40
    for _ in range(requests):
        httpx2.get(f"{server.url}/api/tasks", headers=bearer("ann"))

    assert {_counted(server) for _ in range(8)} == {requests}


def _counted(server: Server) -> float:
    """Return the number of list requests according to the process that responds."""
    line = r'^http_request_duration_seconds_count{.*route="/api/tasks",status="200"} (\S+)$'
    (count,) = re.findall(line, httpx2.get(f"{server.url}/metrics").text, re.MULTILINE)
    return float(count)


def test_disabled_telemetry_and_mcp_are_not_imported(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    program = (
        "import sys, main, starlette.testclient\n"
        "with starlette.testclient.TestClient(main.app) as client:\n"
        "    assert client.get('/health').status_code == 200\n"
        "print(*sorted({'metrics', 'prometheus_client', 'opentelemetry.sdk',"
        " 'opentelemetry.exporter', 'google.protobuf', 'mcp'} & sys.modules.keys()))"
    )

    ended = run("uv", "run", "python", "-c", program, BETTER_AUTH_SECRET=SECRET_TEXT)

    assert (ended.returncode, ended.stdout) == (0, "\n"), ended.stderr
