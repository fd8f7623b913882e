"""A proxy that delays each request from a server to its database, like a network."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import URL

CHUNK_BYTES = 65536


class _Delay(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, database: URL, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.path = f"{database.query['host']}/.s.PGSQL.5432"
        self.seconds = seconds


class _Connection(socketserver.BaseRequestHandler):
    server: _Delay

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with socket.socket(socket.AF_UNIX) as database:
            database.connect(self.server.path)
            responses = threading.Thread(
                target=_pump, args=(database, self.request, 0), daemon=True
            )
            responses.start()
            # Delay one direction only, by the whole round trip: clients wait for each response.
            _pump(self.request, database, self.server.seconds)
            responses.join()


def _pump(source: socket.socket, sink: socket.socket, delay_seconds: float) -> None:
    with suppress(OSError):  # either side may have closed the connection
        while chunk := source.recv(CHUNK_BYTES):
            time.sleep(delay_seconds)
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def delayed(database: URL, seconds: float) -> Iterator[URL]:
    """Yield a URL at which the database responds later by this many seconds."""
    with _Delay(database, seconds) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        port = proxy.server_address[1]
        yield database.set(host="127.0.0.1", port=port, query={"sslmode": "disable"})
        proxy.shutdown()
