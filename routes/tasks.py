"""The operations on the caller's tasks. Other users' tasks look as if they did not exist."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Body, Depends, Header, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic_core import to_json
from sqlalchemy import Row
from sqlmodel import Session

import statements
from auth import UNAUTHORIZED, CurrentUser
from db import SessionDep
from errors import INVALID, UNAVAILABLE, Responses, documented, invalid
from guard import BAD_BODY, GuardedRoute
from models import (
    BIGINT_MAX,
    IDEMPOTENCY_KEY_MAX_CHARS,
    INT64,
    Digits,
    TaskCreate,
    TaskPublic,
    TaskStatus,
    TaskUpdate,
    User,
    new_columns,
    without_null,
)
from routes.paging import Page, PageQuery, path_of, task_of
from routes.preconditions import (
    NOT_SATISFIED,
    PRECONDITION_FAILED,
    READ_HEADERS,
    WRITE_HEADERS,
    Preconditions,
    etag,
    is_current,
    refuse_preconditions,
)

IDS_MAX = 500

TaskId = Annotated[int, Field(ge=1, le=BIGINT_MAX, json_schema_extra=INT64), Digits]
TaskIdPath = Annotated[
    TaskId,
    Path(
        description="The `id` of one of your tasks, such as `1`.",
        openapi_examples={"a task": {"value": 1}},
    ),
]
IdempotencyKey = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=IDEMPOTENCY_KEY_MAX_CHARS)
]
IdempotencyKeyHeader = Annotated[
    IdempotencyKey | None,
    Header(
        description="A unique string that you choose per request, such as a UUID. If you send the "
        "request again with the same key and the same body, nothing is created a second time: "
        "you get the result of the first request.",
        examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
        json_schema_extra=without_null,
    ),
]


class Selection(BaseModel):
    """The tasks that one request changes or deletes together."""

    status: list[TaskStatus] = Field(
        default_factory=list,
        description="Only tasks with this status, such as `completed`. Repeat the parameter to "
        "select several.",
        json_schema_extra={"example": ["completed"]},  # which /docs fills in
    )
    id: list[TaskId] = Field(
        default_factory=list,
        description="Only tasks with this id, such as `1`. Repeat the parameter to select several; "
        f"at most {IDS_MAX}.",
        examples=[[1, 2]],
        max_length=IDS_MAX,
    )

    @model_validator(mode="after")
    def _require_a_filter(self) -> "Selection":
        if not self.status and not self.id:
            raise ValueError("specify `status`, `id`, or both")
        return self


SelectionQuery = Annotated[Selection, Query()]


class Updated(BaseModel):
    """The result of an update of many tasks."""

    updated: Annotated[
        int,
        Field(
            description="How many tasks were selected, including those whose values stay the same; "
            "0 if the body is empty.",
            examples=[3],
            json_schema_extra=INT64,
        ),
    ]


class Deleted(BaseModel):
    """The result of a deletion of many tasks."""

    deleted: Annotated[
        int,
        Field(description="How many tasks were deleted.", examples=[3], json_schema_extra=INT64),
    ]


def _header(description: str) -> dict[str, object]:
    return {"description": description, "schema": {"type": "string"}}


ETAG = _header("The version of the task, for `If-Match` and `If-None-Match`.")
TASK: Responses = {200: {"description": "The task", "headers": {"ETag": ETAG}}}
NOT_MODIFIED: Responses = {304: {"description": "You already have the current version"}}
CREATED: Responses = {
    200: {
        "description": "You have sent this key before, and it created this task",
        "model": TaskPublic,
        "headers": {
            "Idempotent-Replayed": _header("`true`"),
            "Location": _header("The path of the task."),
            "ETag": ETAG,
        },
    },
    201: {
        "description": "The new task",
        "headers": {"Location": _header("The path of the new task."), "ETag": ETAG},
    },
}
LISTED: Responses = {
    200: {
        "description": "One page of your tasks",
        "headers": {
            "X-Total-Count": _header("The number of matching tasks on all pages."),
            "Link": _header("The URLs of the pages `next`, `prev` and `first` (RFC 8288)."),
        },
    }
}
NOT_FOUND = documented(404, "You have no such task", "Task not found")
FULL = documented(
    409,
    "You have as many tasks as the server allows (TASKS_PER_USER)",
    "No more than 10000 tasks are allowed; delete some first",
)
CHANGED = TASK | NOT_FOUND | PRECONDITION_FAILED

router = APIRouter(route_class=GuardedRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)
bulk_router = APIRouter(
    route_class=GuardedRoute,
    responses=UNAUTHORIZED | INVALID | UNAVAILABLE,
    dependencies=[Depends(refuse_preconditions)],
)


@router.post(
    "",
    summary="Create a task",
    status_code=HTTPStatus.CREATED,
    response_model=TaskPublic,
    responses=CREATED | BAD_BODY | FULL,
)
def create_task(
    task: TaskCreate,
    request: Request,
    user: CurrentUser,
    session: SessionDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Create a task and return it with its `id`.

    Only `title` is required. Send an `Idempotency-Key` if you may have to repeat the request, for
    example after a lost connection.
    """
    limit: int = request.app.state.settings.tasks_per_user
    body = KeyedBody()
    if idempotency_key:
        body = KeyedBody(idempotency_key, digest_of(task))
    row = insert_task(new_columns(task, datetime.now(UTC)), body, user, session, limit)
    location = {"Location": f"{path_of(request)}/{row.id}"}
    if row.replayed:
        return _answer(row, headers=location | {"Idempotent-Replayed": "true"})
    return _answer(row, HTTPStatus.CREATED, location)


@router.get("", summary="List tasks", response_model=list[TaskPublic], responses=LISTED)
def list_tasks(
    request: Request, user: CurrentUser, session: SessionDep, page: PageQuery
) -> Response:
    """Return one page of your tasks, newest first unless `sort` says otherwise.

    Without filters, all your tasks are listed; with several, a task must match each of them. To get
    the next page, request the URL with `rel="next"` in the `Link` header: its pages neither repeat
    nor skip tasks while others are created or deleted.
    """
    read = session.exec(page.statement(), params=page.parameters(user)).all()
    headers = {"Link": link} if (link := page.link(request, read)) else {}
    if page.total:
        headers["X-Total-Count"] = str(total_of(page, read, user, session))
    return json_response(to_json([task_of(row) for row in page.rows(read)]), headers=headers)


@router.get(
    "/{task_id}",
    summary="Read a task",
    response_model=TaskPublic,
    responses=TASK | NOT_MODIFIED | NOT_FOUND,
    openapi_extra=READ_HEADERS,
)
def read_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, session: SessionDep
) -> Response:
    """Return one task.

    If you send its last `ETag` as `If-None-Match`, you get a 304 without a body as long as the task
    has not changed.
    """
    parameters = {"owner": user.id, "task_id": task_id}
    row = found(session.exec(statements.READ, params=parameters).one_or_none())
    if is_current(request, row.version):
        return Response(None, HTTPStatus.NOT_MODIFIED, {"ETag": etag(row.version)})
    return _answer(row)


@router.put(
    "/{task_id}",
    summary="Update a task (PUT)",
    response_model=TaskPublic,
    responses=CHANGED | BAD_BODY,
    openapi_extra=WRITE_HEADERS,
)
def put_task(
    task_id: TaskIdPath,
    changes: Annotated[TaskUpdate, Body()],
    request: Request,
    user: CurrentUser,
    session: SessionDep,
) -> Response:
    """Update a task and return it.

    Fields that you leave out keep their values, so PUT does the same as PATCH. If you send the
    task's `ETag` as `If-Match`, the task is updated only if nobody else has changed it since.
    """
    return _answer(_change(task_id, changes, request, user, session))


@router.patch(
    "/{task_id}",
    summary="Update a task (PATCH)",
    response_model=TaskPublic,
    responses=CHANGED | BAD_BODY,
    openapi_extra=WRITE_HEADERS,
)
def patch_task(
    task_id: TaskIdPath,
    changes: Annotated[TaskUpdate, Body()],
    request: Request,
    user: CurrentUser,
    session: SessionDep,
) -> Response:
    """Update a task and return it.

    Fields that you leave out keep their values, and null clears `description` or `due_date`. If you
    send the task's `ETag` as `If-Match`, the task is updated only if nobody else has changed it
    since.
    """
    return _answer(_change(task_id, changes, request, user, session))


@router.patch(
    "/{task_id}/complete",
    summary="Complete a task",
    response_model=TaskPublic,
    responses=CHANGED,
    openapi_extra=WRITE_HEADERS,
)
def complete_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, session: SessionDep
) -> Response:
    """Set the status of a task to `completed` and return the task.

    Completing a completed task changes nothing, so you can repeat the request.
    """
    changes: TaskUpdate = {"status": TaskStatus.COMPLETED}
    return _answer(_change(task_id, changes, request, user, session))


@router.delete(
    "/{task_id}",
    summary="Delete a task",
    response_description="The task is deleted",
    status_code=HTTPStatus.NO_CONTENT,
    responses=NOT_FOUND | PRECONDITION_FAILED,
    openapi_extra=WRITE_HEADERS,
)
def delete_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, session: SessionDep
) -> Response:
    """Delete a task for good.

    It cannot be restored, and its id is never used again. A second request gets a 404.
    """
    now = datetime.now(UTC)
    _execute_if(statements.DELETE, request, task_id, user, session, now=now)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@bulk_router.patch(
    "",
    summary="Update many tasks",
    response_description="How many tasks were selected",
    responses=BAD_BODY,
)
def patch_tasks(
    selection: SelectionQuery,
    changes: Annotated[TaskUpdate, Body()],
    user: CurrentUser,
    session: SessionDep,
) -> Updated:
    """Update all tasks that you select by `status`, by `id` or by both, all at once or not at all.

    With both, a task must match both. The response counts all selected tasks, even if their values
    stay the same; for an empty body, it is 0. A request without `status` and `id` gets a 422, so
    that it cannot update all your tasks by accident.
    """
    if not changes:
        return Updated(updated=0)
    statement = statements.update_many(frozenset(changes), selection.status, selection.id)
    parameters = {"owner": user.id, **statements.new_values(changes)}
    return Updated(updated=session.exec(statement, params=parameters).rowcount)


@bulk_router.delete(
    "", summary="Delete many tasks", response_description="How many tasks were deleted"
)
def delete_tasks(selection: SelectionQuery, user: CurrentUser, session: SessionDep) -> Deleted:
    """Delete all tasks that you select by `status`, by `id` or by both, for good.

    With both, a task must match both. The response counts the deleted tasks. A request
    without `status` and `id` gets a 422, so that it cannot delete all your tasks by accident.
    """
    statement = statements.delete_many(selection.status, selection.id)
    parameters = {"owner": user.id, "now": datetime.now(UTC)}
    return Deleted(deleted=session.exec(statement, params=parameters).rowcount)


class KeyedBody(NamedTuple):
    """An `Idempotency-Key` and the digest of its body. Without a key, both are None."""

    key: IdempotencyKey | None = None
    digest: str | None = None


# The fields that a task had in the first versions that stored digests.
FIRST_FIELDS = {"title", "description", "status"}


def digest_of(task: TaskCreate) -> str:
    """Return the digest of a task that came with a key.

    Fields that the first versions did not have count only if they are not the default, so that a
    request that is repeated during a release has the same digest in both versions.
    """
    defaults = {
        name
        for name, field in TaskCreate.model_fields.items()
        if name not in FIRST_FIELDS and getattr(task, name) == field.default
    }
    return sha256(task.model_dump_json(exclude=defaults).encode()).hexdigest()


def insert_task(
    columns: Mapping[str, object], body: KeyedBody, user: User, session: Session, limit: int
) -> Row[Any]:
    """Insert a task, or return the one that the key created before, which is then `replayed`.

    Raises:
        HTTPException: the user has `limit` tasks already.
        RequestValidationError: the key was already used with a different body.

    """
    new = {**columns, "idempotency_key": body.key, "idempotency_digest": body.digest}
    parameters: dict[str, object] = {"owner": user.id, "others": limit - 1, "new_replayed": False}
    parameters |= {f"new_{name}": value for name, value in new.items()}
    row = session.exec(statements.CREATE, params=parameters).one_or_none()
    if row is None:
        raise too_many_tasks(limit)
    if row.idempotency_digest != body.digest:
        raise invalid("header", "Idempotency-Key", message="was already used with a different body")
    return row


def total_of(page: Page, read: Sequence[Row[Any]], user: User, session: Session) -> int:
    """Return how many tasks match: each row has the total, and an empty first page means 0."""
    if read:
        return int(read[0].total)
    if page.is_first:
        return 0
    return session.exec(page.total_statement(), params=page.parameters(user)).one()


def _change(
    task_id: int, changes: TaskUpdate, request: Request, user: User, session: Session
) -> Row[Any]:
    if not changes:
        return _execute_if(statements.READ, request, task_id, user, session)
    statement = statements.update_one(frozenset(changes))
    return _execute_if(statement, request, task_id, user, session, **statements.new_values(changes))


def _execute_if(
    statement: statements.OneTask,
    request: Request,
    task_id: int,
    user: User,
    session: Session,
    **parameters: object,
) -> Row[Any]:
    """Execute a statement on one task, with the request's preconditions in its WHERE clause.

    If there are preconditions and no task is found, a second statement determines why: the user has
    no such task (404), or its version does not satisfy them (412).
    """
    parameters |= {"owner": user.id, "task_id": task_id}
    preconditions = Preconditions.of(request)
    wanted = statements.if_version(statement, *preconditions)
    row = session.exec(wanted, params=parameters).one_or_none()
    if row is None and preconditions != (None, None):
        found(session.exec(statements.READ, params=parameters).one_or_none())
        raise HTTPException(HTTPStatus.PRECONDITION_FAILED, NOT_SATISFIED)
    return found(row)


def too_many_tasks(limit: int) -> HTTPException:
    """Return the error of a request that would exceed TASKS_PER_USER."""
    detail = f"No more than {limit} tasks are allowed; delete some first"
    return HTTPException(HTTPStatus.CONFLICT, detail)


def found(row: Row[Any] | None) -> Row[Any]:
    """Return the row. Without one, raise a 404, whether or not another user has such a task."""
    if row is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "Task not found")
    return row


def _answer(
    row: Row[Any],
    status_code: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return json_response(
        to_json(task_of(row)), status_code, {**(headers or {}), "ETag": etag(row.version)}
    )


def json_response(
    content: bytes, status_code: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """Respond with this JSON. FastAPI would validate our own rows again, in another thread."""
    return Response(content, status_code, headers, "application/json")
