"""Middleware around the routes: the path prefix, HEAD, CORS, and headers of every response."""

from collections.abc import Sequence
from functools import partial

from starlette import datastructures
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from errors import error_response
from paths import Paths, path_in_app, without_prefix

ORIGIN_SHOWN_CHARS = 100

# OWASP's REST Security Cheat Sheet. Strict-Transport-Security is up to whatever terminates TLS.
SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


class Prefix:
    """Handles the path prefix, whether or not a proxy has removed it from the path.

    The prefix is the `root_path` that the server was started with; no request can change it.
    Afterwards, `path` is `root_path` plus a path of the app, as ASGI defines it.
    """

    def __init__(self, app: ASGIApp, paths: Paths) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with normalized `root_path` and `path`."""
        if scope["type"] == "http" and scope.get("root_path"):
            # uvicorn prepends its --root-path, unchanged, to the path of every request.
            arrived = path_in_app(scope)
            root_path = scope["root_path"].strip("/")
            root_path = scope["root_path"] = f"/{root_path}" if root_path else ""
            scope["path"] = root_path + self._below(root_path, arrived)
        await self._app(scope, receive, send)

    def _below(self, root_path: str, path: str) -> str:
        below = without_prefix(path, root_path)
        # With the prefix /api, paths of the app such as /api/tasks begin with it too.
        if self._paths.methods(path) and not self._paths.methods(below):
            return path
        return below


class HeadAsGet:
    """Handles HEAD like GET, without sending the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass HEAD on as GET, and send only the headers of the response."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:
                # From now on, a streaming response sees a disconnected client.
                ended = True
                await send({"type": "http.response.body"})

        scope.setdefault("fastapi", {})  # shared with the copy: the request log reads the route
        await self._app({**scope, "method": "GET"}, receive, send_head)


class CORS(CORSMiddleware):
    """Starlette's CORS middleware. Refused preflights get the same error body as other errors."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
            # Sentry, OpenTelemetry and others add their own headers. Allowing all is safe because
            # there are no cookies that could authenticate the user.
            allow_headers=("*",),
            expose_headers=(
                "ETag",
                "Idempotent-Replayed",
                "Link",
                "Location",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "WWW-Authenticate",
                "X-Request-ID",
                "X-Total-Count",
            ),
        )

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or b"origin" not in dict(scope["headers"]):
            # No page of another origin sent this. Starlette would look for the header three times.
            await self.app(scope, receive, partial(_send_varying, send))
            return
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._note_refused_origin(scope)

    def _note_refused_origin(self, scope: Scope) -> None:
        headers = datastructures.Headers(scope=scope)
        origin = headers["Origin"]
        # Pages of this server, such as /docs, send an Origin too, and need no permission.
        if not self.is_allowed_origin(origin) and origin.partition("://")[2] != headers.get("Host"):
            shown = repr(origin[:ORIGIN_SHOWN_CHARS])
            reasons = [scope["state"].get("reason"), f"Origin {shown} is not in CORS_ORIGINS"]
            scope["state"]["reason"] = "; ".join(filter(None, reasons))

    @override
    def preflight_response(self, request_headers: datastructures.Headers) -> Response:
        """Respond to a preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:  # noqa: PLR2004
            return response
        headers = {
            name: value
            for name, value in response.headers.items()
            if name not in {"content-length", "content-type"}
        }
        return error_response(400, bytes(response.body).decode(), headers=headers)


async def _send_varying(send: Send, message: Message) -> None:
    """Send the message, and tell caches that the response depends on the origin."""
    if message["type"] == "http.response.start":
        # If there is a Vary already, both count (RFC 9110, 5.3).
        message["headers"] = [*message["headers"], (b"vary", b"Origin")]
    await send(message)


class Headers:
    """Adds headers to every response, unless it already sets them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                more = scope["state"].get("headers", ())  # of the rate limit
                added = [header for header in (*SECURITY_HEADERS, *more) if header[0] not in own]
                if _asks_for_upgrade(scope) and b"connection" not in own:
                    added.append((b"connection", b"close"))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _asks_for_upgrade(scope: Scope) -> bool:
    """Return whether uvicorn's own protocol, unlike `protocol.Protocol`, misreads this request.

    It takes the body for the next request on the connection, which must therefore be closed.
    """
    return b"upgrade" in dict(scope["headers"]) or scope.get("method") == "CONNECT"
