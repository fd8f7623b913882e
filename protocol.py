"""uvicorn's HTTP protocol, with limits on request headers, and responses sent in one piece."""

import asyncio
import sys
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from errors import error_response
from gate import SECURITY_HEADERS

HEAD_MAX_BYTES = 64 * 1024  # the limit of h11, uvicorn's other parser
HEAD_SECONDS = 10
# Requests of one connection that wait for the responses to those before them.
PIPELINED_MAX = 100
# How long to accept requests that clients sent before they could notice the shutdown.
LINGER_SECONDS = 0.5


class Protocol(HttpToolsProtocol):
    """Limits the size of request headers and the time to receive them, and sends whole responses.

    uvicorn accepts headers of any size and waits for their end forever. It also sends the headers
    and the body of a response separately: if the process is killed in between, the client gets half
    a response, and no load balancer can retry the request.

    It also takes the body of a request that asks for an upgrade for the next request, and trailers
    for headers. Both would let an attacker send requests through a proxy as another user.
    """

    _received = b""  # what is being parsed
    _without_upgrade = b""  # what is to be parsed again: a request that asked for an upgrade
    _is_invalid = False  # whether something was received that is not HTTP
    _has_head = False  # whether the headers of the current request are complete
    _completed_a_head = False  # with the data that was received last
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _ends = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]  # acts like one
        self._wait_for_head()
        # On shutdown, uvicorn misses connections that are just being accepted.
        listener: asyncio.Server | None = getattr(transport, "_server", None)
        if listener is not None and not listener.is_serving():
            self.shutdown()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._stop_waiting()
        self._has_head = False
        self._head_bytes = 0

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # otherwise it is a trailer (RFC 9110, 6.5.1)
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._has_head = self._completed_a_head = True
        if self.parser.get_method() == b"CONNECT" or len(self.pipeline) >= PIPELINED_MAX:
            raise HttpParserError
        if self.parser.should_upgrade():
            return  # see _unsupported_upgrade_warning
        super().on_headers_complete()
        if self._ends:
            self.cycle.keep_alive = False

    @override
    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    @override
    def data_received(self, data: bytes) -> None:
        self._completed_a_head = False
        while data and not self._is_invalid:
            self._received, self._without_upgrade = data, b""
            super().data_received(data)
            data = self._without_upgrade
        # After a response, a line break or the rest of a refused body stops uvicorn's keep-alive
        # timer, although it begins no request.
        is_idle = self.cycle is not None and self.cycle.response_complete
        if self._has_head and not is_idle:  # headers usually arrive in one piece: no timer
            return
        if self._head_timer is None:
            self._wait_for_head()
        if not self._has_head and not self._completed_a_head:
            self._head_bytes += len(self._received)
        if self._head_bytes > HEAD_MAX_BYTES:
            self.send_400_response(f"The head is larger than {HEAD_MAX_BYTES} bytes")

    @override
    def shutdown(self) -> None:
        """Close after responding to requests in transit, which uvicorn itself would drop."""
        self._ends = True
        self.loop.call_later(LINGER_SECONDS, super().shutdown)
        if self.cycle is not None:
            self.cycle.keep_alive = False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    @override
    def _unsupported_upgrade_warning(self) -> None:
        """Parse the request again without the header Upgrade, which RFC 9110, 7.8 allows to ignore.

        httptools believes that another protocol follows the headers, and does not parse the body.
        """
        parser, self.parser = self.parser, HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        request = parser.get_method(), self.url, parser.get_http_version().encode()
        headers = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        upgrade = cast("HttpParserUpgrade", sys.exception())  # which uvicorn is handling
        rest = self._received[upgrade.args[0] :]
        self._without_upgrade = b"\r\n".join([b"%b %b HTTP/%b" % request, *headers, b"", rest])

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    @override
    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP with the error body of the API, and close the connection."""
        self._is_invalid = True
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self.cycle.keep_alive = False  # close after the response to the last valid request
            return
        response = error_response(400, msg, headers={"Connection": "close"})
        headers = [*self.server_state.default_headers, *response.raw_headers, *SECURITY_HEADERS]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", response.body]))
        self.transport.close()


class JoiningTransport:
    """A transport that joins all writes of one event loop iteration into one."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written: list[bytes] = []

    def write(self, part: bytes) -> None:
        """Send the part after this iteration of the event loop."""
        if not self._written:
            asyncio.get_running_loop().call_soon(self._send)
        self._written.append(part)

    def close(self) -> None:
        """Send what is buffered, then close the connection."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        # Not writelines: asyncio in Python 3.13.0 never finishes if a part is empty.
        written = b"".join(self._written)
        self._written.clear()
        if written:
            self._transport.write(written)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any attribute of the transport
        return getattr(self._transport, name)
