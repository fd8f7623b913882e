"""The caller: who they are, the tags they use, and all that is stored for them."""

from collections import Counter
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

import statements
from auth import UNAUTHORIZED, CurrentUser, GuardedRoute
from db import SessionDep
from errors import INVALID, UNAVAILABLE
from models import INT64, User, folded

router = APIRouter(route_class=GuardedRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


@router.get("/api/me")
async def read_me(user: CurrentUser) -> User:
    """Tell who you are, as your token states it."""
    return user


@router.delete("/api/me", status_code=HTTPStatus.NO_CONTENT)
def delete_me(user: CurrentUser, session: SessionDep) -> Response:
    """Erase everything that is stored for you, for good."""
    session.exec(statements.ERASE, params={"owner": user.id})
    return Response(status_code=HTTPStatus.NO_CONTENT)


class TagCount(BaseModel):
    """A tag, and how many tasks have it."""

    tag: str
    tasks: Annotated[int, Field(json_schema_extra=INT64)]


@router.get("/api/tags")
def list_tags(user: CurrentUser, session: SessionDep) -> list[TagCount]:
    """List your tags, the most used first, each with how many of your tasks have it.

    A tag that you write in several ways, such as `Work` and `work`, is listed as you write it most.
    At most 1,000 spellings are counted.
    """
    spellings: dict[str, str] = {}
    tasks = Counter[str]()
    for row in session.exec(statements.TAGS, params={"owner": user.id}):
        tag = folded(row.tag)
        spellings.setdefault(tag, row.tag)
        tasks[tag] += row.tasks
    used_most = sorted(tasks, key=lambda tag: (-tasks[tag], tag))
    return [TagCount(tag=spellings[tag], tasks=tasks[tag]) for tag in used_most]
