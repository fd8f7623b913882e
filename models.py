"""The task: its table, the models of requests and responses, and their limits."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, cast
from unicodedata import category, normalize

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    JsonValue,
    StringConstraints,
    with_config,
)
from pydantic import Field as Documented
from pydantic.config import JsonDict
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Index,
    Integer,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel
from typing_extensions import TypedDict

TITLE_MAX_CHARS = 200
DESCRIPTION_MAX_CHARS = 2000
DUE_DATE_MAX_CHARS = len("2026-01-31T17:00")
TAG_MAX_CHARS = 50
TAGS_MAX = 20
# PostgreSQL refuses an index row over 2,704 bytes; every index but the primary key contains it.
USER_ID_MAX_CHARS = 255
IDEMPOTENCY_KEY_MAX_CHARS = 255
BIGINT_MAX = 2**63 - 1

# Generators of typed clients choose the type of an integer by its format.
INT32: JsonDict = {"format": "int32"}
INT64: JsonDict = {"format": "int64"}


class TaskStatus(StrEnum):
    """The status of a task."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


class Priority(StrEnum):
    """The priority of a task."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


def is_storable(text: str) -> bool:
    """Return whether both databases can store the text.

    PostgreSQL cannot store U+0000, SQLite can. Neither can store a lone surrogate, half of a pair
    in UTF-16, which JSON can express.
    """
    return "\0" not in text and not re.search(r"[\ud800-\udfff]", text)


def _refuse_unstorable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("must not contain U+0000 or a lone surrogate")
    return text


# The general categories Cc, Zl and Zp, which Unicode does not extend.
NOT_IN_A_LINE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]")
# Cc without the tab and the line breaks (UAX 14: LF, VT, FF, CR, NEL).
NOT_IN_A_TEXT = re.compile(r"[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
# Letters and symbols that are invisible: the Hangul and Egyptian fillers, the blank Braille
# pattern, the musical null notehead, and the object replacement character.
BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\U00013441\U00013442\U0001d159")


def _refuse_illegible(line: str) -> str:
    if NOT_IN_A_LINE.search(line):
        raise ValueError("must be one line without tabs or other control characters")
    if is_blank(line):
        raise ValueError("must have a letter, digit, punctuation mark or symbol that can be seen")
    return line


def is_blank(text: str) -> bool:
    """Return whether the text has no visible character."""
    return not any(_can_be_seen(character) for character in text)


def _can_be_seen(character: str) -> bool:
    """Return whether the character is visible by itself: letters, numbers, punctuation and symbols.

    Marks need a base character, and format characters (joiners, text direction) are invisible.
    Unassigned characters do not count, except in the ranges for pictographs: an emoji may be newer
    than Python's Unicode data.
    """
    if category(character)[0] in "LNPS" or category(character) == "Co":  # private use: icon fonts
        return character not in BLANK
    return "\U0001f000" <= character <= "\U0001fffd"


def _refuse_controls(text: str) -> str:
    if NOT_IN_A_TEXT.search(text):
        raise ValueError("must not contain control characters, except tabs and line breaks")
    return text


def _refuse_other_spellings(value: object) -> object:
    """Accept an integer only in plain decimal digits; int() also accepts `1_000`, `+5` and True."""
    is_other = isinstance(value, str) and not re.fullmatch(r"-?(0|[1-9][0-9]*)", value)
    if is_other or isinstance(value, bool):
        raise ValueError("must be a whole number, written in digits")
    return value


# In canonical order, only the ogonek of the Lithuanian į can come between them.
DOT_OF_I_OR_J = re.compile("([ij]\N{COMBINING OGONEK}?)\N{COMBINING DOT ABOVE}")


def folded(words: str) -> str:
    """Remove what a search ignores: the case of letters, and how accents are encoded.

    Neither database can do this in every locale. It is canonical caseless matching (Unicode 3.13,
    D145), extended to the languages in which i has other cases: the dotless i and the dotted I of
    Turkish (CaseFolding.txt, status T), and the dot that Lithuanian keeps under an accent
    (SpecialCasing.txt). The language is unknown, so all of them count as i. Accents are kept.
    """
    text = normalize("NFD", words).casefold().replace("\N{LATIN SMALL LETTER DOTLESS I}", "i")
    return normalize("NFC", DOT_OF_I_OR_J.sub(r"\1", normalize("NFD", text)))


DUE_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T([01][0-9]|2[0-3]):[0-5][0-9])?$"
WITH_OFFSET = re.compile(r"[0-9-]{10}([T ][0-9:.,]+)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)", re.IGNORECASE)


def _require_due_date(text: str) -> str:
    if WITH_OFFSET.fullmatch(text):
        raise ValueError("must be local time, without a time zone or offset")
    if not (re.fullmatch(DUE_DATE, text) and _is_day(text[:10])):
        raise ValueError("must be a day that exists, or a day with hours and minutes")
    return text


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _without_repetition(tags: list[str]) -> list[str]:
    """Keep the first of the tags that differ only in what a search ignores."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(folded(tag), tag)
    return list(first.values())


# Surrounds each folded tag. No tag contains it, because tags have no control characters.
TAG_SEPARATOR = "\x1f"


def folded_tags(tags: list[str]) -> str:
    """Join the tags, each between two separators, so that a search can match a whole tag."""
    return TAG_SEPARATOR.join(["", *map(folded, tags), ""]) if tags else ""


# In code point order, so that both databases sort alike, whatever PostgreSQL's locale is.
FOLDED = Text().with_variant(Text(collation="C"), "postgresql")


class Task(SQLModel, table=True):
    """A row of the table. Only statements.py reads or writes it."""

    __table_args__ = (
        # The default order of the list, within a user.
        Index(
            "ix_task_user_id_created_at_id",
            "user_id",
            "created_at",
            "id",
            postgresql_where=text("deleted_at IS NULL"),
            sqlite_where=text("deleted_at IS NULL"),
        ),
        # The order of the changes, within a user.
        Index("ix_task_user_id_changed_id", "user_id", "changed", "id"),
        Index(
            "uq_task_user_id_idempotency_key",
            "user_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
            sqlite_where=text("idempotency_key IS NOT NULL"),
        ),
        CheckConstraint("status IN ('pending', 'in_progress', 'completed')", name="ck_task_status"),
        # Without AUTOINCREMENT, SQLite would reuse the id of the last task after its deletion.
        {"sqlite_autoincrement": True},
    )

    # SQLite's AUTOINCREMENT works on a column of type INTEGER only, which has 64 bits there.
    id: int | None = Field(
        default=None,
        primary_key=True,
        sa_type=BigInteger().with_variant(Integer, "sqlite"),
    )
    user_id: str = Field(max_length=USER_ID_MAX_CHARS)
    title: str = Field(max_length=TITLE_MAX_CHARS)
    description: str | None = Field(max_length=DESCRIPTION_MAX_CHARS)
    # Text with a constraint, since SQLAlchemy would store a StrEnum's names in a native type.
    status: TaskStatus = Field(sa_type=String(16))
    # Text, since it has no time zone. In this format, the order of the text is chronological.
    due_date: str | None = Field(
        sa_type=String(DUE_DATE_MAX_CHARS).with_variant(
            String(DUE_DATE_MAX_CHARS, collation="C"), "postgresql"
        )
    )
    priority: Priority = Field(sa_type=String(16))
    tags: list[str] = Field(sa_type=JSON().with_variant(JSONB(), "postgresql"))
    created_at: datetime
    updated_at: datetime
    version: int = Field(sa_type=BigInteger)  # counts the changes; the ETag
    title_folded: str = Field(sa_type=FOLDED)  # for searching and for sorting by title
    description_folded: str | None = Field(sa_type=FOLDED)
    tags_folded: str = Field(sa_type=FOLDED)  # as `folded_tags` joins them
    idempotency_key: str | None = Field(max_length=IDEMPOTENCY_KEY_MAX_CHARS)
    idempotency_digest: str | None = Field(max_length=64)  # of the body that came with the key
    replayed: bool  # whether the key was received again
    # Set on a tombstone: a deleted task, without anything that its owner wrote.
    deleted_at: datetime | None
    # The position of the last change in the order of all changes: on PostgreSQL the id of the
    # transaction, on SQLite `Sync.changed`. Triggers set it and, for inserts into PostgreSQL, the
    # column's default.
    changed: int = Field(sa_type=BigInteger)


class Sync(SQLModel, table=True):
    """One row, which decides whether a sync token of GET /api/tasks/changes is still valid."""

    __tablename__ = "todo_backend_sync"

    # A random number. Change it after restoring an earlier state of the database in place.
    identity: int = Field(primary_key=True, sa_type=BigInteger)
    changed: int = Field(sa_type=BigInteger)  # the last change, on SQLite only
    purged: int = Field(sa_type=BigInteger)  # the latest change among the tombstones removed


TASKS = SQLModel.metadata.tables["task"]
SYNC = SQLModel.metadata.tables["todo_backend_sync"]


Digits = BeforeValidator(_refuse_other_spellings)
Storable = AfterValidator(_refuse_unstorable)

# Pydantic trims whitespace (Unicode's White_Space) before it counts code points.
Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_MAX_CHARS),
    Storable,
    AfterValidator(_refuse_illegible),
    Documented(
        description="One line of text. Whitespace around it is removed; tabs, line breaks and "
        "other control characters are refused.",
        examples=["Buy milk"],
    ),
]
Description = Annotated[
    str,
    StringConstraints(max_length=DESCRIPTION_MAX_CHARS),
    Storable,
    AfterValidator(_refuse_controls),
    Documented(
        description="Details, of any number of lines. Tabs and line breaks are kept, other control "
        "characters are refused.",
        examples=["Two liters, whole"],
    ),
]
DueDate = Annotated[
    str,
    AfterValidator(_require_due_date),
    Documented(
        description="A day, `2026-01-31`, or a day with a time, `2026-01-31T17:00`. It is "
        "in the user's local time, without a time zone or offset.",
        examples=["2026-01-31T17:00"],
        json_schema_extra={"pattern": DUE_DATE, "maxLength": DUE_DATE_MAX_CHARS},
    ),
]
Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=TAG_MAX_CHARS),
    Storable,
    AfterValidator(_refuse_illegible),
    Documented(examples=["shopping"]),
]
Tags = Annotated[
    list[Tag],
    Documented(
        max_length=TAGS_MAX,
        description="Words to group tasks by, in your order. If tags differ only in case or in how "
        "accents are encoded, the first is kept.",
        examples=[["shopping"]],
    ),
    AfterValidator(_without_repetition),
]


def _example(**fields: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


def _drop_default(schema: JsonDict) -> None:
    del schema["default"]


def without_null(schema: JsonDict) -> None:
    """Document an optional parameter without null, which no query or header can contain."""
    type_, _ = cast("list[JsonDict]", schema.pop("anyOf"))  # as Pydantic writes `... | None`
    schema.update(type_ | schema)


class TaskCreate(BaseModel):
    """A new task. Only `title` is required; unknown fields are ignored."""

    model_config = _example(
        title="Buy milk",
        description="Two liters, whole",
        due_date="2026-01-31T17:00",
        priority="high",
        tags=["shopping"],
    )

    title: Title
    description: Description | None = None
    # Generators make a property with a `default` required, so the description has it instead.
    status: TaskStatus = Documented(
        TaskStatus.PENDING,
        description="The status of the task. The default is `pending`.",
        examples=["pending"],
        json_schema_extra=_drop_default,
    )
    due_date: DueDate | None = None
    priority: Priority = Documented(
        Priority.MEDIUM,
        description="The priority of the task. The default is `medium`.",
        examples=["high"],
        json_schema_extra=_drop_default,
    )
    tags: Tags = Documented([], json_schema_extra=_drop_default)


# A TypedDict, since a model cannot distinguish an absent `title` from null.
@with_config(_example(status="in_progress"))
class TaskUpdate(TypedDict, total=False):
    """The fields to change. A field that is absent keeps its value; unknown fields are ignored."""

    title: Title
    description: Description | None
    status: Annotated[
        TaskStatus, Documented(description="The status of the task.", examples=["in_progress"])
    ]
    due_date: DueDate | None
    priority: Annotated[
        Priority, Documented(description="The priority of the task.", examples=["high"])
    ]
    tags: Tags


def columns_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that store these fields of a task, with their values."""
    columns = dict(fields)
    for name in ("title", "description"):
        if name in fields:
            columns[f"{name}_folded"] = None if fields[name] is None else folded(fields[name])
    if "tags" in fields:
        columns["tags_folded"] = folded_tags(fields["tags"] or [])
    return columns


def new_columns(task: TaskCreate, now: datetime) -> dict[str, Any]:
    """Return the columns of a new task, except its owner and its idempotency key."""
    return columns_of(task.model_dump()) | {"created_at": now, "updated_at": now, "version": 1}


class TaskPublic(BaseModel):
    """A task as its owner sees it."""

    model_config = _example(
        id=1,
        title="Buy milk",
        description="Two liters, whole",
        status="pending",
        due_date="2026-01-31T17:00",
        priority="high",
        tags=["shopping"],
        user_id="ann",
        created_at="2026-01-31T12:00:00.000000Z",
        updated_at="2026-01-31T12:00:00.000000Z",
    )

    id: Annotated[
        int,
        Documented(
            description="Identifies the task. An id is never used again, even after its task is "
            "deleted.",
            examples=[1],
            json_schema_extra=INT64,
        ),
    ]
    title: Annotated[str, Documented(description="One line of text.", examples=["Buy milk"])]
    description: Annotated[
        str | None,
        Documented(
            description="Details, or null if there are none.", examples=["Two liters, whole"]
        ),
    ]
    status: Annotated[
        TaskStatus, Documented(description="The status of the task.", examples=["pending"])
    ]
    due_date: Annotated[
        str | None,
        Documented(
            description="A day, or a day with a time, in the user's local time; null if the task "
            "has none.",
            examples=["2026-01-31T17:00"],
        ),
    ]
    priority: Annotated[
        Priority, Documented(description="The priority of the task.", examples=["high"])
    ]
    tags: Annotated[
        list[str],
        Documented(description="Words to group tasks by, in your order.", examples=[["shopping"]]),
    ]
    user_id: Annotated[
        str, Documented(description="The owner: the user who created the task.", examples=["ann"])
    ]
    created_at: Annotated[
        datetime,
        Documented(
            description="When the task was created, in UTC.",
            examples=["2026-01-31T12:00:00.000000Z"],
        ),
    ]
    updated_at: Annotated[
        datetime,
        Documented(
            description="When a field of the task last changed, in UTC.",
            examples=["2026-01-31T12:00:00.000000Z"],
        ),
    ]


class User(BaseModel):
    """The user who sends the request, as the token states it."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={"examples": [{"id": "ann", "email": "ann@example.com", "name": "Ann"}]},
    )

    id: Annotated[str, Documented(description="The token's claim `sub`.", examples=["ann"])]
    email: Annotated[
        str | None,
        Documented(
            description="The token's claim `email`, or null if it has none.",
            examples=["ann@example.com"],
        ),
    ]
    name: Annotated[
        str | None,
        Documented(
            description="The token's claim `name`, or null if it has none.", examples=["Ann"]
        ),
    ]
