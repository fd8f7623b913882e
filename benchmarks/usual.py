"""The usual code of this stack, as in tutorials, for comparison with the service.

It has sync dependencies, SELECT + change + commit + refresh, pre-ping, `response_model`, and
decodes the token of each request. The pool has a connection for each client. With fewer, requests
that hold a connection wait for a thread, and those that hold a thread wait for a connection.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from sqlmodel import Field, Session, SQLModel, create_engine, select

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://")
engine = create_engine(url, pool_pre_ping=True, pool_size=100, max_overflow=40)


class TaskCreate(SQLModel):
    """A new task."""

    title: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    status: str = "pending"


class TaskUpdate(SQLModel):
    """The changes to a task."""

    title: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    status: str | None = None


class Task(TaskCreate, table=True):
    """A row."""

    id: int | None = Field(default=None, primary_key=True)
    user_id: str = Field(index=True)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class TaskPublic(TaskCreate):
    """A task as its owner sees it."""

    id: int
    user_id: str
    created_at: datetime
    updated_at: datetime


def get_session() -> Iterator[Session]:
    """Yield the session of a request."""
    with Session(engine) as session:
        yield session


def get_user_id(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """Return the user of the token."""
    secret = os.environ["BETTER_AUTH_SECRET"]
    try:
        return str(jwt.decode(credentials.credentials, secret, algorithms=["HS256"])["sub"])
    except (JWTError, KeyError) as error:
        raise HTTPException(401, "Invalid token") from error


SessionDep = Annotated[Session, Depends(get_session)]
UserId = Annotated[str, Depends(get_user_id)]


def get_task(task_id: int, user_id: UserId, session: SessionDep) -> Task:
    """Return the user's task."""
    task = session.exec(select(Task).where(Task.id == task_id, Task.user_id == user_id)).first()
    if task is None:
        raise HTTPException(404, "Task not found")
    return task


OwnTask = Annotated[Task, Depends(get_task)]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table."""
    SQLModel.metadata.create_all(engine)
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/api/tasks", status_code=201, response_model=TaskPublic)
def create_task(task: TaskCreate, user_id: UserId, session: SessionDep) -> Task:
    """Create a task."""
    return _saved(Task(**task.model_dump(), user_id=user_id), session)


@app.get("/api/tasks", response_model=list[TaskPublic])
def list_tasks(
    user_id: UserId,
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[Task]:
    """List the user's tasks, newest first."""
    tasks = select(Task).where(Task.user_id == user_id).order_by(Task.id.desc())  # type: ignore[union-attr]  # typed as the value
    return list(session.exec(tasks.limit(limit).offset(offset)))


@app.get("/api/tasks/{task_id}", response_model=TaskPublic)
def read_task(task: OwnTask) -> Task:
    """Read a task."""
    return task


@app.put("/api/tasks/{task_id}", response_model=TaskPublic)
def update_task(task: OwnTask, changes: TaskUpdate, session: SessionDep) -> Task:
    """Change a task."""
    task.sqlmodel_update(changes.model_dump(exclude_unset=True))
    task.updated_at = datetime.now(UTC)
    return _saved(task, session)


@app.patch("/api/tasks/{task_id}/complete", response_model=TaskPublic)
def complete_task(task: OwnTask, session: SessionDep) -> Task:
    """Complete a task."""
    task.status = "completed"
    task.updated_at = datetime.now(UTC)
    return _saved(task, session)


@app.delete("/api/tasks/{task_id}", status_code=204)
def delete_task(task: OwnTask, session: SessionDep) -> None:
    """Delete a task."""
    session.delete(task)
    session.commit()


def _saved(task: Task, session: Session) -> Task:
    session.add(task)
    session.commit()
    session.refresh(task)
    return task
