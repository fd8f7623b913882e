"""Export and import all tasks of the caller as JSON Lines (https://jsonlines.org)."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json
from sqlmodel import Session

import driver
import statements
from auth import UNAUTHORIZED, CurrentUser
from db import Database, SessionDep
from driver import in_thread, time_limit, transaction
from errors import (
    INVALID,
    RETRY_AFTER_SECONDS,
    UNAVAILABLE,
    Responses,
    documented,
    invalid,
)
from guard import BODY_MAX_BYTES, GuardedRoute
from models import INT64, TaskCreate, User, new_columns
from routes.paging import EPOCH, task_of
from routes.tasks import (
    FULL,
    IdempotencyKey,
    IdempotencyKeyHeader,
    KeyedBody,
    insert_task,
    json_response,
    too_many_tasks,
)

ROWS_PER_INSERT = 200  # psycopg2 blocks the event loop while it formats them into SQL
IMPORT_MAX_BYTES = 64 * 1024 * 1024
IMPORT_SECONDS = 60  # to receive the body, and the same again to store it
IN_MEMORY_BYTES = 1024 * 1024  # larger bodies are stored in a temporary file

BYTE_ORDER_MARK = "\ufeff".encode()  # some editors and PowerShell write it at the start of files
SEND_JSON_LINES = (
    "Send JSON Lines, uncompressed and in UTF-8: one task as a JSON object on each line, "
    "with `curl --data-binary @tasks.jsonl`"
)

Position = tuple[datetime, int]
ExportPage = tuple[bytes, Position | None]
EXPORT_START: Position = (EPOCH, 0)


class TransferRoute(GuardedRoute):
    """A route with limits for a body that contains all tasks of a user."""

    body_max_bytes = IMPORT_MAX_BYTES
    body_seconds = IMPORT_SECONDS
    body_wanted = SEND_JSON_LINES


router = APIRouter(route_class=TransferRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


class Imported(BaseModel):
    """The result of an import."""

    imported: Annotated[
        int,
        Field(description="How many tasks were created.", examples=[3], json_schema_extra=INT64),
    ]


IMPORTED: Responses = {
    200: {
        "description": "You have sent this key with this file before; nothing was imported again",
        "model": Imported,
        "headers": {"Idempotent-Replayed": {"description": "`true`", "schema": {"type": "string"}}},
    }
}


async def receive_file(request: Request) -> AsyncIterator[IO[bytes]]:
    """Yield the body as a file, so that a large one does not use memory."""
    with SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
        try:
            async for chunk in request.stream():
                file.write(chunk)
            file.seek(0)
        except OSError as error:  # there is no directory for temporary files, or no space
            request.state.reason = f"Cannot store the file: {error}"
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server cannot store the file; try again",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            ) from error
        yield file


ReceivedFile = Annotated[IO[bytes], Depends(receive_file)]

# OpenAPI 3.1 cannot describe the lines; `itemSchema` comes with 3.2.
EXPORTED: Responses = {
    200: {
        "description": "The file: on each line a task, in the format of the list",
        "content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}},
    }
}
FILE = {
    "description": "JSON Lines in UTF-8: on each line a task, as POST /api/tasks takes it or the "
    'export returns it. For example `{"title": "Buy milk", "priority": "high"}`.',
    "required": True,
    # The second is for generators that do not know the first, such as openapi-python-client.
    "content": {
        media_type: {"schema": {"type": "string", "format": "binary"}}
        for media_type in ("application/jsonl", "application/octet-stream")
    },
}
IMPORT_TOO_LARGE = documented(
    413, "The body is too large", f"The body is larger than {IMPORT_MAX_BYTES} bytes"
)
IMPORT_TOO_SLOW = documented(
    408, "The body arrived too slowly", f"The body took longer than {IMPORT_SECONDS} seconds"
)


@router.get(
    "/export", summary="Export all tasks", response_class=StreamingResponse, responses=EXPORTED
)
def export_tasks(user: CurrentUser, session: SessionDep) -> StreamingResponse:
    """Return all your tasks as a file, one JSON object per line, the oldest first.

    The file can be imported again. Tasks that change during a long export may appear in their old
    or their new version.
    """
    # Read the first page before the response begins, so that a failure can still become a 503.
    first = _read_page(EXPORT_START, user, session)
    return StreamingResponse(
        _pages(first, user, session.info["database"]),
        media_type="application/jsonl",
        headers={"Content-Disposition": 'attachment; filename="tasks.jsonl"'},
    )


@router.post(
    "/import",
    summary="Import tasks",
    response_description="The tasks are created",
    status_code=HTTPStatus.CREATED,
    response_model=Imported,
    responses=IMPORTED | IMPORT_TOO_SLOW | IMPORT_TOO_LARGE | FULL,
    openapi_extra={"requestBody": FILE},
)
def import_tasks(
    file: ReceivedFile,
    request: Request,
    user: CurrentUser,
    session: SessionDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Create a task for each line of a file, or none at all if any line is invalid.

    The tasks get new ids and times, so importing a file twice creates every task twice. To repeat a
    request safely, send an `Idempotency-Key`; it is valid as long as the first task of the file
    exists. The file may have up to 64 MiB.
    """
    limit: int = request.app.state.settings.tasks_per_user
    # One at a time: none sees how many tasks the user's other imports create.
    with time_limit(IMPORT_SECONDS), transaction(session.connection(), lock=user.id):
        imported, replayed = _import(file, idempotency_key, user, session, limit)
    content = to_json(Imported(imported=imported))
    if replayed:
        return json_response(content, headers={"Idempotent-Replayed": "true"})
    return json_response(content, HTTPStatus.CREATED)


async def _pages(page: ExportPage, user: User, database: Database) -> AsyncIterator[bytes]:
    """Read one page at a time, so that a slow client does not occupy a connection."""

    def read(after: Position) -> ExportPage:
        with Session(database.engine) as session:
            return _read_page(after, user, session)

    lines, after = page
    yield lines
    while after is not None:
        driver.start_deadline(driver.ANSWER_SECONDS)
        lines, after = await database.run(user.id, partial(read, after))
        yield lines


def _read_page(after: Position, user: User, session: Session) -> ExportPage:
    """Return the tasks after a position as lines, and the last position if more may follow."""
    position = dict(zip((column.name for column in statements.EXPORT_ORDER), after, strict=True))
    rows = session.exec(statements.EXPORT, params={"owner": user.id, **position}).all()
    lines = b"".join(to_json(task_of(row)) + b"\n" for row in rows)
    is_full = len(rows) == statements.EXPORT_PAGE_ROWS
    return lines, (rows[-1].created_at, rows[-1].id) if is_full else None


def _import(
    file: IO[bytes], key: IdempotencyKey | None, user: User, session: Session, limit: int
) -> tuple[int, bool]:
    """Insert the lines. Return their number, and whether an earlier import with the key did so.

    The first task stores the key, so that its unique index makes a concurrent import wait.
    """
    body = KeyedBody(key, in_thread(lambda: _digest(file))) if key else KeyedBody()
    rows = _read(file)
    first = in_thread(lambda: next(rows, None))
    if first is None:
        return 0, False
    if insert_task(first, body, user, session, limit).replayed:
        return 1 + in_thread(lambda: sum(1 for _ in rows)), True
    imported = 1
    others = session.exec(statements.COUNT, params={"owner": user.id}).one() - imported
    more = {"user_id": user.id, "replayed": False}
    while batch := in_thread(lambda: [row | more for row in islice(rows, ROWS_PER_INSERT)]):
        imported += len(batch)
        if others + imported > limit:
            raise too_many_tasks(limit)
        session.exec(statements.INSERT, params=batch)
    return imported, False


def _digest(file: IO[bytes]) -> str:
    digest = sha256()
    while part := file.read(IN_MEMORY_BYTES):
        digest.update(part)
    file.seek(0)
    return digest.hexdigest()


def _read(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the columns of each task. Blank lines are skipped."""
    now = datetime.now(UTC)
    lines = iter(partial(file.readline, BODY_MAX_BYTES + 1), b"")
    for number, line in enumerate(lines, 1):
        if len(line) > BODY_MAX_BYTES:
            message = f"is longer than {BODY_MAX_BYTES} bytes. {SEND_JSON_LINES}"
            raise invalid("body", f"line {number}", message=message)
        # Concatenated files have byte order marks in the middle too.
        if task := line.removeprefix(BYTE_ORDER_MARK).strip():
            yield new_columns(_parse(task, number), now)


def _parse(line: bytes, number: int) -> TaskCreate:
    try:
        return TaskCreate.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        # The parser sees each line as line 1.
        message = problem["msg"].replace(" at line 1 column", " at character")
        if not problem["loc"]:  # it is not a JSON object
            message = f"{message}. {SEND_JSON_LINES}"
        raise invalid(
            "body", f"line {number}", *map(str, problem["loc"]), message=message
        ) from error
