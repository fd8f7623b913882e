"""What stands before the routes: the limit on requests in flight, the headers of every answer."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import busy_response

# A hundred clients at once are served by one process; what they and some more ask for is answered
# within 200 ms, see docs/reliability.md. Whoever comes then would only make all the others slower.
IN_FLIGHT_MAX = 128
LIMITED = "/api/"

# OWASP's REST Security Cheat Sheet. Strict-Transport-Security is for whoever ends TLS to decide.
SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


class Limit:
    """Refuses at once what cannot be answered soon, for a small part of what answering costs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            await self._app(scope, receive, send)
        elif self._in_flight >= IN_FLIGHT_MAX:
            await busy_response()(scope, receive, send)
        else:
            self._in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_flight -= 1


class Headers:
    """Adds the headers of every answer; one that states its own keeps it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = [header for header in SECURITY_HEADERS if header[0] not in own]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)
