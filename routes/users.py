"""The caller: who they are, the tags they use, and all that is stored for them."""

from collections import Counter
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

import statements
from auth import UNAUTHORIZED, CurrentUser
from db import SessionDep
from errors import INVALID, UNAVAILABLE
from guard import GuardedRoute
from models import INT64, User, folded

router = APIRouter(route_class=GuardedRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


class TagCount(BaseModel):
    """A tag, and how many tasks have it."""

    tag: Annotated[str, Field(description="The tag.", examples=["shopping"])]
    tasks: Annotated[
        int,
        Field(description="How many of your tasks have it.", examples=[3], json_schema_extra=INT64),
    ]


@router.get("/api/tags", summary="List tags", response_description="Your tags")
def list_tags(user: CurrentUser, session: SessionDep) -> list[TagCount]:
    """Return your tags, the most used first, each with the number of your tasks that have it.

    `Work` and `work` are one tag; it is listed in the spelling that you use most. At most 1,000
    spellings are counted.
    """
    spellings: dict[str, str] = {}
    tasks = Counter[str]()
    for row in session.exec(statements.TAGS, params={"owner": user.id}):
        tag = folded(row.tag)
        spellings.setdefault(tag, row.tag)
        tasks[tag] += row.tasks
    used_most = sorted(tasks, key=lambda tag: (-tasks[tag], tag))
    return [TagCount(tag=spellings[tag], tasks=tasks[tag]) for tag in used_most]


@router.get("/api/me", summary="Show who you are", response_description="You")
async def read_me(user: CurrentUser) -> User:
    """Return your id, email and name as your token states them.

    Use it to check that a token works and whose it is.
    """
    return user


@router.delete(
    "/api/me",
    summary="Erase all your data",
    response_description="Everything is erased",
    status_code=HTTPStatus.NO_CONTENT,
)
def delete_me(user: CurrentUser, session: SessionDep) -> Response:
    """Erase everything that this service stores for you: all your tasks, for good.

    Nothing can be restored, so export your tasks first if you may need them. Your account at the
    auth server remains, and your token keeps working.
    """
    session.exec(statements.ERASE, params={"owner": user.id})
    return Response(status_code=HTTPStatus.NO_CONTENT)
