"""Fixtures for tests of load and faults: a database that can fail, and the service."""

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

__all__ = ["checkout", "environment", "start"]  # fixtures of tests/e2e

# A longer response time means that something hangs, or that the machine is busy.
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
    """Start `main.py` with a database and a number of workers."""
    with ExitStack() as servers:

        def serve_one(database_url: str, workers: int = 1, **variables: str) -> Server:
            variables |= {
                "DATABASE_URL": database_url,
                "BETTER_AUTH_SECRET": SECRET.get_secret_value(),
                # The tests of a module share a database.
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
    """Print the figures, and write them to the file of benchmarks/reliability.py, if set."""

    def note(fault: str, workers: int, **figures: object) -> None:
        text = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        print(f"{fault}, {workers} process(es): {text}")
        if path := os.environ.get(
            "RELIABILITY_FIGURES"
        ):  # pragma: no cover  # set by the benchmark
            with Path(path).open("a") as file:
                row = {"fault": fault, "workers": workers, "figures": text}
                file.write(json.dumps(row) + "\n")

    return note
