"""Real processes, each on a port that the system chose, and each ended by its own pid."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from settings import ROOT, Settings
from tests.actors import SECRET

START_LIMIT_SECONDS = 30
STOP_LIMIT_SECONDS = 15
LIMIT_MILLISECONDS = 15_000

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# Chromium looks for its vendor's servers at every start.
LOOPBACK_ONLY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

needs_node = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="Node.js with npm is not installed"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Server:
    """`main.py` or another command that serves the app, and what it logs."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        environment: dict[str, str],
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.log = folder / f"{self.port}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [part.format(port=self.port) for part in command],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, path: str = "/health") -> "Server":
        """Wait until it answers, or fail with its log."""
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self._answers(path):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return self

    def _answers(self, path: str) -> bool:
        try:
            return httpx2.get(self.url + path).status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> int:
        """Ask it to end, as a supervisor does, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)  # which does nothing where it has ended
        try:
            return self.process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:  # pragma: no cover  # only where a test fails
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what git has or would add, as a fresh clone is."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    folder = tmp_path / "todo-backend"
    for name in listed.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment without settings; `uv run` uses the tests' own packages."""
    # Without cached bytecode each start would compile all libraries anew.
    unwanted = {name.upper() for name in Settings.model_fields} | {"PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return kept | {"UV_PROJECT_ENVIRONMENT": sys.prefix, "UV_NO_SYNC": "1"}


@pytest.fixture
def start(checkout: Path, environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start a server in the checkout; all are stopped in the end."""
    with ExitStack() as servers:  # which stops the others too where one does not end

        def start_one(*command: str, port: int | None = None, **variables: str) -> Server:
            server = Server(list(command), checkout, environment | variables, port)
            servers.callback(server.stop)
            return server

        yield start_one


@pytest.fixture
def serve(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start `main.py` as it stands here, on a database, with so many workers."""
    with ExitStack() as servers:

        def serve_one(database_url: str, workers: int = 1, **variables: str) -> Server:
            secret = SECRET.get_secret_value()
            variables |= {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": secret}
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


@pytest.fixture
def run(
    checkout: Path, environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in the checkout to its end."""

    def run_one(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=checkout,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run_one


@pytest.fixture(scope="session")
def frontend(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A copy of examples/frontend, built once for all workers of a run."""
    own = tmp_path_factory.getbasetemp()
    root = (own if worker_id == "master" else own.parent) / "todo-frontend"
    folder = root / "examples" / "frontend"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "dist").exists():  # pragma: no branch  # another worker may have built it
            for name in ("examples/frontend", "docs/contracts"):
                made = shutil.ignore_patterns("node_modules", "dist", "contract.d.ts")
                shutil.copytree(ROOT / name, root / name, ignore=made, dirs_exist_ok=True)
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)
            subprocess.run(["npm", "run", "build"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the session: while it is open, this thread has a running event loop, which tests
    # that start their own would trip over.
    expect.set_options(timeout=LIMIT_MILLISECONDS)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=[LOOPBACK_ONLY]) as browser,
    ):
        yield browser
