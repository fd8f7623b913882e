"""uvicorn's HTTP protocol, with a bound on request heads and whole responses."""

import asyncio
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from errors import error_response
from gate import SECURITY_HEADERS

HEAD_MAX_BYTES = 64 * 1024  # as h11, uvicorn's other parser, has it
HEAD_SECONDS = 10
# What an idle client may have sent before it could know that the server ends.
LINGER_SECONDS = 0.5


class Protocol(HttpToolsProtocol):
    """uvicorn's, with a bound for the head of a request, and answers that are sent in one piece.

    uvicorn takes a head of any size and waits for its end forever. Of an answer it sends the head
    and the body one after the other: of a process that is killed in between half an answer is left,
    which no balancer can ask for again.
    """

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _ends = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]  # as one
        self._wait_for_head()
        # uvicorn tells the connections that it has when it ends, not those accepted just then.
        listener: asyncio.Server | None = getattr(transport, "_server", None)
        if listener is not None and not listener.is_serving():
            self.shutdown()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    @override
    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()
        if self._ends:
            self.cycle.keep_alive = False

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self.send_400_response(f"The head is larger than {HEAD_MAX_BYTES} bytes")

    @override
    def shutdown(self) -> None:
        """End when what has been sent is answered; uvicorn drops what it has not read by now."""
        self._ends = True
        self.loop.call_later(LINGER_SECONDS, super().shutdown)
        if self.cycle is not None:
            self.cycle.keep_alive = False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the body that every error has."""
        response = error_response(400, msg, headers={"Connection": "close"})
        headers = [*self.server_state.default_headers, *response.raw_headers, *SECURITY_HEADERS]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", response.body]))
        self.transport.close()


class JoiningTransport:
    """A transport that sends at once what is written in one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written: list[bytes] = []

    def write(self, part: bytes) -> None:
        """Send the part when this turn of the event loop is over."""
        if not self._written:
            asyncio.get_running_loop().call_soon(self._send)
        self._written.append(part)

    def close(self) -> None:
        """Close the connection, once everything is sent."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        # Not writelines: asyncio of Python 3.13.0 never gets done with a part that is empty.
        written = b"".join(self._written)
        self._written.clear()
        if written:
            self._transport.write(written)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a transport has
        return getattr(self._transport, name)
