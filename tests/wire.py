"""A proxy to PostgreSQL that records statements and can cut or freeze connections."""

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

from sqlalchemy import URL


class Wire(socketserver.ThreadingTCPServer):
    """Forwards bytes between clients and a server, and parses the clients' messages.

    Format: https://www.postgresql.org/docs/current/protocol-message-formats.html
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, database: URL) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self._database = database
        self.statements: list[str] = []
        self.open: set[socket.socket] = set()
        self.clients: set[socket.socket] = set()
        self.connections = 0  # in total, including closed ones
        self.refusing = False
        self._flowing = threading.Event()
        self._flowing.set()

    @property
    def url(self) -> URL:
        """The URL of the database through this proxy."""
        return self._database.set(
            host="127.0.0.1", port=self.server_address[1], query={"sslmode": "disable"}
        )

    def connect(self) -> socket.socket:
        """Connect to the server directly."""
        folder = self._database.query.get("host")
        if folder is None:  # pragma: no cover  # only with TEST_DATABASE_URL
            return socket.create_connection(
                (self._database.host or "localhost", self._database.port or 5432)
            )
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{folder}/.s.PGSQL.{self._database.port or 5432}")
        return server

    def freeze(self) -> None:
        """Keep connections open and accept new ones, but forward nothing."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def wait_while_frozen(self) -> None:
        self._flowing.wait()

    def notify(self) -> None:
        """Send an unsolicited notice, as a server may at any time."""
        fields = b"SNOTICE\0VNOTICE\0C00000\0Mnothing of importance\0\0"
        for connection in self.clients:
            connection.sendall(b"N" + struct.pack("!i", len(fields) + 4) + fields)

    def cut(self) -> None:
        """Close all connections, like a server that restarts or scales to zero."""
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.BaseRequestHandler):
    server: Wire

    def handle(self) -> None:
        if self.server.refusing:
            return
        self.server.wait_while_frozen()
        with self.server.connect() as upstream:
            self.server.open |= {self.request, upstream}
            self.server.clients.add(self.request)
            self.server.connections += 1
            responses = threading.Thread(target=self._pump, args=(upstream,), daemon=True)
            responses.start()
            with contextlib.suppress(OSError):
                self._pass_messages(upstream)
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)
            responses.join()
            self.server.clients.discard(self.request)
            self.server.open -= {self.request, upstream}

    def _pass_messages(self, upstream: socket.socket) -> None:
        with self.request.makefile("rb") as client:
            kind = b""  # the first message, the startup message, has no type byte
            while length := client.read(4):
                message = client.read(struct.unpack("!i", length)[0] - 4)
                if kind == b"Q":
                    self.server.statements.append(message.rstrip(b"\0").decode())
                self.server.wait_while_frozen()
                upstream.sendall(kind + length + message)
                kind = client.read(1)

    def _pump(self, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either side may have closed the connection
            while chunk := upstream.recv(65536):
                self.server.wait_while_frozen()
                self.request.sendall(chunk)
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire_to(database: URL) -> Iterator[Wire]:
    """Run a proxy to the database."""
    with Wire(database) as wire:
        threading.Thread(target=wire.serve_forever, args=(0.01,), daemon=True).start()
        yield wire
        wire.thaw()
        wire.shutdown()
        wire.cut()
