"""Hundreds of clients in one thread, and their results."""

import asyncio
import json
import math
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.actors import bearer

CLIENT_TIMEOUT_SECONDS = 30


@dataclass(slots=True)
class Response:
    status: int  # 0 if the connection was closed without a response
    began: float
    seconds: float
    head: bytes = b""
    body: bytes = b""

    @property
    def task(self) -> dict[str, object]:
        task: dict[str, object] = json.loads(self.body)
        return task


@cache
def _authorization(user: str) -> str:
    return bearer(user, minutes=60)["Authorization"]


class Client:
    """A keep-alive connection that sends one request after the other."""

    def __init__(self, port: int, user: str = "ann") -> None:
        self._port = port
        self._authorization = _authorization(user)
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: object = None) -> Response:
        began = time.monotonic()
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_SECONDS):
                status, head, content = await self._exchange(method, path, body)
        except (OSError, EOFError, TimeoutError):
            self.close()
            return Response(0, began, time.monotonic() - began)
        if b"connection: close" in head:
            self.close()
        return Response(status, began, time.monotonic() - began, head, content)

    async def _exchange(self, method: str, path: str, body: object) -> tuple[int, bytes, bytes]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        content = b"" if body is None else json.dumps(body).encode()
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {self._authorization}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            return int(head[9:12]), head, await self._reader.readuntil(b"0\r\n\r\n")
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(head[9:12]), head, await self._reader.readexactly(int(length or b"0"))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@dataclass
class Results:
    """The responses that a number of clients received."""

    responses: list[Response] = field(default_factory=list)

    @property
    def codes(self) -> dict[int, int]:
        return dict(sorted(Counter(response.status for response in self.responses).items()))

    @property
    def acknowledged(self) -> set[object]:
        """The ids of the tasks that were created according to the responses."""
        return {response.task["id"] for response in self.responses if response.status == 201}

    def first_success(self, moment: float) -> float:
        """Return the seconds from the moment to the next success."""
        ends = (a.began + a.seconds for a in self.responses if 200 <= a.status < 300)
        return min(end for end in ends if end > moment) - moment

    def sent(self, since: float, until: float = math.inf) -> "Results":
        """Return those of the requests that were sent in this time."""
        return Results([a for a in self.responses if since <= a.began < until])

    @property
    def slowest(self) -> float:
        return max(response.seconds for response in self.responses)

    def percentile(self, percent: int, *statuses: int) -> float:
        """Return a percentile in milliseconds, of the responses with these codes or of all."""
        times = sorted(a.seconds for a in self.responses if not statuses or a.status in statuses)
        return times[min(len(times) - 1, len(times) * percent // 100)] * 1000 if times else 0.0


Send = Callable[[Client, int, int], Awaitable[Response]]


async def create(client: Client, number: int, turn: int) -> Response:
    return await client.request("POST", "/api/tasks", {"title": f"{number}-{turn}"})


def get(path: str) -> Send:
    async def send(client: Client, _: int, __: int) -> Response:
        return await client.request("GET", path)

    return send


@asynccontextmanager
async def load(
    port: int, clients: int, send: Send = create, *, pause_seconds: float = 0
) -> AsyncIterator[Results]:
    """Run a number of clients until the block ends, each sending its next request at once."""
    results = Results()
    going = True

    async def go(number: int) -> None:
        client = Client(port)
        turn = 0
        while going:
            response = await send(client, number, turn)
            results.responses.append(response)
            turn += 1
            await asyncio.sleep(pause_seconds if response.status else 0.05)
        client.close()

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(go(number))
        try:
            yield results
        finally:
            going = False


async def until(port: int, status: int = 201, send: Send = create) -> float:
    """Repeat the request until it gets this status; return how many seconds that took."""
    began = time.monotonic()
    client = Client(port)
    turn = 0
    while (await send(client, -1, turn)).status != status:
        assert time.monotonic() - began < CLIENT_TIMEOUT_SECONDS
        turn += 1
        await asyncio.sleep(0.02)
    client.close()
    return time.monotonic() - began


def requests_of(
    users: int, port: int, path: str, *, pause_seconds: float, seconds: int, folder: Path
) -> Results:
    """Send requests with wrk, as users who each pause for about this long between requests.

    Many users with pauses are an open load: their requests arrive however slowly the server
    responds. wrk uses little CPU time, which the server needs. The first second does not count,
    because clients connect and the server adapts to the load.
    """
    responses = folder / "answers"
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {_authorization('ann')}\r\n"
    subprocess.run(
        [
            "wrk", "-t1", f"-c{users}", f"-d{seconds + 1}s", "--timeout=30s",
            "-s", Path(__file__).with_name("users.lua"), f"http://127.0.0.1:{port}",
            "--", str(pause_seconds * 1000), head, "1", responses,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    # wrk may stop while it writes the last line.
    lines = (line.split() for line in responses.read_text().splitlines()[:-1])
    return Results([Response(int(status), 0, int(took) / 1e6) for status, took in lines])
