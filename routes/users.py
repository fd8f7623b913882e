"""The caller: who they are, and all that is stored for them."""

from http import HTTPStatus

from fastapi import APIRouter, Response

import statements
from auth import UNAUTHORIZED, CurrentUser, GuardedRoute
from db import SessionDep
from errors import INVALID, UNAVAILABLE
from models import User

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
