"""Filtering, sorting and paging of the task list, with links between pages.

Links use keyset pagination: a page begins after a task, not after a number of tasks. So every page
costs the same, and no task is repeated or skipped if others are added or deleted.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import Query, Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from sqlalchemy import Row
from sqlmodel.sql.expression import SelectOfScalar

import statements
from models import (
    BIGINT_MAX,
    INT32,
    INT64,
    TAGS_MAX,
    TITLE_MAX_CHARS,
    Digits,
    DueDate,
    Priority,
    Storable,
    Tag,
    TaskStatus,
    User,
    folded,
    without_null,
)
from statements import TASK_FIELDS, Rows, Sort

LIMIT_MAX = 100
LIMIT_DEFAULT = 50

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Cursor:
    """A task's position in a sort order. The page begins after it or, backward, ends before it."""

    sort: Sort
    backward: bool
    # A folded title, a due date, a rank, or microseconds since 1970 (the years 828 to 6536).
    value: Annotated[str, Storable] | Annotated[int, Field(ge=-(2**55), le=2**57)]
    id: Annotated[int, Field(ge=0, le=BIGINT_MAX)]

    @classmethod
    def of(cls, row: Row[Any], sort: Sort, *, backward: bool) -> "Cursor":
        """Create the cursor of a row."""
        if sort.by_time:
            value = (getattr(row, sort.removeprefix("-")) - EPOCH) // MICROSECOND
        else:
            value = row.key
        return cls(sort, backward, value, row.id)

    @property
    def key(self) -> str | int | datetime:
        """The value by which the task is sorted."""
        if self.sort.by_time:
            return EPOCH + int(self.value) * MICROSECOND
        return self.value

    def encode(self) -> str:
        """Encode it as an opaque string that needs no quoting in a URL."""
        return to_opaque(CURSOR.dump_json(self))


CURSOR = TypeAdapter(Cursor)
CURSOR_AS_TEXT = WithJsonSchema(
    {
        "type": "string",
        "examples": ["eyJzb3J0IjoidGl0bGUiLCJiYWNrd2FyZCI6ZmFsc2UsInZhbHVlIjoiYSIsImlkIjoxfQ"],
    }
)


def to_opaque(json: bytes) -> str:
    """Encode JSON for a URL, so that nobody relies on what is in it."""
    return urlsafe_b64encode(json).decode().rstrip("=")


def from_opaque(text: str) -> bytes:
    """Decode the result of `to_opaque`.

    Raises:
        ValueError: the text is something else.

    """
    encoded = text.encode("ascii")
    return urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))


def _decode(text: object) -> Cursor | None:
    if text is None:
        return None
    try:
        return CURSOR.validate_json(from_opaque(str(text)))
    except ValueError as error:
        raise ValueError("is not a cursor that this server returned") from error


class Page(BaseModel):
    """The query parameters of the list."""

    # Examples are in the schemas: /docs would fill in and send those of parameters. A
    # default_factory keeps empty defaults out of the contract.
    status: list[TaskStatus] = Field(
        default_factory=list,
        description="Only tasks with this status, such as `pending`. Repeat the parameter to allow "
        "several.",
        examples=[["pending", "in_progress"]],
    )
    priority: list[Priority] = Field(
        default_factory=list,
        description="Only tasks with this priority, such as `high`. Repeat the parameter to allow "
        "several.",
        examples=[["high"]],
    )
    tag: list[Tag] = Field(
        default_factory=list,
        description="Only tasks with this tag, such as `shopping`; case is ignored. Repeat the "
        "parameter to allow several: a task needs one of them.",
        examples=[["shopping"]],
        max_length=TAGS_MAX,
    )
    due_before: DueDate | None = Field(
        None,
        description="Only tasks that are due before this, such as `2026-02-01` or "
        "`2026-01-31T17:00`. A date without a time sorts before the same date with a time.",
        examples=["2026-02-01"],
        json_schema_extra=without_null,
    )
    due_after: DueDate | None = Field(
        None,
        description="Only tasks that are due after this, such as `2026-01-30T23:59`. A date "
        "without a time sorts before the same date with a time.",
        examples=["2026-01-30T23:59"],
        json_schema_extra=without_null,
    )
    due: Literal["none"] | None = Field(
        None,
        description="Only tasks without a due date, if you send `none`.",
        examples=["none"],
        json_schema_extra=without_null,
    )
    q: Annotated[str, Field(max_length=TITLE_MAX_CHARS), Storable] = Field(
        default_factory=str,
        description="Only tasks that contain this text, such as `milk`, in the title, the "
        "description or a tag; case is ignored.",
        examples=["milk"],
    )
    sort: Sort = Field(
        Sort.CREATED_AT_DOWN,
        description="The order. `-` reverses it: `-created_at` is newest first. Tasks without a "
        "due date come last in both directions.",
        examples=["due_date"],
    )
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX, json_schema_extra=INT32), Digits] = Field(
        LIMIT_DEFAULT, description="How many tasks a page has at most.", examples=[20]
    )
    offset: Annotated[int, Field(ge=0, le=BIGINT_MAX, json_schema_extra=INT64), Digits] = Field(
        0,
        description="How many tasks to skip. To read page after page, follow the `Link` header "
        "instead: tasks that are created meanwhile shift an offset.",
        examples=[50],
    )
    cursor: Annotated[Cursor | None, BeforeValidator(_decode), CURSOR_AS_TEXT] = Field(
        None,
        description="Where the page begins. Use the URLs of the `Link` header, which contain it.",
    )
    total: bool = Field(
        default=True,
        description="`false` skips counting the tasks, so that the response has no "
        "`X-Total-Count`.",
        examples=[False],
    )

    @field_validator("cursor")
    @classmethod
    def _require_its_order(cls, cursor: Cursor | None, info: ValidationInfo) -> Cursor | None:
        if cursor is not None and "sort" in info.data:
            sort: Sort = info.data["sort"]
            is_text = sort.key.type.python_type is str
            if cursor.sort != sort or isinstance(cursor.value, str) != is_text:
                raise ValueError("belongs to another sort")
        return cursor

    @property
    def filters(self) -> frozenset[str]:
        """The names of the filters that are set."""
        return frozenset(name for name in statements.FILTERS if getattr(self, name))

    @property
    def is_first(self) -> bool:
        """Whether this is the first page."""
        return self.cursor is None and not self.offset

    @property
    def backward(self) -> bool:
        """Whether the rows are read in reverse order."""
        return self.cursor is not None and self.cursor.backward

    def statement(self) -> Rows:
        """Return the statement that reads the page, and one more row to see if more follow."""
        return statements.page(
            self.sort,
            self.filters,
            backward=self.backward,
            at_cursor=self.cursor is not None,
            counting=self.total,
        )

    def total_statement(self) -> SelectOfScalar[int]:
        """Return the statement that counts the tasks on all pages."""
        return statements.count_matching(self.filters)

    def parameters(self, user: User) -> dict[str, object]:
        """Return the parameters of both statements."""
        values: dict[str, object] = {
            "owner": user.id,
            "limit": self.limit + 1,
            "offset": self.offset,
        }
        values |= {name: getattr(self, name) for name in self.filters - {"due", "q", "tag"}}
        if self.q:
            values["q"] = folded(self.q)
        if self.tag:
            values["tag"] = [statements.tagged(tag) for tag in self.tag]
        if self.cursor is not None:
            values |= {"value": self.cursor.key, "id": self.cursor.id}
        return values

    def rows(self, read: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Return the rows of the page in the order of the list, without the extra row."""
        rows = read[: self.limit]
        return rows[::-1] if self.backward else rows

    def cursors(self, read: Sequence[Row[Any]]) -> dict[str, str | None]:
        """Return the cursors of the pages `next`, `prev` and `first`, as far as they exist."""
        rows, more = self.rows(read), len(read) > self.limit
        cursors: dict[str, str | None] = {}
        if not self.is_first:
            cursors["first"] = None
        if rows and (more if self.backward else not self.is_first):
            cursors["prev"] = Cursor.of(rows[0], self.sort, backward=True).encode()
        if rows and (more or self.backward):
            cursors["next"] = Cursor.of(rows[-1], self.sort, backward=False).encode()
        return cursors

    def link(self, request: Request, read: Sequence[Row[Any]]) -> str:
        """Return the Link header (RFC 8288)."""
        return ", ".join(
            f'<{_url(request, cursor)}>; rel="{rel}"' for rel, cursor in self.cursors(read).items()
        )


PageQuery = Annotated[Page, Query()]


def task_of(row: Row[Any]) -> dict[str, object]:
    """Return the fields of TaskPublic. Rows from the database need no validation."""
    return dict(zip(TASK_FIELDS, row, strict=False))  # the other columns are for headers


def path_of(request: Request) -> str:
    """Return the path, quoted for use in a header: a user id in it may be any text."""
    return quote(request.scope["path"])


def _url(request: Request, cursor: str | None) -> str:
    """Return the path and query of the request, with another `cursor` and without `offset`.

    The origin is left out, because behind a proxy it would be a guess.
    """
    query = [
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in {"cursor", "offset"}
    ]
    if cursor is not None:
        query.append(("cursor", cursor))
    return path_of(request) + ("?" if query else "") + urlencode(query)
