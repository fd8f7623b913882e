"""What happens to requests and workers when the server stops."""

import asyncio
import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from sqlalchemy import make_url
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from main import create_app
from overload import InFlight, Limit
from tests.actors import settings_for

SCOPE = {"type": "http", "path": "/api/tasks", "headers": [], "state": {}}


async def _receive() -> Message:
    raise AssertionError("the body is not read")  # pragma: no cover


def _cancel(*, begins_response: bool) -> list[Message]:
    """Cancel a request that waits, and return what was sent."""
    sent: list[Message] = []

    async def wait(_: Scope, __: Receive, send: Send) -> None:
        if begins_response:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        if sent and message["type"] == "http.response.start":
            raise RuntimeError("as uvicorn does")
        sent.append(message)

    async def scenario() -> None:
        request = asyncio.create_task(Limit(wait, InFlight())(SCOPE, _receive, send))
        await asyncio.sleep(0)
        request.cancel()
        await request

    if begins_response:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(scenario())
    else:
        asyncio.run(scenario())
    return sent


def test_a_cancelled_request_is_answered() -> None:
    start, body = _cancel(begins_response=False)

    assert start["status"] == 503
    assert json.loads(body["body"]) == {
        "detail": "The server is stopping; try again",
        "status_code": 503,
    }


def test_a_cancelled_response_is_not_continued() -> None:
    assert [message["type"] for message in _cancel(begins_response=True)] == ["http.response.start"]


def test_a_worker_stops_when_its_supervisor_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """tests/faults/test_stops.py kills a real supervisor."""
    supervisor = threading.Thread()  # which can be joined like a process
    supervisor.start()
    settings = settings_for(make_url(f"sqlite:///{tmp_path / 'todo.db'}"))
    stopped = threading.Event()
    signals = []

    def note(pid: int, number: int) -> None:
        signals.append((pid, number))
        stopped.set()

    monkeypatch.setattr(multiprocessing, "parent_process", lambda: supervisor)
    monkeypatch.setattr(os, "kill", note)

    with TestClient(create_app(settings)):
        assert stopped.wait(30)

    assert signals == [(os.getpid(), signal.SIGTERM)]
