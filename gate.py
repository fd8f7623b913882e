"""What stands before the routes: the limit on requests in flight, CORS, headers, the protocol."""

import asyncio
import logging
import math
from collections.abc import Sequence
from time import monotonic
from typing import Any

from starlette import datastructures
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from errors import busy_response, error_response

# A hundred clients at once are refused nothing by one process.
IN_FLIGHT_MAX = 128
# Where it refuses for longer than a burst lasts, fewer wait, for else all would wait too long;
# chosen for less than 200 ms at three times the bearable load, see docs/reliability.md.
BURST_SECONDS = 0.25
IN_FLIGHT_MAX_OVERLOADED = 16
# It is over where nobody is refused for a while, and is looked at again after some time in any
# case: clients who ask again at once would keep it up.
CALM_SECONDS = 0.5
OVERLOADED_SECONDS = 10
# What is refused has a line together: one for each would take longer than refusing does.
REFUSALS_TOLD_SECONDS = 1
LIMITED = "/api/"
HEAD_MAX_BYTES = 64 * 1024  # as h11, uvicorn's other parser, has it
HEAD_SECONDS = 10
# What an idle client may have sent before it could know that the server ends.
LINGER_SECONDS = 0.5

# OWASP's REST Security Cheat Sheet. Strict-Transport-Security is for whoever ends TLS to decide.
SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]

logger = logging.getLogger(__name__)


class Limit:
    """Refuses at once what cannot be answered soon, for a small part of what answering costs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._busy = busy_response()
        self._in_flight = 0
        self._refused = 0  # and not told yet
        self._refusing_since = self._last_refusal = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            await self._app(scope, receive, send)
        elif self._is_full():
            self._note_refusal(scope)
            await self._busy(scope, receive, send)
        else:
            self._in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_flight -= 1

    def _is_full(self) -> bool:
        now = monotonic()
        if (
            now > self._last_refusal + CALM_SECONDS
            or now > self._refusing_since + OVERLOADED_SECONDS
        ):
            self._refusing_since = now
        overloaded = now > self._refusing_since + BURST_SECONDS
        if self._in_flight < (IN_FLIGHT_MAX_OVERLOADED if overloaded else IN_FLIGHT_MAX):
            return False
        self._last_refusal = now
        return True

    def _note_refusal(self, scope: Scope) -> None:
        scope["state"]["told_together"] = True
        if not self._refused:
            asyncio.get_running_loop().call_later(REFUSALS_TOLD_SECONDS, self._tell)
        self._refused += 1

    def _tell(self) -> None:
        logger.warning("Refused %d requests with 503: too many are in flight", self._refused)
        self._refused = 0


class CORS(CORSMiddleware):
    """Starlette's, for this API; its refusal of a preflight has the body of every other error."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=(
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "If-Match",
                "If-None-Match",
                "X-Request-ID",
            ),
            expose_headers=(
                "ETag",
                "Idempotent-Replayed",
                "Link",
                "Location",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-ID",
                "X-Total-Count",
            ),
        )

    def preflight_response(self, request_headers: datastructures.Headers) -> Response:
        """Answer a preflight."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:  # noqa: PLR2004
            return response
        headers = {
            name: value
            for name, value in response.headers.items()
            if name not in {"content-length", "content-type"}
        }
        return error_response(400, bytes(response.body).decode(), headers=headers)


class Headers:
    """Adds the headers of every answer; one that states its own keeps it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                more = scope["state"].get("headers", ())  # of a limit on the request rate
                added = [header for header in (*SECURITY_HEADERS, *more) if header[0] not in own]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)


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
