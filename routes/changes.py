"""The changes since a client last asked, so that it can keep a copy of the caller's tasks.

docs/sync.md describes the protocol.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, WithJsonSchema
from pydantic_core import to_json
from sqlalchemy import Row
from sqlmodel import Session

import statements
from auth import UNAUTHORIZED, CurrentUser
from db import SessionDep
from errors import INVALID, UNAVAILABLE, documented
from guard import GuardedRoute
from models import BIGINT_MAX, INT32, INT64, Digits, TaskPublic, User
from routes.paging import from_opaque, task_of, to_opaque
from routes.tasks import json_response

LIMIT_MAX = 500
LIMIT_DEFAULT = 100
# How long an unchanged sync token is returned without a check against the database. It must be much
# shorter than the day for which `main.py purge` keeps tombstones.
CHECK_INTERVAL_SECONDS = 600

Number = Annotated[int, Field(ge=0, le=BIGINT_MAX)]
NO_LONGER_VALID = "`since` is no longer valid; request again without it"

router = APIRouter(route_class=GuardedRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


class Change(NamedTuple):
    """The latest change of a user, as LATEST reads it."""

    changed: Number
    id: Number
    written_by: str


@dataclass(frozen=True)
class SyncToken:
    """A position in the order of changes: the `next` of a response, the `since` of a request."""

    origin: str  # a digest of the database's identity and the user
    checked_at: Number  # when the database confirmed that it is valid, in seconds since 1970
    # A task that the client has, or 0. If it has not even left a tombstone, the user has erased
    # everything.
    known: Number
    # After the last page, the client has all changes before this one.
    horizon: Number
    # After the last page: the user's latest change, if it was read. The client has it.
    latest: Change | None
    # Before the last page: the last change that the client has, and its task. Otherwise 0.
    changed: Number
    id: Number
    # The first pass lists no deletions: the client has no tasks that could have been deleted.
    is_first: bool

    @property
    def is_complete(self) -> bool:
        """Whether the client has read the last page."""
        return self.horizon > 0 and not self.id

    def is_current(self, latest: Change | None) -> bool:
        """Return whether the client has all changes, given the user's latest one.

        The client lacks only changes from `horizon` on. If the latest change is an earlier one, and
        the one that the client has, there are none.
        """
        return (
            self.latest is not None
            and self.latest == latest
            and self.latest.changed < self.horizon
            and time.time() < self.checked_at + CHECK_INTERVAL_SECONDS
        )

    def parameters(self) -> dict[str, object]:
        """Return the values for CHANGES."""
        return {
            "changed": self.changed if self.id else self.horizon,
            "id": self.id,
            "with_deleted": not self.is_first,
            "known": self.known,
        }

    def encode(self) -> str:
        """Return the token as clients see it."""
        return to_opaque(SYNC_TOKEN.dump_json(self))


SYNC_TOKEN = TypeAdapter(SyncToken)
START = SyncToken("", checked_at=0, known=0, horizon=0, latest=None, changed=0, id=0, is_first=True)


def _decode(text: str) -> SyncToken:
    try:
        return SYNC_TOKEN.validate_json(from_opaque(text))
    except ValueError as error:
        raise ValueError("is not a `next` value from this operation") from error


class ChangesQuery(BaseModel):
    """The query parameters of the changes."""

    since: Annotated[
        SyncToken,
        BeforeValidator(_decode),
        WithJsonSchema({"type": "string", "examples": ["eyJvcmlnaW4iOiI2YWNk"]}),
    ] = Field(
        default_factory=lambda: START,
        description="The `next` of your last response. Without it, the listing starts from the "
        "beginning.",
    )
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX, json_schema_extra=INT32), Digits] = Field(
        LIMIT_DEFAULT, description="How many changes you get at most.", examples=[LIMIT_DEFAULT]
    )


class Changes(BaseModel):
    """What has changed."""

    tasks: list[TaskPublic] = Field(
        description="The tasks that were created or changed, as they are now.",
        examples=[[]],
    )
    deleted: list[Annotated[int, Field(json_schema_extra=INT64)]] = Field(
        description="The ids of the tasks that were deleted.", examples=[[3]]
    )
    next: str = Field(
        description="The `since` of your next request.", examples=["eyJvcmlnaW4iOiI2YWNk"]
    )
    more: bool = Field(
        description="Whether there are more changes. If so, ask again immediately.",
        examples=[False],
    )


GONE = documented(410, "`since` is no longer valid", NO_LONGER_VALID)


@router.get(
    "/changes",
    summary="List changes",
    response_model=Changes,
    response_description="The changes",
    responses=GONE,
)
def list_changes(
    query: Annotated[ChangesQuery, Query()], user: CurrentUser, session: SessionDep
) -> Response:
    """List what has changed since your last request, the oldest change first.

    Every task that changed is listed at least once, in its current state; it may be listed again.
    """
    since, latest = query.since, None
    if since.is_complete:
        latest = _latest_change(user, session)
        if since.is_current(latest):
            return _answer([], since)
    parameters = {"owner": user.id, "limit": query.limit + 1, **since.parameters()}
    rows = session.exec(statements.CHANGES, params=parameters).all()
    state, more = rows[0], len(rows) > query.limit
    origin = sha256(f"{state.identity} {user.id}".encode()).hexdigest()[:16]
    if since is not START:
        _require_complete(since, state, origin)
    page = [row for row in rows[: query.limit] if row.id is not None]
    token = SyncToken(
        origin,
        checked_at=int(time.time()),
        known=next((row.id for row in reversed(page) if row.deleted_at is None), since.known),
        horizon=since.horizon if since.id else state.horizon,
        latest=None if more else latest,
        changed=page[-1].changed if more else 0,
        id=page[-1].id if more else 0,
        is_first=since.is_first and more,
    )
    return _answer(page, token)


def _latest_change(user: User, session: Session) -> Change | None:
    row = session.exec(statements.LATEST, params={"owner": user.id}).one_or_none()
    return None if row is None else Change._make(row)


def _answer(page: Sequence[Row[Any]], token: SyncToken) -> Response:
    changes = {
        "tasks": [task_of(row) for row in page if row.deleted_at is None],
        "deleted": [row.id for row in page if row.deleted_at is not None],
        "next": token.encode(),
        "more": token.id > 0,
    }
    return json_response(to_json(changes))


def _require_complete(token: SyncToken, state: Row[Any], origin: str) -> None:
    """Refuse a token with which the client would miss changes."""
    is_complete = (
        token.origin == origin
        and state.purged < token.horizon
        and max(token.horizon, token.changed) <= state.next_change
        and (token.known == 0 or state.is_known)
    )
    if not is_complete:
        raise HTTPException(HTTPStatus.GONE, NO_LONGER_VALID)
