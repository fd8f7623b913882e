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
# How long an unchanged sync token is returned without a complete check. If a purge removed the
# tombstone of the user's latest change meanwhile, the one before would be the latest again. So this
# must be much shorter than the day for which a purge keeps tombstones at least.
CHECK_INTERVAL_SECONDS = 600

Number = Annotated[int, Field(ge=0, le=BIGINT_MAX)]
NO_LONGER_VALID = "`since` is no longer valid; request again without it"

router = APIRouter(route_class=GuardedRoute, responses=UNAUTHORIZED | INVALID | UNAVAILABLE)


class Change(NamedTuple):
    """A change of a task, as LATEST and CHANGES read it."""

    changed: Number
    id: Number
    written_by: str


NO_CHANGE = Change(0, 0, "")


@dataclass(frozen=True)
class SyncToken:
    """A position in the order of changes: the `next` of a response, the `since` of a request."""

    origin: str  # a digest of the database's identity and the user
    checked_at: Number  # when the database confirmed that it is valid, in seconds since 1970
    # A task that the client has or had, or 0. If it has not even left a tombstone, the user has
    # erased everything.
    known: Number
    # After the last page, the client has all changes before this one.
    horizon: Number
    latest: Change  # the last change that the client has
    more: bool  # whether there are more pages
    # The first pass lists no deletions: the client has no tasks that could have been deleted.
    is_first: bool

    def is_current(self, latest: Change) -> bool:
        """Return whether the client has all changes, given the user's latest one.

        The client lacks only changes from `horizon` on. If the latest change is an earlier one, and
        the one that the client has, there are none.
        """
        return (
            latest == self.latest != NO_CHANGE
            and self.latest.changed < self.horizon
            and abs(time.time() - self.checked_at) < CHECK_INTERVAL_SECONDS
        )

    def parameters(self) -> dict[str, object]:
        """Return the values for CHANGES."""
        changed, id_ = self.latest.changed, self.latest.id
        if not self.more:
            # Read from the horizon. If it is later than the client's last change, there was nothing
            # in between. But PostgreSQL may assign these ids again after a crash, if they belonged
            # to transactions that were not committed.
            changed, id_ = min(self.horizon, changed + 1), 0
        return {
            "changed": changed,
            "id": id_,
            "with_deleted": not self.is_first,
            "known": self.known,
        }

    def encode(self) -> str:
        """Return the token as clients see it."""
        return to_opaque(SYNC_TOKEN.dump_json(self))


SYNC_TOKEN = TypeAdapter(SyncToken)
START = SyncToken(
    "", checked_at=0, known=0, horizon=BIGINT_MAX, latest=NO_CHANGE, more=True, is_first=True
)


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
    since, latest = query.since, query.since.latest
    if not since.more:
        latest = _latest_change(user, session)
        if since.is_current(latest):
            return _answer([], since)
    parameters = {"owner": user.id, "limit": query.limit + 1, **since.parameters()}
    rows = session.exec(statements.CHANGES, params=parameters).all()
    state = rows[0]
    page = [row for row in rows[: query.limit] if row.id is not None]
    origin = sha256(f"{state.identity} {user.id}".encode()).hexdigest()[:16]
    if since is not START:
        _require_valid(since, state, origin)
    more = len(rows) > query.limit
    if page:
        latest = Change(page[-1].changed, page[-1].id, page[-1].written_by)
    if since.is_first and not more:  # continue after the tombstones, which were not listed
        latest = max(latest, _latest_change(user, session))
    token = SyncToken(
        origin,
        checked_at=int(time.time()),
        known=_known(page, state.horizon) or since.known or _known(page),
        # The first page's, unless it is lower now: the database may have crashed in between.
        horizon=min(since.horizon, state.horizon) if since.more else state.horizon,
        latest=latest,
        more=more,
        is_first=since.is_first and more,
    )
    return _answer(page, token)


def _latest_change(user: User, session: Session) -> Change:
    row = session.exec(statements.LATEST, params={"owner": user.id}).one_or_none()
    return NO_CHANGE if row is None else Change._make(row)


def _require_valid(token: SyncToken, state: Row[Any], origin: str) -> None:
    """Refuse a token with which the client would miss changes."""
    # Between the pages of a later pass, the client lacks the deletions after its last change.
    complete_before = token.horizon
    if token.more and not token.is_first:
        complete_before = min(token.horizon, token.latest.changed)
    is_valid = (
        token.origin == origin
        and state.purged < complete_before
        and max(token.horizon, token.latest.changed) <= state.next_change
        and (token.known == 0 or state.is_known)
    )
    if not is_valid:
        raise HTTPException(HTTPStatus.GONE, NO_LONGER_VALID)


def _known(page: Sequence[Row[Any]], before: int = BIGINT_MAX) -> int:
    """Return the last task that changed before this transaction, or 0.

    A task that commits while the user's other tasks are erased survives, and would hide the
    erasure. As long as a transaction is open, which may be the erasure, prefer a task that was
    changed before it. Such a task survives only if it commits within that moment, too.
    """
    ids = [row.id for row in page if row.deleted_at is None and row.changed < before]
    return ids[-1] if ids else 0


def _answer(page: Sequence[Row[Any]], token: SyncToken) -> Response:
    changes = {
        "tasks": [task_of(row) for row in page if row.deleted_at is None],
        "deleted": [row.id for row in page if row.deleted_at is not None],
        "next": token.encode(),
        "more": token.more,
    }
    return json_response(to_json(changes))
