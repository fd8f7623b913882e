"""The format of log lines. tests/contract/test_request_log.py tests the fields of requests."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from psycopg2 import Error as DriverError
from sqlalchemy.exc import ProgrammingError
from starlette.types import Receive, Scope, Send

from logs import CHATTY, RequestLog, configure_logging

OTHER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", *CHATTY)


class Stream(io.StringIO):
    """A stream that is a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stream]]:
    """Configure logging to a stream, and restore the configuration afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # otherwise, they would be closed
    before = {
        name: (logging.getLogger(name).level, logging.getLogger(name).propagate)
        for name in OTHER_LOGGERS
    }

    def configure(*, terminal: bool = False, level: str = "INFO") -> Stream:
        stream = Stream(terminal=terminal)
        monkeypatch.setattr("sys.stderr", stream)
        configure_logging(level)
        return stream

    yield configure
    root.handlers, root.level = handlers, level
    for name, (their_level, propagate) in before.items():
        logging.getLogger(name).setLevel(their_level)
        logging.getLogger(name).propagate = propagate


def test_a_line_is_a_json_object(configured: Callable[..., Stream]) -> None:
    stream = configured()

    logging.getLogger("uvicorn.error").info(
        "Started %s\n\x1b[0m", "here", extra={"color_message": "\x1b[36m"}
    )

    line = json.loads(stream.getvalue())
    logged_at = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - logged_at).total_seconds()) < 60
    assert line == {"level": "INFO", "logger": "uvicorn.error", "message": "Started here\n\x1b[0m"}
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 1


def test_lines_at_a_terminal_are_readable(configured: Callable[..., Stream]) -> None:
    stream = configured(terminal=True)

    logging.getLogger("logs").info("GET / 200", extra={"user_id": "ann\n", "reason": None})

    assert stream.getvalue().endswith(" INFO    GET / 200 user_id='ann\\n'\n")


def test_a_logged_traceback_does_not_contain_the_statement(
    configured: Callable[..., Stream],
) -> None:
    stream = configured()

    message = "no such table\nLINE 1: SELECT s3cret\n"
    error = ValueError("worse\nand worse")
    error.__cause__ = ProgrammingError("SELECT s3cret", {}, Exception(message))
    error.__cause__.__cause__ = DriverError(message)

    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)

    line = json.loads(stream.getvalue())
    assert "ValueError: worse\nand worse" in line["exc_info"]
    assert line["exc_info"].count("no such table") == 2
    assert "SELECT" not in line["exc_info"]
    assert "s3cret" not in line["exc_info"]


def test_uvicorns_access_log_is_off(configured: Callable[..., Stream]) -> None:
    configured()

    # uvicorn checks this before it writes an access log line.
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.mark.parametrize(
    ("level", "name", "logged"),
    [
        ("INFO", "main", True),
        ("WARNING", "main", False),
        ("WARNING", "uvicorn.error", False),
        ("INFO", "httpx2", False),
        ("INFO", "alembic.runtime.migration", False),
    ],
)
def test_the_level_applies_to_all_but_the_chatty_loggers(
    configured: Callable[..., Stream], level: str, name: str, *, logged: bool
) -> None:
    stream = configured(level=level)

    logging.getLogger(name).info("something")

    assert bool(stream.getvalue()) is logged


def test_lines_logged_during_a_request_have_its_id(configured: Callable[..., Stream]) -> None:
    stream = configured()

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        logging.getLogger("db").warning("slow")

    scope = {"type": "http", "method": "GET", "headers": [(b"x-request-id", b"abc")]}
    asyncio.run(RequestLog(app)(scope, *[None, None]))  # type: ignore[arg-type]

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["logger"], line["request_id"]) for line in lines] == [
        ("db", "abc"),
        ("logs", "abc"),
    ]


def test_lifespan_events_are_not_logged(configured: Callable[..., Stream]) -> None:
    stream = configured()
    passed: list[Scope] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        passed.append(scope)

    asyncio.run(RequestLog(app)({"type": "lifespan"}, *[None, None]))  # type: ignore[arg-type]

    assert passed == [{"type": "lifespan"}]
    assert stream.getvalue() == ""
