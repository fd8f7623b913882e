"""The six operations, as requests of many users."""

import http.client
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import URL

from benchmarks.load import Sample, median, send
from benchmarks.report import Bench, progress
from benchmarks.servers import SECRET, Server, our_environment, serving
from main import sign

OPERATIONS = ("GET one", "list of 20", "POST", "PUT", "PATCH complete", "DELETE")
READERS = 50  # users with tasks that stay
WRITERS = 50  # users whose tasks are created and deleted
TASKS_OF_A_READER = 20
SEEDING_THREADS = 8
DELETABLE_PER_CONNECTION = 3
REFILL_SECONDS = 2  # if rounds are too short to create enough tasks
DESCRIPTION = "Two liters, whole, and look at the date before you take it from the shelf"
TOKEN_MINUTES = 600

TOKENS = [
    sign(SecretStr(SECRET), f"user-{number}", TOKEN_MINUTES) for number in range(READERS + WRITERS)
]


def request(method: str, path: str, user: int, /, headers: str = "", **fields: object) -> bytes:
    """Return the bytes of a request, with more headers. The fields, if any, are its JSON body."""
    body = json.dumps(fields) if fields else ""
    content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {TOKENS[user]}\r\n{headers}{content}\r\n{body}"
    ).encode()


class Target:
    """A server under load, and its tasks."""

    def __init__(
        self,
        server: Server,
        database_cpu_seconds: Callable[[], float],
        folder: Path,
        path: str = "/api/tasks",
    ) -> None:
        self._server = server
        self._watched = (server.cpu_seconds, database_cpu_seconds)
        self._folder = folder
        self._path = path
        self._created = folder / f"{server.url.rpartition(':')[2]}.created"
        self.tasks: list[tuple[str, int]] = []

    def seed(self) -> None:
        """Create each reader's tasks through the API."""
        with ThreadPoolExecutor(SEEDING_THREADS) as pool:
            self.tasks = [task for tasks in pool.map(self._seed, range(READERS)) for task in tasks]

    def _seed(self, user: int) -> list[tuple[str, int]]:
        with connected(self._server) as connection:
            tasks = [create(connection, self._path, user) for _ in range(TASKS_OF_A_READER)]
        return [(str(task["id"]), user) for task in tasks]

    def measure(self, operation: str, connections: int, seconds: float) -> Sample:
        """Run an operation for some seconds.

        DELETE deletes the tasks that POST has created. It runs for a third of the time, so that
        there are enough of them.
        """
        if operation == "DELETE":
            while len(self._deletable()) < DELETABLE_PER_CONNECTION * connections:
                self.measure("POST", connections, max(seconds, REFILL_SECONDS))
        sample = send(
            self._server.url,
            self._requests(operation),
            connections,
            seconds / 3 if operation == "DELETE" else seconds,
            self._watched,
            folder=self._folder,
            created=self._created if operation == "POST" else None,
        )
        if sample.per_second:
            return sample
        return self.measure(operation, connections, seconds * 2)  # too short for a response

    def _requests(self, operation: str) -> list[bytes]:
        """Return the requests of an operation, or one for a path if it is not an operation."""
        path = self._path
        match operation:
            case "GET one":
                requests = [request("GET", f"{path}/{id_}", user) for id_, user in self.tasks]
            case "list of 20":
                requests = [request("GET", f"{path}?limit=20", user) for user in range(READERS)]
            case "POST":
                requests = [
                    # load.lua reads the user's number from the title.
                    request("POST", path, user, title=f"Buy milk {user}", description=DESCRIPTION)
                    for user in range(READERS, READERS + WRITERS)
                ]
            case "PUT":
                requests = [
                    # Alternate between titles, so that every request changes something.
                    request("PUT", f"{path}/{id_}", user, title=title, status="in_progress")
                    for title in ("Buy bread", "Buy butter")
                    for id_, user in self.tasks
                ]
            case "PATCH complete":
                requests = [
                    request("PATCH", f"{path}/{id_}/complete", user) for id_, user in self.tasks
                ]
            case "DELETE":
                requests = [
                    request("DELETE", f"{path}/{id_}", int(user)) for id_, user in self._deletable()
                ]
                self._created.unlink()
            case constant:
                requests = [request("GET", constant, 0)]
        return requests

    def _deletable(self) -> list[list[str]]:
        if not self._created.exists():
            return []
        return [line.split() for line in self._created.read_text().splitlines()]


def start(
    bench: Bench,
    stack: ExitStack,
    command: list[str],
    database: URL,
    seeded: Target | None = None,
    /,
    **variables: str,
) -> Target:
    """Start a server that runs until the stack is closed, and create its tasks.

    With `seeded`, the database already contains the tasks of that target.
    """
    environment = our_environment(database, **variables)
    server = stack.enter_context(serving(command, bench.folder, "/health", **environment))
    target = Target(server, bench.postgres.cpu_seconds, bench.folder)
    if seeded is None:
        target.seed()
    else:
        target.tasks = seeded.tasks
    return target


def in_turn(
    bench: Bench,
    section: str,
    targets: dict[str, Target],
    operations: Sequence[str],
    connections: int,
) -> dict[tuple[str, str], Sample]:
    """Run each operation on all servers in turn, in rounds, so that all get the same noise.

    Returns the medians by operation and server.
    """
    samples = defaultdict(list)
    for round_ in range(bench.rounds):
        for operation in operations:
            progress(f"{section}: round {round_ + 1} of {bench.rounds}, {operation}")
            for name, target in targets.items():
                sample = target.measure(operation, connections, bench.seconds)
                samples[operation, name].append(sample)
    return {key: median(of_key) for key, of_key in samples.items()}


@contextmanager
def connected(server: Server) -> Iterator[http.client.HTTPConnection]:
    """Open a connection to the server."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def create(connection: http.client.HTTPConnection, path: str, user: int) -> dict[str, object]:
    """Create a task; return the response."""
    return call(connection, "POST", path, user, title=f"Buy milk {user}", description=DESCRIPTION)


def call(
    connection: http.client.HTTPConnection, method: str, path: str, user: int, **fields: str
) -> dict[str, object]:
    """Send one request; return the task of the response."""
    headers = {"Authorization": f"Bearer {TOKENS[user]}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(fields) if fields else None, headers)
    response = connection.getresponse()
    content = response.read()
    if response.status >= http.client.BAD_REQUEST:
        raise SystemExit(f"{method} {path} returned {response.status}: {content.decode()}")
    answer = json.loads(content or "{}")
    return answer if isinstance(answer, dict) else {}
