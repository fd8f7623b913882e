"""The tasks of the caller. Every statement names their owner; what is not theirs is not there."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic_core import to_json
from sqlalchemy import Row

import statements
from auth import BAD_BODY, UNAUTHORIZED, CurrentUser, GuardedRoute
from db import Database, DatabaseDep
from errors import INVALID, UNAVAILABLE, Responses, documented, invalid
from models import (
    BIGINT_MAX,
    IDEMPOTENCY_KEY_MAX_CHARS,
    Digits,
    TaskCreate,
    TaskPublic,
    TaskStatus,
    TaskUpdate,
    User,
    new_columns,
)
from routes.paging import Page, PageQuery, path_of, task_of
from routes.preconditions import (
    DOCUMENTED,
    PRECONDITION_FAILED,
    Preconditions,
    etag,
    is_current,
)

IDS_MAX = 500

TaskId = Annotated[int, Field(ge=1, le=BIGINT_MAX), Digits]
TaskIdPath = Annotated[TaskId, Path(openapi_examples={"a task": {"value": 1}})]
IdempotencyKey = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=IDEMPOTENCY_KEY_MAX_CHARS)
]
IdempotencyKeyHeader = Annotated[
    IdempotencyKey | None,
    Header(description="Sent again with the same body, it gives the same task, and no second one."),
]


class Selection(BaseModel):
    """The tasks that one request changes or deletes together."""

    status: list[TaskStatus] = Field(
        [],
        description="Those with this status; repeatable.",
        json_schema_extra={"example": ["completed"]},  # which /docs fills in
    )
    id: list[TaskId] = Field([], description="Those with this id; repeatable.", max_length=IDS_MAX)

    @model_validator(mode="after")
    def _require_a_filter(self) -> "Selection":
        if not self.status and not self.id:
            raise ValueError("say which tasks: by status, by id, or by both")
        return self


SelectionQuery = Annotated[Selection, Query()]


class Updated(BaseModel):
    """How many tasks there were to change."""

    updated: int


class Deleted(BaseModel):
    """How many tasks were deleted."""

    deleted: int


def _header(description: str) -> dict[str, object]:
    return {"description": description, "schema": {"type": "string"}}


ETAG = _header("The version, for If-Match and If-None-Match.")
TASK: Responses = {200: {"headers": {"ETag": ETAG}}}
NOT_MODIFIED: Responses = {304: {"description": "It is the version of If-None-Match"}}
CREATED: Responses = {
    200: {
        "description": "Idempotency-Key was sent before: the task that it made, as it is now",
        "model": TaskPublic,
        "headers": {"Idempotent-Replayed": _header("true"), "ETag": ETAG},
    },
    201: {"headers": {"Location": _header("The task's path"), "ETag": ETAG}},
}
LISTED: Responses = {
    200: {
        "headers": {
            "X-Total-Count": _header("How many tasks match, on all pages."),
            "Link": _header("RFC 8288: the `next` page, `prev` and `first`, where they exist."),
        }
    }
}
NOT_FOUND = documented(404, "The caller has no such task", "Task not found")
FULL = documented(
    409,
    "The caller has as many tasks as TASKS_PER_USER allows",
    "No more than 10000 tasks are allowed; delete some first",
)
CHANGED = TASK | NOT_FOUND | PRECONDITION_FAILED

router = APIRouter(route_class=GuardedRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=TaskPublic,
    responses=CREATED | BAD_BODY | FULL,
)
async def create_task(
    task: TaskCreate,
    request: Request,
    user: CurrentUser,
    database: DatabaseDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Create a task. It is `pending` unless you say otherwise."""
    limit: int = request.app.state.settings.tasks_per_user
    row = await _create(task, idempotency_key, user, database, limit)
    location = {"Location": f"{path_of(request)}/{row.id}"}
    if row.replayed:
        return _answer(row, headers=location | {"Idempotent-Replayed": "true"})
    return _answer(row, HTTPStatus.CREATED, location)


@router.get("", response_model=list[TaskPublic], responses=LISTED)
async def list_tasks(
    request: Request, user: CurrentUser, database: DatabaseDep, page: PageQuery
) -> Response:
    """List your tasks, newest first unless you say otherwise; `Link` leads to the next page."""
    read = await database.all(page.statement(), **page.parameters(user))
    headers = {"Link": link} if (link := page.link(request, read)) else {}
    if page.total:
        headers["X-Total-Count"] = str(await _total(page, read, user, database))
    return _json(to_json([task_of(row) for row in page.rows(read)]), headers=headers)


@router.get(
    "/{task_id}",
    response_model=TaskPublic,
    responses=TASK | NOT_MODIFIED | NOT_FOUND,
    openapi_extra=DOCUMENTED,
)
async def read_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, database: DatabaseDep
) -> Response:
    """Read one task."""
    row = _found(await database.one(statements.READ, owner=user.id, task_id=task_id))
    if is_current(request, row.version):
        return Response(None, HTTPStatus.NOT_MODIFIED, {"ETag": etag(row.version)})
    return _answer(row)


@router.put(
    "/{task_id}", response_model=TaskPublic, responses=CHANGED | BAD_BODY, openapi_extra=DOCUMENTED
)
async def put_task(
    task_id: TaskIdPath,
    changes: Annotated[TaskUpdate, Body()],
    request: Request,
    user: CurrentUser,
    database: DatabaseDep,
) -> Response:
    """Change a task, exactly as PATCH does: a field that you leave out stays as it is."""
    return _answer(await _change(task_id, changes, request, user, database))


@router.patch(
    "/{task_id}", response_model=TaskPublic, responses=CHANGED | BAD_BODY, openapi_extra=DOCUMENTED
)
async def patch_task(
    task_id: TaskIdPath,
    changes: Annotated[TaskUpdate, Body()],
    request: Request,
    user: CurrentUser,
    database: DatabaseDep,
) -> Response:
    """Change a task: a field that you leave out stays as it is, `"description": null` clears it."""
    return _answer(await _change(task_id, changes, request, user, database))


@router.patch(
    "/{task_id}/complete", response_model=TaskPublic, responses=CHANGED, openapi_extra=DOCUMENTED
)
async def complete_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, database: DatabaseDep
) -> Response:
    """Complete a task. Once more changes nothing."""
    changes: TaskUpdate = {"status": TaskStatus.COMPLETED}
    return _answer(await _change(task_id, changes, request, user, database))


@router.delete(
    "/{task_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=NOT_FOUND | PRECONDITION_FAILED,
    openapi_extra=DOCUMENTED,
)
async def delete_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, database: DatabaseDep
) -> Response:
    """Delete a task for good. Its id is never given out again."""
    await _where_it_holds(statements.DELETE, request, task_id, user, database)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.patch("", responses=BAD_BODY)
async def patch_tasks(
    selection: SelectionQuery,
    changes: Annotated[TaskUpdate, Body()],
    user: CurrentUser,
    database: DatabaseDep,
) -> Updated:
    """Change all tasks with a status, or with one of some ids, at once."""
    if not changes:
        return Updated(updated=0)
    statement = statements.update_many(frozenset(changes), selection.status, selection.id)
    return Updated(
        updated=await database.count(statement, owner=user.id, **statements.new_values(changes))
    )


@router.delete("")
async def delete_tasks(
    selection: SelectionQuery, user: CurrentUser, database: DatabaseDep
) -> Deleted:
    """Delete all tasks with a status, or with one of some ids, at once."""
    statement = statements.delete_many(selection.status, selection.id)
    return Deleted(deleted=await database.count(statement, owner=user.id))


async def _create(
    task: TaskCreate, key: IdempotencyKey | None, user: User, database: Database, limit: int
) -> Row[Any]:
    """Insert the task, or find the one that the key has made before."""
    digest = sha256(task.model_dump_json().encode()).hexdigest() if key else None
    new = new_columns(task, datetime.now(UTC)) | {
        "idempotency_key": key,
        "idempotency_digest": digest,
        "replayed": False,
    }
    values = {f"new_{name}": value for name, value in new.items()}
    row = await database.one(statements.CREATE, owner=user.id, others=limit - 1, **values)
    if row is None:
        raise too_many_tasks(limit)
    if row.idempotency_digest != digest:
        raise invalid("header", "Idempotency-Key", message="was sent before, with another body")
    return row


async def _total(page: Page, read: Sequence[Row[Any]], user: User, database: Database) -> int:
    """Tell how many tasks match: each row says it, and the first page has one if there is any."""
    if read:
        return int(read[0].total)
    if page.is_first:
        return 0
    (counted,) = await database.all(page.total_statement(), **page.parameters(user))
    return int(counted[0])


async def _change(
    task_id: int, changes: TaskUpdate, request: Request, user: User, database: Database
) -> Row[Any]:
    if not changes:
        return await _where_it_holds(statements.READ, request, task_id, user, database)
    statement = statements.update_one(frozenset(changes))
    return await _where_it_holds(
        statement, request, task_id, user, database, **statements.new_values(changes)
    )


async def _where_it_holds(
    statement: statements.OneTask,
    request: Request,
    task_id: int,
    user: User,
    database: Database,
    **parameters: object,
) -> Row[Any]:
    """Execute a statement on one task where the conditions hold, which it decides itself.

    Only where it found nothing another one tells why: no such task (404), or another version (412).
    """
    preconditions = Preconditions.of(request)
    wanted = statements.if_version(statement, *preconditions)
    row = await database.one(wanted, owner=user.id, task_id=task_id, **parameters)
    if row is None and preconditions != (None, None):
        _found(await database.one(statements.READ, owner=user.id, task_id=task_id))
        raise HTTPException(HTTPStatus.PRECONDITION_FAILED, "The task has another version by now")
    return _found(row)


def too_many_tasks(limit: int) -> HTTPException:
    """Refuse what would give the caller more tasks than TASKS_PER_USER allows."""
    detail = f"No more than {limit} tasks are allowed; delete some first"
    return HTTPException(HTTPStatus.CONFLICT, detail)


def _found(row: Row[Any] | None) -> Row[Any]:
    """Give the row, or answer 404: the caller has no such task, whoever else may have it."""
    if row is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "Task not found")
    return row


def _answer(
    row: Row[Any],
    status_code: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return _json(to_json(task_of(row)), status_code, {**(headers or {}), "ETag": etag(row.version)})


def _json(
    content: bytes, status_code: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """Answer with JSON as it is; FastAPI would validate our own rows again, in another thread."""
    return Response(content, status_code, headers, "application/json")
