"""Real processes, each on a free port. They are stopped by their own pid."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx2

START_LIMIT_SECONDS = 30
STOP_LIMIT_SECONDS = 15


class Server:
    """A process of `main.py` or another command that serves the app, with its log."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        environment: dict[str, str],
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.log = folder / f"{self.port}.log"
        self._command = [part.format(port=self.port) for part in command]
        self._folder = folder
        self._environment = environment
        self.start()

    def start(self) -> "Server":
        """Start the process, also again after it was stopped."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, path: str = "/health") -> "Server":
        """Wait until it responds, or fail with its log."""
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self._responds(path):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return self

    def _responds(self, path: str) -> bool:
        try:
            return httpx2.get(self.url + path).status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> int:
        """Stop it with SIGTERM, as a supervisor does, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)  # does nothing if it has exited
        try:
            return self.process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:  # pragma: no cover  # only if a test fails
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
