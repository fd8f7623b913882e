"""The route class: what it checks before the handler runs, and where the handler runs."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial, wraps
from http import HTTPStatus
from inspect import iscoroutinefunction, signature
from typing import Any, get_origin

from fastapi import HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Message, Receive, Scope
from typing_extensions import override

from auth import authenticate
from db import Database
from errors import NOT_JSON, SEND_JSON, documented, invalid
from models import User
from paths import Paths, path_in_app
from rates import RateLimit

BODY_MAX_BYTES = 64 * 1024
BODY_SECONDS = 5

TOO_LARGE = documented(
    413, "The body is too large", f"The body is larger than {BODY_MAX_BYTES} bytes"
)
TOO_SLOW = documented(
    408, "The body arrived too slowly", f"The body took longer than {BODY_SECONDS} seconds"
)
BAD_BODY = documented(400, "The body is not JSON in UTF-8", NOT_JSON) | TOO_SLOW | TOO_LARGE


class GuardedRoute(APIRoute):
    """A route that checks the token first, then reads a body of bounded size in bounded time.

    Every request with a valid token counts towards the rate limit, whatever else is wrong with it.

    FastAPI itself reads and parses the whole body before any dependency runs. It ignores unknown
    query parameters. If a mistyped filter were ignored, DELETE would delete too much, so this
    route rejects it.

    On PostgreSQL, a plain `def` handler with a session runs in a greenlet on the event loop, not in
    a thread as is usual in FastAPI; the loop serves other requests while the database works. On
    SQLite it runs in a thread. Nothing but the database may block in such a handler: run other slow
    code with `driver.in_thread`.
    """

    body_max_bytes = BODY_MAX_BYTES
    body_seconds = BODY_SECONDS
    body_wanted = SEND_JSON

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401  # FastAPI's
        super().__init__(path, _in_session(endpoint), **options)

    async def authenticate(self, request: Request) -> User:
        """Return the user of the request's token, or raise a 401."""
        return await authenticate(request)

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match, except paths that belong to another route: PUT /api/tasks/export is a 405."""
        match, child_scope = super().matches(scope)
        # Starlette's expressions end in `$`, which also matches before a line break at the end.
        if scope["path"].endswith("\n"):
            return Match.NONE, {}
        if match is Match.FULL:
            paths: Paths = scope["app"].state.paths
            if scope["method"] not in paths.methods(path_in_app(scope)):
                return Match.PARTIAL, child_scope
        return match, child_scope

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        parameters = get_flat_params(Dependant(query_params=self.dependant.query_params))
        repeatable = {
            parameter.alias: get_origin(parameter.field_info.annotation) is list
            for parameter in parameters
        }
        may_have_body = not {"GET", "DELETE"}.issuperset(self.methods or ())

        async def handle_guarded(request: Request) -> Response:
            request.state.user = user = await self.authenticate(request)
            rate_limit: RateLimit | None = request.app.state.rate_limit
            if rate_limit is not None:
                await rate_limit.count(request, user)
            _check_query(request, repeatable)
            if may_have_body:
                _check_encoding(request, self.body_wanted)
                request = Request(
                    request.scope, _bounded(request, self.body_max_bytes, self.body_seconds)
                )
            return await handle(request)

        return handle_guarded


def _check_query(request: Request, repeatable: Mapping[str, bool]) -> None:
    """Refuse query parameters that the operation would ignore.

    `repeatable` maps its parameters to whether they are lists. If a parameter is not a list,
    FastAPI uses only its last value.
    """
    if not request.scope["query_string"]:
        return
    names = [name for name, _ in request.query_params.multi_items()]
    problems = []
    for name in dict.fromkeys(names):
        if name not in repeatable:
            problems.append((name, "is not a query parameter of this operation"))
        elif not repeatable[name] and names.count(name) > 1:
            problems.append((name, "must be given only once"))
    if problems:
        raise RequestValidationError(
            [{"type": "value_error", "loc": ("query", name), "msg": msg} for name, msg in problems]
        )


def _check_encoding(request: Request, wanted: str) -> None:
    if request.headers.get("Content-Encoding", "").lower() not in {"", "identity"}:
        raise invalid("header", "Content-Encoding", message=f"is not supported. {wanted}")


def _in_session(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Run a handler with a `session` where its statements do not block the event loop.

    Such a handler must also have a parameter `user`: each user gets a share of the connections.
    """
    if iscoroutinefunction(handler) or "session" not in signature(handler).parameters:
        return handler

    @wraps(handler)  # FastAPI reads the parameters of the handler itself
    async def run(**arguments: Any) -> object:  # noqa: ANN401  # whatever the handler takes
        database: Database = arguments["session"].info["database"]
        return await database.run(arguments["user"].id, partial(handler, **arguments))

    return run


def _bounded(request: Request, max_bytes: int, max_seconds: float) -> Receive:
    """Limit the size of the body, announced or not, and the time to receive it."""
    received_bytes = 0
    deadline: float | None = None

    async def receive() -> Message:
        nonlocal received_bytes, deadline
        deadline = deadline or asyncio.get_running_loop().time() + max_seconds
        if _announced_bytes(request) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout_at(deadline):
                message = await request.receive()
        except TimeoutError as error:
            raise _too_slow(max_seconds) from error
        if message["type"] == "http.disconnect":
            raise HTTPException(HTTPStatus.BAD_REQUEST)
        received_bytes += len(message.get("body", b""))
        if received_bytes > max_bytes:
            raise _too_large(max_bytes)
        return message

    return receive


def _announced_bytes(request: Request) -> int:
    try:
        return int(request.headers.get("Content-Length", "0"))
    except ValueError:
        return 0  # the bytes received are counted anyway


def _too_slow(max_seconds: float) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_TIMEOUT,
        f"The body took longer than {max_seconds} seconds",
        {"Connection": "close"},  # the rest of it may still come
    )


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {max_bytes} bytes"
    )
