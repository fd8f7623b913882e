"""The tasks of the caller. Every statement names their owner; what is not theirs is not there."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Body, Header, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic_core import to_json
from sqlalchemy import Row
from sqlmodel import Session

import statements
from auth import BAD_BODY, UNAUTHORIZED, CurrentUser, GuardedRoute
from db import SessionDep
from errors import INVALID, UNAVAILABLE, Responses, documented, invalid
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

TaskId = Annotated[int, Field(ge=1, le=BIGINT_MAX, json_schema_extra=INT64), Digits]
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

    updated: Annotated[int, Field(json_schema_extra=INT64)]


class Deleted(BaseModel):
    """How many tasks were deleted."""

    deleted: Annotated[int, Field(json_schema_extra=INT64)]


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
def create_task(
    task: TaskCreate,
    request: Request,
    user: CurrentUser,
    session: SessionDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Create a task. It is `pending` unless you say otherwise."""
    limit: int = request.app.state.settings.tasks_per_user
    body = KeyedBody()
    if idempotency_key:
        body = KeyedBody(idempotency_key, digest_of(task))
    row = insert_task(new_columns(task, datetime.now(UTC)), body, user, session, limit)
    location = {"Location": f"{path_of(request)}/{row.id}"}
    if row.replayed:
        return _answer(row, headers=location | {"Idempotent-Replayed": "true"})
    return _answer(row, HTTPStatus.CREATED, location)


@router.get("", response_model=list[TaskPublic], responses=LISTED)
def list_tasks(
    request: Request, user: CurrentUser, session: SessionDep, page: PageQuery
) -> Response:
    """List your tasks, newest first unless you say otherwise; `Link` leads to the next page."""
    read = session.exec(page.statement(), params=page.parameters(user)).all()
    headers = {"Link": link} if (link := page.link(request, read)) else {}
    if page.total:
        headers["X-Total-Count"] = str(_total(page, read, user, session))
    return json_response(to_json([task_of(row) for row in page.rows(read)]), headers=headers)


@router.get(
    "/{task_id}",
    response_model=TaskPublic,
    responses=TASK | NOT_MODIFIED | NOT_FOUND,
    openapi_extra=DOCUMENTED,
)
def read_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, session: SessionDep
) -> Response:
    """Read one task."""
    parameters = {"owner": user.id, "task_id": task_id}
    row = _found(session.exec(statements.READ, params=parameters).one_or_none())
    if is_current(request, row.version):
        return Response(None, HTTPStatus.NOT_MODIFIED, {"ETag": etag(row.version)})
    return _answer(row)


@router.put(
    "/{task_id}", response_model=TaskPublic, responses=CHANGED | BAD_BODY, openapi_extra=DOCUMENTED
)
def put_task(
    task_id: TaskIdPath,
    changes: Annotated[TaskUpdate, Body()],
    request: Request,
    user: CurrentUser,
    session: SessionDep,
) -> Response:
    """Change a task, exactly as PATCH does: a field that you leave out stays as it is."""
    return _answer(_change(task_id, changes, request, user, session))


@router.patch(
    "/{task_id}", response_model=TaskPublic, responses=CHANGED | BAD_BODY, openapi_extra=DOCUMENTED
)
def patch_task(
    task_id: TaskIdPath,
    changes: Annotated[TaskUpdate, Body()],
    request: Request,
    user: CurrentUser,
    session: SessionDep,
) -> Response:
    """Change a task: a field that you leave out stays as it is, `"description": null` clears it."""
    return _answer(_change(task_id, changes, request, user, session))


@router.patch(
    "/{task_id}/complete", response_model=TaskPublic, responses=CHANGED, openapi_extra=DOCUMENTED
)
def complete_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, session: SessionDep
) -> Response:
    """Complete a task. Once more changes nothing."""
    changes: TaskUpdate = {"status": TaskStatus.COMPLETED}
    return _answer(_change(task_id, changes, request, user, session))


@router.delete(
    "/{task_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=NOT_FOUND | PRECONDITION_FAILED,
    openapi_extra=DOCUMENTED,
)
def delete_task(
    task_id: TaskIdPath, request: Request, user: CurrentUser, session: SessionDep
) -> Response:
    """Delete a task for good. Its id is never given out again."""
    now = datetime.now(UTC)
    _execute_if(statements.DELETE, request, task_id, user, session, now=now)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.patch("", responses=BAD_BODY)
def patch_tasks(
    selection: SelectionQuery,
    changes: Annotated[TaskUpdate, Body()],
    user: CurrentUser,
    session: SessionDep,
) -> Updated:
    """Change all tasks with a status, or with one of some ids, at once."""
    if not changes:
        return Updated(updated=0)
    statement = statements.update_many(frozenset(changes), selection.status, selection.id)
    parameters = {"owner": user.id, **statements.new_values(changes)}
    return Updated(updated=session.exec(statement, params=parameters).rowcount)


@router.delete("")
def delete_tasks(selection: SelectionQuery, user: CurrentUser, session: SessionDep) -> Deleted:
    """Delete all tasks with a status, or with one of some ids, at once."""
    statement = statements.delete_many(selection.status, selection.id)
    parameters = {"owner": user.id, "now": datetime.now(UTC)}
    return Deleted(deleted=session.exec(statement, params=parameters).rowcount)


class KeyedBody(NamedTuple):
    """An Idempotency-Key and the digest of the body that came with it; neither without a key."""

    key: IdempotencyKey | None = None
    digest: str | None = None


def digest_of(task: TaskCreate) -> str:
    """Return the digest of a task that came with a key.

    Fields that the first versions did not have count only if they are not the default, so that a
    request that is repeated during a release has the same digest in both versions.
    """
    later = ("due_date", "priority", "tags")
    defaults = {
        name for name in later if getattr(task, name) == TaskCreate.model_fields[name].default
    }
    return sha256(task.model_dump_json(exclude=defaults).encode()).hexdigest()


def insert_task(
    columns: Mapping[str, object], body: KeyedBody, user: User, session: Session, limit: int
) -> Row[Any]:
    """Insert a task, or return the one that the key created before, which is then `replayed`.

    Raises:
        HTTPException: the user has `limit` tasks already.
        RequestValidationError: the key came before with another body.

    """
    new = {**columns, "idempotency_key": body.key, "idempotency_digest": body.digest}
    parameters: dict[str, object] = {"owner": user.id, "others": limit - 1, "new_replayed": False}
    parameters |= {f"new_{name}": value for name, value in new.items()}
    row = session.exec(statements.CREATE, params=parameters).one_or_none()
    if row is None:
        raise too_many_tasks(limit)
    if row.idempotency_digest != body.digest:
        raise invalid("header", "Idempotency-Key", message="was sent before, with another body")
    return row


def _total(page: Page, read: Sequence[Row[Any]], user: User, session: Session) -> int:
    """Tell how many tasks match: each row says it, and the first page has one if there is any."""
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
    """Execute a statement on one task, which checks the preconditions of the request itself.

    If it found nothing, a second one tells why: no such task (404), or another version (412).
    """
    parameters |= {"owner": user.id, "task_id": task_id}
    preconditions = Preconditions.of(request)
    wanted = statements.if_version(statement, *preconditions)
    row = session.exec(wanted, params=parameters).one_or_none()
    if row is None and preconditions != (None, None):
        _found(session.exec(statements.READ, params=parameters).one_or_none())
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
    return json_response(
        to_json(task_of(row)), status_code, {**(headers or {}), "ETag": etag(row.version)}
    )


def json_response(
    content: bytes, status_code: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """Answer with JSON as it is; FastAPI would validate our own rows again, in another thread."""
    return Response(content, status_code, headers, "application/json")
