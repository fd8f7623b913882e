"""Logging: one line per request, as JSON unless the standard error is a terminal."""

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
# Visible ASCII of limited length, because the id is written to the log unchanged.
REQUEST_ID = re.compile(rb"[!-~]{1,128}")

FAILURES = range(500, 600)
REQUEST_FIELDS = (
    "method",
    "route",
    "status",
    "duration_ms",
    "user_id",
    "tool",
    "reason",
    "request_id",
)

# Libraries that log details of each statement or request.
CHATTY = ("alembic", "httpx2", "httpcore2", "mcp")

# Called with the method, route, status and duration in seconds of each request.
Observe = Callable[[str, str | None, int | None, float], None]

logger = logging.getLogger(__name__)
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def configure_logging(level: str) -> None:
    """Write the lines of all loggers, including uvicorn's, to the standard error in one format."""
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
    # Unused fields, which would cost time on each line.
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # see Optimization in the logging HOWTO
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        theirs = logging.getLogger(name)
        theirs.handlers = []
        theirs.setLevel(logging.NOTSET)
        # Without handlers, uvicorn does not write an access log line of its own.
        theirs.propagate = name != "uvicorn.access"
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _complete(record: logging.LogRecord) -> bool:
    """Add the id of the request, and remove what must not be logged from exceptions."""
    if request_id := _request_id.get():
        record.request_id = request_id
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        # Both put the statement into their message, psycopg2 including the user's values.
        if isinstance(error, StatementError):
            error.statement = None
        if isinstance(error, StatementError | DriverError):
            error.args = tuple(str(part).partition("\n")[0] for part in error.args)
        error = error.__cause__ or error.__context__
    return True


class _Json(JsonFormatter):
    """Formats lines as JSON. Request lines, whose fields are known, take a third of the time."""

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
    """Formats lines for a terminal, with the other fields of a request after the message."""

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = {
            name: getattr(record, name, None)
            for name in ("user_id", "tool", "reason", "request_id")
        }
        shown = (f" {name}={value!a}" for name, value in fields.items() if value is not None)
        return super().formatMessage(record) + "".join(shown)


class RequestLog:
    """Logs each request, calls `observe`, and adds the request id: the client's, if valid."""

    def __init__(self, app: ASGIApp, observe: Observe | None = None) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, and add `X-Request-ID` to every response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _given_id(scope) or f"{random.getrandbits(128):032x}"
        _request_id.set(request_id)
        status: int | None = None  # stays None if the client disconnects before the response

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
            if "logged_together" not in state:
                _write(*request, state)
            if self._observe is not None:
                self._observe(*request)


def _template(scope: Scope) -> str | None:
    """Return the path template of the route, or None if no route matched."""
    # FastAPI stores the matched route here; `scope["route"]` lacks the router's prefix.
    context = scope.get("fastapi", {}).get("effective_route_context")
    return None if context is None else context.path or None  # static files have an empty path


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return None


def _write(
    method: str, route: str | None, status: int | None, seconds: float, state: Mapping[str, Any]
) -> None:
    # A tool that fails is a 200: its result says so.
    failed = status in FAILURES or {"tool", "reason"} <= state.keys()
    level = logging.WARNING if failed else logging.INFO
    if not logger.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "user_id": state["user"].id if "user" in state else None,
    }
    fields |= {name: state[name] for name in ("tool", "reason") if name in state}
    logger.log(level, "%s %s %s %.1f ms", method, route, status, seconds * 1000, extra=fields)
