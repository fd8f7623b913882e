"""What the tests under load and faults share: a database that can fail, and a service on it."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from settings import ROOT
from tests.actors import SECRET
from tests.e2e.conftest import checkout, environment, start
from tests.e2e.server import Server
from tests.faults.postgres import PostgreSQL, postgresql

__all__ = ["checkout", "environment", "start"]  # fixtures, the same as in tests/e2e

# Beyond it, something hangs, or the machine has much else to do.
HANG_SECONDS = 15

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")

with_one_and_two_workers = pytest.mark.parametrize("workers", [1, 2])

Serve = Callable[..., Server]
Measured = Callable[..., None]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start `main.py` as it stands here, on a database, with so many workers."""
    with ExitStack() as servers:

        def serve_one(database_url: str, workers: int = 1, **variables: str) -> Server:
            variables |= {
                "DATABASE_URL": database_url,
                "BETTER_AUTH_SECRET": SECRET.get_secret_value(),
                # The tests of a module fill one database together.
                "TASKS_PER_USER": "1000000",
            }
            command = [sys.executable, str(ROOT / "main.py"), "--port", "{port}"]
            command += ["--workers", str(workers)]
            server = Server(command, tmp_path, environment | variables)
            servers.callback(server.stop)
            return server.wait("/ready")

        yield serve_one


@pytest.fixture
def measured() -> Callable[..., None]:
    """Print what was measured, and keep it where benchmarks/reliability.py asks for it."""

    def note(fault: str, workers: int, **figures: object) -> None:
        text = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        print(f"{fault}, {workers} process(es): {text}")
        if path := os.environ.get("RELIABILITY_FIGURES"):  # pragma: no cover  # set by the command
            with Path(path).open("a") as file:
                row = {"fault": fault, "workers": workers, "figures": text}
                file.write(json.dumps(row) + "\n")

    return note
