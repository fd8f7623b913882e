"""All tasks of the caller out, as JSON Lines (https://jsonlines.org), and in again."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from sqlalchemy import Connection

import statements
from auth import (
    BODY_MAX_BYTES,
    TOO_LARGE,
    TOO_SLOW,
    UNAUTHORIZED,
    CurrentUser,
    GuardedRoute,
)
from db import ANSWER_SECONDS, Database, DatabaseDep, aside, time_limit, transaction
from errors import INVALID, UNAVAILABLE, invalid
from models import TaskCreate, User, new_columns
from routes.paging import EPOCH, task_of
from routes.tasks import FULL, too_many_tasks

ROWS_PER_INSERT = 200  # whose values are put into SQL while nobody else is answered
IMPORT_MAX_BYTES = 64 * 1024 * 1024
IMPORT_SECONDS = 60  # to receive it, and again to store it
IN_MEMORY_BYTES = 1024 * 1024  # what is more waits in a file

Place = tuple[datetime, int]


class TransferRoute(GuardedRoute):
    """A route whose body may be all tasks of a user."""

    body_max_bytes = IMPORT_MAX_BYTES
    body_seconds = IMPORT_SECONDS


router = APIRouter(route_class=TransferRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


class Imported(BaseModel):
    """How many tasks were created."""

    imported: int


async def receive_file(request: Request) -> AsyncIterator[IO[bytes]]:
    """Give the body as a file, so that its size costs no memory."""
    with SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
        async for chunk in request.stream():
            file.write(chunk)
        file.seek(0)
        yield file


ReceivedFile = Annotated[IO[bytes], Depends(receive_file)]

JSON_LINES = {"application/jsonl": {"itemSchema": {"$ref": "#/components/schemas/TaskPublic"}}}


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"description": "One task a line, the oldest first", "content": JSON_LINES}},
)
async def export_tasks(user: CurrentUser, database: DatabaseDep) -> StreamingResponse:
    """Give all your tasks, one JSON object a line, the oldest first."""
    pages = _export(user, database)
    # The first page is read before the answer begins, which can still be a 503 until then.
    first = await anext(pages)
    return StreamingResponse(
        _with_first(first, pages),
        media_type="application/jsonl",
        headers={"Content-Disposition": 'attachment; filename="tasks.jsonl"'},
    )


@router.post("/import", status_code=HTTPStatus.CREATED, responses=TOO_SLOW | TOO_LARGE | FULL)
async def import_tasks(
    file: ReceivedFile, request: Request, user: CurrentUser, database: DatabaseDep
) -> Imported:
    """Create a task for each line, or, where one is not valid, none at all.

    The lines are those of the export or of POST /api/tasks; as there, ids and times are new.
    """
    limit: int = request.app.state.settings.tasks_per_user
    with time_limit(IMPORT_SECONDS):
        imported = await database.run(partial(_import, file, user, limit))
    return Imported(imported=imported)


async def _export(user: User, database: Database) -> AsyncIterator[bytes]:
    """Read a page at a time: a slow reader holds no connection."""
    place: Place | None = (EPOCH, 0)
    while place is not None:
        with time_limit(ANSWER_SECONDS):
            page, place = await database.run(partial(_page, user, place))
        yield page


def _page(user: User, place: Place, connection: Connection) -> tuple[bytes, Place | None]:
    """Give the tasks after a place, and the place of the last of them, if more may follow."""
    after = dict(zip((column.name for column in statements.EXPORT_ORDER), place, strict=True))
    rows = connection.execute(statements.EXPORT, {"owner": user.id, **after}).all()
    page = b"".join(to_json(task_of(row)) + b"\n" for row in rows)
    is_full = len(rows) == statements.EXPORT_PAGE_ROWS
    return page, (rows[-1].created_at, rows[-1].id) if is_full else None


async def _with_first(first: bytes, pages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for page in pages:
        yield page


def _import(file: IO[bytes], user: User, limit: int, connection: Connection) -> int:
    """Insert the lines, and tell how many they were."""
    imported = 0
    with transaction(connection):
        held = connection.execute(statements.COUNT, {"owner": user.id}).scalar_one()
        rows = _read(file, user)
        while batch := aside(lambda: list(islice(rows, ROWS_PER_INSERT))):
            imported += len(batch)
            if held + imported > limit:
                raise too_many_tasks(limit)
            connection.execute(statements.INSERT, batch)
    return imported


def _read(file: IO[bytes], user: User) -> Iterator[dict[str, Any]]:
    """Read the lines into rows; those that are blank are stepped over."""
    now = datetime.now(UTC)
    lines = iter(partial(file.readline, BODY_MAX_BYTES), b"")
    for number, line in enumerate(lines, 1):
        if task := line.strip():
            yield new_columns(_parse(task, number), now) | {"user_id": user.id, "replayed": False}


def _parse(line: bytes, number: int) -> TaskCreate:
    try:
        return TaskCreate.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        # The parser is given one line, which it calls the first.
        message = problem["msg"].replace(" at line 1 column", " at character")
        raise invalid(
            "body", f"line {number}", *map(str, problem["loc"]), message=message
        ) from error
