"""Put a server under load with wrk, and measure the CPU time of the server and the database."""

import json
import math
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

LUA = Path(__file__).with_name("load.lua")
LATE_SECONDS = 30
SETTLED_WITHIN_SECONDS = 5


class Sample(NamedTuple):
    """The results of one round of load."""

    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    server_us: float  # CPU time per request
    database_us: float
    errors: int


def median(samples: Sequence[Sample]) -> Sample:
    """Return the median of each figure over the rounds, and the sum of the errors."""
    middle = Sample(*map(statistics.median, zip(*samples, strict=True)))
    return middle._replace(errors=sum(sample.errors for sample in samples))


def require_wrk() -> None:
    """Exit with a message if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("Install wrk: apt-get install wrk")


def send(  # noqa: PLR0913  # all of them differ between the callers
    url: str,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    watched: tuple[Callable[[], float], Callable[[], float]],
    *,
    folder: Path,
    created: Path | None = None,
) -> Sample:
    """Send the requests repeatedly for some seconds.

    `watched` returns the CPU seconds of the server and of the database. `created` is a file that
    gets a line for each task in a response: its id, and the number in its title.
    """
    script = folder / "requests"
    script.write_bytes(b"\1".join(requests))
    before = [cpu_seconds() for cpu_seconds in watched]
    # wrk accepts only whole seconds. When interrupted, it prints its summary and exits.
    limit = f"-d{math.ceil(seconds) + LATE_SECONDS}s"
    files = [script] if created is None else [script, created]
    wrk = subprocess.Popen(
        ["wrk", "-t1", f"-c{connections}", limit, "--timeout=30s", "-s", LUA, url, "--", *files],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(seconds)
    finally:
        wrk.send_signal(signal.SIGINT)
    seen = json.loads(wrk.communicate(timeout=60)[0].splitlines()[-1])
    # The last requests are still being processed, and their CPU time counts too.
    wait_until_idle(watched[0])
    server, database = (
        (cpu_seconds() - began) / seen["sent"] * 1e6
        for cpu_seconds, began in zip(watched, before, strict=True)
    )
    return Sample(
        seen["completed"] / seen["seconds"],
        seen["p50_ms"],
        seen["p95_ms"],
        seen["p99_ms"],
        server,
        database,
        seen["errors"],
    )


def wait_until_idle(cpu_seconds: Callable[[], float]) -> None:
    """Wait until no more CPU time is used, but at most SETTLED_WITHIN_SECONDS."""
    deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
    used = -1.0
    while used < (used := cpu_seconds()) and time.monotonic() < deadline:
        time.sleep(0.1)
