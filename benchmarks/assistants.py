"""Measure the tools of the MCP server beside the operations that do the same."""

from collections import defaultdict
from contextlib import ExitStack

from benchmarks.comparison import FEW
from benchmarks.load import Sample, median, send
from benchmarks.operations import connected, create, request
from benchmarks.report import Bench, Results, number, progress, ratio, table
from benchmarks.servers import Server, our_command, our_environment, serving

USERS = range(20)
TASKS = 20
OPERATION = "the operation"
# The versions of the protocol before 2026-07-28 need another path through the package.
VERSIONS = ("2025-11-25", "2026-07-28")


def measure(bench: Bench) -> Results:
    """Call tools, in both forms of the protocol, in turn with the operations."""
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    environment = our_environment(bench.postgres.database("assistants"), MCP="true")
    with ExitStack() as stack:
        progress("assistants: starting")
        server = stack.enter_context(serving(our_command(), bench.folder, "/ready", **environment))
        watched = (server.cpu_seconds, bench.postgres.cpu_seconds)
        requests = _requests(server)
        for round_ in range(bench.rounds):
            progress(f"assistants: round {round_ + 1} of {bench.rounds}")
            for key, of_it in requests.items():
                sample = send(server.url, of_it, FEW, bench.seconds, watched, folder=bench.folder)
                samples[key].append(sample)
    medians = {key: median(of_key) for key, of_key in samples.items()}
    rows = [
        (
            *(tool, by),
            *map(number, (sample.per_second, sample.p95_ms, sample.server_us)),
            number(ratio(sample.server_us, medians[tool, OPERATION].server_us)),
            str(sample.errors),
        )
        for (tool, by), sample in medians.items()
    ]
    header = ("tool", "called by", "requests/s", "p95, ms", "server CPU, us", "ratio", "errors")
    return {"assistants": table(header, rows)}


def _requests(server: Server) -> dict[tuple[str, str], list[bytes]]:
    """Return the requests of each tool, after creating tasks for them."""
    tasks: list[str] = []
    with connected(server) as connection:
        for user in USERS:
            created = [create(connection, "/api/tasks", user) for _ in range(TASKS)]
            tasks.append(str(created[0]["id"]))
    complete = "/api/tasks/{}/complete"
    return {
        ("list_tasks", OPERATION): [request("GET", "/api/tasks?limit=20", user) for user in USERS],
        **{
            ("list_tasks", version): [
                _call(user, version, "list_tasks", limit=20) for user in USERS
            ]
            for version in VERSIONS
        },
        ("complete_task", OPERATION): [
            request("PATCH", complete.format(tasks[user]), user) for user in USERS
        ],
        **{
            ("complete_task", version): [
                _call(user, version, "complete_task", task_id=tasks[user]) for user in USERS
            ]
            for version in VERSIONS
        },
    }


def _call(user: int, version: str, tool: str, **arguments: object) -> bytes:
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    parameters = {"name": tool, "arguments": arguments, "_meta": meta}
    headers = (
        "Accept: application/json, text/event-stream\r\n"
        f"MCP-Protocol-Version: {version}\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"
    )
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
    return request("POST", "/mcp", user, headers, **message)
