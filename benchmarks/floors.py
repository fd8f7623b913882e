"""Apps for the lower bounds: uvicorn, FastAPI and psycopg2 by themselves."""

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg2
from fastapi import FastAPI
from jose import jwt

THREADS = 8

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def bare(scope: Scope, _: Receive, send: Send) -> None:
    """Return a constant: uvicorn alone."""
    await _respond(scope, send, 200, b'{"status":"ok"}')


fastapi = FastAPI()


# No response_model, since FastAPI would validate it in another thread.
@fastapi.get("/def", response_model=None)
def constant_in_thread() -> dict[str, str]:
    """Return a constant from a thread."""
    return {"status": "ok"}


@fastapi.get("/async", response_model=None)
async def constant_in_event_loop() -> dict[str, str]:
    """Return a constant from the event loop."""
    return {"status": "ok"}


async def driver(scope: Scope, receive: Receive, send: Send) -> None:
    """Run the service's own statement in a thread and return its rows: psycopg2 alone.

    Only the path and the method are read; nothing is validated.
    """
    if not scope.get("path", "").startswith("/api/tasks"):
        await _respond(scope, send, 404, b"{}")
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    parts = scope["path"].removeprefix("/api/tasks").strip("/").split("/")
    parameters = json.loads(body) if body else {}
    parameters |= {"id": int(parts[0] or 0), "user": _user_of(dict(scope["headers"]))}
    name = f"{scope['method']} {'/'.join(['id' if part else '' for part in parts[:1]] + parts[1:])}"
    loop = asyncio.get_running_loop()
    rows = await loop.run_in_executor(_threads(), _run, _statements()[name], parameters)
    answer = rows if name == "GET " else next(iter(rows), {})
    content = json.dumps(answer, default=str).encode()
    await _respond(scope, send, 200 if rows else 404, content)


def _user_of(headers: dict[bytes, bytes]) -> str:
    return _verified(headers.get(b"authorization", b"").decode())


@lru_cache(10_000)
def _verified(header: str) -> str:
    token = header.removeprefix("Bearer ")
    return str(jwt.decode(token, os.environ["BETTER_AUTH_SECRET"], algorithms=["HS256"])["sub"])


@lru_cache
def _statements() -> dict[str, str]:
    statements: dict[str, str] = json.loads(Path(os.environ["STATEMENTS"]).read_text())
    return statements


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, initializer=_connect)


_local = threading.local()


def _connect() -> None:
    _local.connection = psycopg2.connect(os.environ["DATABASE_URL"])
    _local.connection.autocommit = True


def _run(statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with _local.connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


async def _respond(scope: Scope, send: Send, status: int, content: bytes) -> None:
    if scope["type"] != "http":
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
