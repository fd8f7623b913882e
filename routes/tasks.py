"""The tasks of the caller. Every statement names their owner; what is not theirs is not there."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Path, Query, Request, Response
from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, and_, case, delete, insert, or_, update
from sqlmodel import Session
from sqlmodel.sql.expression import Select

from auth import BAD_BODY, UNAUTHORIZED, CurrentUser, GuardedRoute
from db import SessionDep
from errors import INVALID, UNAVAILABLE, Responses, documented
from models import (
    BIGINT_MAX,
    LIMIT_DEFAULT,
    LIMIT_MAX,
    TASKS,
    Digits,
    TaskCreate,
    TaskPublic,
    TaskStatus,
    TaskUpdate,
    User,
)

# SQLModel's select() is typed for models and for up to four columns; these are all of a table's.
ALL_COLUMNS: Select[*tuple[Any, ...]] = Select(*TASKS.c)
TASK_LIST = TypeAdapter(list[TaskPublic])

TaskId = Annotated[
    int, Path(ge=1, le=BIGINT_MAX, openapi_examples={"a task": {"value": 1}}), Digits
]

NOT_FOUND = documented(404, "The caller has no such task", "Task not found")
CREATED: Responses = {
    201: {"headers": {"Location": {"description": "The task's path", "schema": {"type": "string"}}}}
}

router = APIRouter(route_class=GuardedRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


def owned_by(user: User, *more: ColumnElement[bool]) -> ColumnElement[bool]:
    """Limit a statement to the user's tasks; all that read or change a task are limited by it."""
    return and_(TASKS.c.user_id == user.id, *more)


@router.post(
    "", status_code=HTTPStatus.CREATED, response_model=TaskPublic, responses=CREATED | BAD_BODY
)
def create_task(
    task: TaskCreate, request: Request, user: CurrentUser, session: SessionDep
) -> Response:
    """Create a task. It is `pending` unless you say otherwise."""
    now = datetime.now(UTC)
    values = {**task.model_dump(), "user_id": user.id, "created_at": now, "updated_at": now}
    created = _found(session.exec(insert(TASKS).values(values).returning(*TASKS.c)).one())
    location = f"{request.url.path}/{created.id}"
    return _answer(created, HTTPStatus.CREATED, headers={"Location": location})


@router.get("", response_model=list[TaskPublic])
def list_tasks(
    user: CurrentUser,
    session: SessionDep,
    status: Annotated[
        list[TaskStatus], Query(default_factory=list, description="Only these; repeatable.")
    ],
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX), Digits] = LIMIT_DEFAULT,
    offset: Annotated[int, Query(ge=0, le=BIGINT_MAX), Digits] = 0,
) -> Response:
    """List your tasks, newest first."""
    wanted = [TASKS.c.status.in_(status)] if status else []
    tasks = ALL_COLUMNS.where(owned_by(user, *wanted)).order_by(TASKS.c.id.desc())
    rows = session.exec(tasks.limit(limit).offset(offset)).all()
    return _json(TASK_LIST.dump_json(TASK_LIST.validate_python(rows)))


@router.get("/{task_id}", response_model=TaskPublic, responses=NOT_FOUND)
def read_task(task_id: TaskId, user: CurrentUser, session: SessionDep) -> Response:
    """Read one task."""
    task = ALL_COLUMNS.where(owned_by(user, TASKS.c.id == task_id))
    return _answer(_found(session.exec(task).one_or_none()))


@router.put("/{task_id}", response_model=TaskPublic, responses=NOT_FOUND | BAD_BODY)
def put_task(
    task_id: TaskId, changes: Annotated[TaskUpdate, Body()], user: CurrentUser, session: SessionDep
) -> Response:
    """Change a task, exactly as PATCH does: a field that you leave out stays as it is."""
    return _answer(_update(task_id, changes, user, session))


@router.patch("/{task_id}", response_model=TaskPublic, responses=NOT_FOUND | BAD_BODY)
def patch_task(
    task_id: TaskId, changes: Annotated[TaskUpdate, Body()], user: CurrentUser, session: SessionDep
) -> Response:
    """Change a task: a field that you leave out stays as it is, `"description": null` clears it."""
    return _answer(_update(task_id, changes, user, session))


@router.patch("/{task_id}/complete", response_model=TaskPublic, responses=NOT_FOUND)
def complete_task(task_id: TaskId, user: CurrentUser, session: SessionDep) -> Response:
    """Complete a task. Once more changes nothing."""
    return _answer(_update(task_id, {"status": TaskStatus.COMPLETED}, user, session))


@router.delete("/{task_id}", status_code=HTTPStatus.NO_CONTENT, responses=NOT_FOUND)
def delete_task(task_id: TaskId, user: CurrentUser, session: SessionDep) -> Response:
    """Delete a task for good. Its id is never given out again."""
    task = delete(TASKS).where(owned_by(user, TASKS.c.id == task_id)).returning(*TASKS.c)
    _found(session.exec(task).one_or_none())
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _update(task_id: int, changes: TaskUpdate, user: User, session: Session) -> TaskPublic:
    """Change the task in one statement, so that writers of different fields do not undo each other.

    `updated_at` moves where a value becomes another one, and never backwards, whatever the clocks
    of several machines say.
    """
    task = owned_by(user, TASKS.c.id == task_id)
    if not changes:
        return _found(session.exec(ALL_COLUMNS.where(task)).one_or_none())
    now = datetime.now(UTC)
    changed = or_(*(TASKS.c[name].is_distinct_from(value) for name, value in changes.items()))
    updated_at = case((changed & (TASKS.c.updated_at < now), now), else_=TASKS.c.updated_at)
    statement = update(TASKS).where(task).values(**changes, updated_at=updated_at)
    return _found(session.exec(statement.returning(*TASKS.c)).one_or_none())


def _found(row: object | None) -> TaskPublic:
    """Read the row, or answer 404: the caller has no such task, whoever else may have it."""
    if row is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "Task not found")
    return TaskPublic.model_validate(row)


def _answer(
    task: TaskPublic, status_code: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    return _json(task.model_dump_json(), status_code, headers)


def _json(
    content: str | bytes, status_code: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """Answer with JSON as it is; FastAPI would validate our own rows again, in another thread."""
    return Response(content, status_code, headers, "application/json")
