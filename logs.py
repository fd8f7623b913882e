"""What the process says: one line for each request, JSON where a program reads it."""

import json
import logging
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from psycopg2 import Error as DriverError
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from sqlalchemy.exc import StatementError
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

REQUEST_ID_HEADER = b"x-request-id"
# Visible ASCII, and no longer than what others send: it is written into the log as it is.
REQUEST_ID = re.compile(rb"[!-~]{1,128}")

FAILURES = range(500, 600)
REQUEST_FIELDS = ("method", "route", "status", "duration_ms", "user_id", "reason", "request_id")

# They tell of each statement and each request what only their authors need.
CHATTY = ("alembic", "httpx2", "httpcore2")

# Method, route, status and seconds.
Observe = Callable[[str, str | None, int | None, float], None]

logger = logging.getLogger(__name__)
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def configure_logging(level: str) -> None:
    """Write every logger's lines to the standard error, uvicorn's too, in one format."""
    handler = logging.StreamHandler()
    handler.addFilter(_complete)
    if sys.stderr.isatty():
        handler.setFormatter(_Readable("%(asctime)s %(levelname)-7s %(message)s"))
    else:
        handler.setFormatter(
            _Json(
                ["levelname", "name", "message"],
                rename_fields={"levelname": "level", "name": "logger"},
                reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, for terminals
                timestamp="time",
            )
        )
    # Nobody reads these, and each line would look them up.
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        theirs = logging.getLogger(name)
        theirs.handlers = []
        theirs.setLevel(logging.NOTSET)
        # uvicorn writes no line of its own for a request where nobody would read it.
        theirs.propagate = name != "uvicorn.access"
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _complete(record: logging.LogRecord) -> bool:
    """Add the id of the request that the line belongs to, and take away what must not be told."""
    if request_id := _request_id.get():
        record.request_id = request_id
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        # Both put the statement into their message, psycopg2 with what the user wrote in it.
        if isinstance(error, StatementError):
            error.statement = None
        if isinstance(error, StatementError | DriverError):
            error.args = tuple(str(part).partition("\n")[0] for part in error.args)
        error = error.__cause__ or error.__context__
    return True


class _Json(JsonFormatter):
    """Writes JSON; the line of a request, whose fields are known, in a third of the time."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        if record.name != __name__:
            return super().format(record)
        values = vars(record)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: values[name] for name in REQUEST_FIELDS if name in values},
        }
        return json.dumps(line)


class _Readable(logging.Formatter):
    """For a person at a terminal: the message has the rest of a request's fields."""

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = {name: getattr(record, name, None) for name in ("user_id", "reason", "request_id")}
        told = (f" {name}={value!a}" for name, value in fields.items() if value is not None)
        return super().formatMessage(record) + "".join(told)


class RequestLog:
    """Gives each request an id, its caller's where that is one, writes its line, and counts it."""

    def __init__(self, app: ASGIApp, observe: Observe | None = None) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with `X-Request-ID` in whatever answer it is."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _given_id(scope) or f"{random.getrandbits(128):032x}"
        _request_id.set(request_id)
        status: int | None = None  # where the caller went away before there was one

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                header = (REQUEST_ID_HEADER, request_id.encode())
                message["headers"] = [*message["headers"], header]
            await send(message)

        state: dict[str, Any] = scope.setdefault("state", {})
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            request = scope["method"], _template(scope), status, seconds
            if "told_together" not in state:
                _write(*request, state)
            if self._observe is not None:
                self._observe(*request)


def _template(scope: Scope) -> str | None:
    """Give the route's path with its parameters' names, or None where no route was found."""
    # What FastAPI keeps of the route that it has found; `scope["route"]` lacks the prefix.
    context = scope.get("fastapi", {}).get("effective_route_context")
    return None if context is None else context.path or None  # files have an empty one


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return None


def _write(
    method: str, route: str | None, status: int | None, seconds: float, state: Mapping[str, Any]
) -> None:
    level = logging.WARNING if status in FAILURES else logging.INFO
    if not logger.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "user_id": state["user"].id if "user" in state else None,
    }
    if "reason" in state:
        fields["reason"] = state["reason"]
    logger.log(level, "%s %s %s %.1f ms", method, route, status, seconds * 1000, extra=fields)
