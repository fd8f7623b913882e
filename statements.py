"""All statements on tasks. Those that requests execute are limited to one owner.

Their condition is `owned` or, with tombstones, `owned_with_tombstones`. INSERT sets the owner. Only
RECORD_PURGE and PURGE, which `main.py purge` executes, cover all users.

Statements are built once, since building one costs more than executing it; only `update_many`,
`delete_many` and, with versions, `if_version` build one per call. The caller passes the values with
each execution, as in `session.exec(READ, params={"owner": user.id, "task_id": 1})`.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import (
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Row,
    Text,
    Update,
    UpdateBase,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    literal_column,
    or_,
    true,
    tuple_,
    update,
)
from sqlalchemy import insert as insert_rows

# SQLite writes ON CONFLICT as PostgreSQL does, and accepts PostgreSQL's construct.
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import select
from sqlmodel.sql.expression import Select, SelectOfScalar

from models import (
    SYNC,
    TAG_SEPARATOR,
    TASKS,
    Priority,
    TaskPublic,
    TaskStatus,
    TaskUpdate,
    columns_of,
    folded,
)

# The columns of a response, and the version for its ETag.
TASK_FIELDS = tuple(TaskPublic.model_fields)
TASK_COLUMNS = (*(TASKS.c[name] for name in TASK_FIELDS), TASKS.c.version)

# SQLModel would type each row as a plain tuple, without the names of its columns.
Rows = SelectOfScalar[Row[Any]]


def owned(*more: ColumnElement[bool]) -> ColumnElement[bool]:
    """Limit a statement to the tasks of one user, the parameter `owner`, which is then required."""
    return owned_with_tombstones(TASKS.c.deleted_at.is_(None), *more)


def owned_with_tombstones(*more: ColumnElement[bool]) -> ColumnElement[bool]:
    """Limit a statement to the tasks of one user, including the tombstones of deleted ones."""
    return and_(TASKS.c.user_id == bindparam("owner"), *more)


def select_tasks(*more: ColumnElement[Any]) -> Rows:
    """Select the columns of a task, and more."""
    return cast("Rows", Select(*TASK_COLUMNS, *more))


def _one_task() -> ColumnElement[bool]:
    return owned(TASKS.c.id == bindparam("task_id"))


# Parameters: owner, task_id.
READ = select_tasks().where(_one_task())

# Parameters: owner.
COUNT = select(func.count()).select_from(TASKS).where(owned())
ERASE = delete(TASKS).where(owned_with_tombstones())


# Left out of inserts: the database sets the first two, and a new task is not deleted.
NOT_INSERTED = {"id", "changed", "deleted_at"}


def _create() -> UpdateBase:
    """Insert a task unless its owner is at the limit, or return the task that already has the key.

    The unique index decides: of concurrent requests with one key, one inserts, and the others get
    its row, marked as `replayed`. Without a key, nothing can conflict.
    """
    given = [column for column in TASKS.c if column.name not in {"user_id", *NOT_INSERTED}]
    values = [bindparam(f"new_{column.name}", type_=column.type) for column in given]
    tasks = select(TASKS.c.id).correlate(None)
    full = exists(tasks.where(owned()).limit(1).offset(bindparam("others")))
    key = bindparam("new_idempotency_key", type_=TASKS.c.idempotency_key.type)
    replay = exists(tasks.where(owned(TASKS.c.idempotency_key == key)))
    row: Select[*tuple[Any, ...]] = Select(*values, bindparam("owner")).where(or_(~full, replay))
    return (
        insert(TASKS)
        .from_select([*(column.name for column in given), "user_id"], row)
        .on_conflict_do_update(
            index_elements=["user_id", "idempotency_key"],
            index_where=TASKS.c.idempotency_key.is_not(None),
            set_={"replayed": True},
        )
        .returning(*TASK_COLUMNS, TASKS.c.idempotency_digest, TASKS.c.replayed)
    )


# Parameters: owner, new_<column> for each column except user_id and NOT_INSERTED, and `others`: how
# many tasks the owner may have besides the new one. Returns no row if the owner has more.
CREATE = _create()

# Parameters: a mapping for each row, with every column except NOT_INSERTED.
INSERT = insert_rows(TASKS)


@cache
def update_one(names: frozenset[str]) -> ReturningUpdate[Any]:
    """Set the named fields of a task. Parameters: owner, task_id, and those of `new_values`."""
    return _update(names, _one_task()).returning(*TASK_COLUMNS)


def update_many(
    names: frozenset[str], statuses: Collection[TaskStatus], ids: Collection[int]
) -> Update:
    """Set the named fields of the selected tasks. Parameters: owner, and those of `new_values`."""
    return _update(names, owned(*_selected(statuses, ids)))


# The columns that a tombstone keeps (a trigger updates `changed`), and the values of the others
# that cannot be null.
TOMBSTONE_KEEPS = {"id", "user_id", "created_at", "updated_at", "changed"}
TOMBSTONE_VALUES: dict[str, object] = {
    "title": "",
    "status": TaskStatus.PENDING,
    "priority": Priority.MEDIUM,
    "tags": [],
    "title_folded": "",
    "tags_folded": "",
    "replayed": False,
}


def _make_tombstones(which: ColumnElement[bool]) -> Update:
    """Turn tasks into tombstones, which contain nothing that their owner wrote."""
    columns = TASKS.c
    erased = {
        column.name: None if column.nullable else TOMBSTONE_VALUES[column.name]
        for column in columns
        if column.name not in TOMBSTONE_KEEPS | {"version", "deleted_at"}
    }
    now = bindparam("now", type_=columns.deleted_at.type)
    return update(TASKS).where(which).values(**erased, version=columns.version + 1, deleted_at=now)


# Parameters: owner, task_id, now.
DELETE = _make_tombstones(_one_task()).returning(TASKS.c.id)


def delete_many(statuses: Collection[TaskStatus], ids: Collection[int]) -> Update:
    """Delete the selected tasks. Parameters: owner, now."""
    return _make_tombstones(owned(*_selected(statuses, ids)))


def new_values(changes: TaskUpdate) -> dict[str, object]:
    """Return the parameters that an update of these fields takes."""
    new = {f"new_{name}": value for name, value in columns_of(changes).items()}
    return new | {"now": datetime.now(UTC)}


def _update(names: frozenset[str], which: ColumnElement[bool]) -> Update:
    """Set the fields in one statement, so that writers of different fields do not undo each other.

    `version` and `updated_at` change only if a value does, and `updated_at` never moves backwards,
    even if the clocks of several machines disagree.
    """
    columns = TASKS.c
    now = bindparam("now", type_=columns.updated_at.type)
    new = {
        name: bindparam(f"new_{name}", type_=columns[name].type)
        for name in columns_of(dict.fromkeys(sorted(names)))
    }
    changed = or_(*(columns[name].is_distinct_from(new[name]) for name in sorted(names)))
    return (
        update(TASKS)
        .where(which)
        .values(
            **new,
            version=columns.version + case((changed, 1), else_=0),
            updated_at=case((changed & (columns.updated_at < now), now), else_=columns.updated_at),
        )
    )


def _selected(
    statuses: Collection[TaskStatus], ids: Collection[int]
) -> Iterator[ColumnElement[bool]]:
    if statuses:
        yield TASKS.c.status.in_(statuses)
    if ids:
        yield TASKS.c.id.in_(ids)


OneTask = TypeVar("OneTask", Rows, ReturningUpdate[Any])

ANY_VERSION: frozenset[int] = frozenset({0})  # versions begin at 1


def if_version(
    statement: OneTask, match: frozenset[int] | None, none_match: frozenset[int] | None
) -> OneTask:
    """Limit a statement to a task whose version is in `match` and not in `none_match`.

    None means no condition.
    """
    version = TASKS.c.version
    if match is not None and match != ANY_VERSION:
        statement = statement.where(version.in_(match))
    if none_match is not None:
        statement = statement.where(
            false() if none_match == ANY_VERSION else version.not_in(none_match)
        )
    return statement


class Sort(StrEnum):
    """An order of the list; `-` reverses it."""

    CREATED_AT = "created_at"
    CREATED_AT_DOWN = "-created_at"
    UPDATED_AT = "updated_at"
    UPDATED_AT_DOWN = "-updated_at"
    TITLE = "title"
    TITLE_DOWN = "-title"
    DUE_DATE = "due_date"
    DUE_DATE_DOWN = "-due_date"
    PRIORITY = "priority"
    PRIORITY_DOWN = "-priority"

    @property
    def key(self) -> ColumnElement[Any]:
        """What tasks are ordered by; ties are broken by id."""
        return SORT_KEYS[self]

    @property
    def by_time(self) -> bool:
        """Whether the key is a time, which is a field of the task."""
        return self.removeprefix("-") in {"created_at", "updated_at"}


_RANKS = {priority: rank for rank, priority in enumerate(Priority, 1)}
_RANK = case(_RANKS, value=TASKS.c.priority)
# Each stands for a task without a due date, which comes last in both directions.
_AFTER_ALL_DATES, _BEFORE_ALL_DATES = "~", ""

SORT_KEYS: dict[Sort, ColumnElement[Any]] = {
    Sort.CREATED_AT: TASKS.c.created_at,
    Sort.CREATED_AT_DOWN: TASKS.c.created_at,
    Sort.UPDATED_AT: TASKS.c.updated_at,
    Sort.UPDATED_AT_DOWN: TASKS.c.updated_at,
    Sort.TITLE: TASKS.c.title_folded,
    Sort.TITLE_DOWN: TASKS.c.title_folded,
    Sort.DUE_DATE: func.coalesce(TASKS.c.due_date, _AFTER_ALL_DATES),
    Sort.DUE_DATE_DOWN: func.coalesce(TASKS.c.due_date, _BEFORE_ALL_DATES),
    Sort.PRIORITY: _RANK,
    Sort.PRIORITY_DOWN: _RANK,
}


class json_words(FunctionElement[str]):  # noqa: N801  # it is called as functions of `func` are
    """A row for each string in a JSON array, in the column `value`."""

    name = "json_words"
    inherit_cache = True


class position(FunctionElement[int]):  # noqa: N801  # as json_words
    """Where the second text first occurs in the first, from 1; 0 if it does not occur.

    LIKE would take quadratic time for texts that repeat a letter.
    """

    inherit_cache = True


def _name(function: type[FunctionElement[Any]], **names: str) -> None:
    """Give the function its name in each dialect."""
    for dialect, name in names.items():

        @compiles(function, dialect)
        def _(
            element: FunctionElement[Any],
            compiler: SQLCompiler,
            name: str = name,
            **options: Any,  # noqa: ANN401  # SQLAlchemy's
        ) -> str:
            return f"{name}({compiler.process(element.clauses, **options)})"


_name(json_words, sqlite="json_each", postgresql="jsonb_array_elements_text")
_name(position, sqlite="instr", postgresql="strpos")


def _contains(column: Column[Any], words: ColumnElement[str]) -> ColumnElement[bool]:
    return position(column, words) > literal_column("0")


def _contains_one_of(column: Column[Any], words: BindParameter[Any]) -> ColumnElement[bool]:
    word = json_words(words).table_valued("value").c.value
    return exists(select(word).where(_contains(column, word)))


_WORDS = bindparam("q", type_=Text)

# The conditions of the list. Each takes the parameter of its own name, except `due`: it takes none.
FILTERS: dict[str, ColumnElement[bool]] = {
    "status": TASKS.c.status.in_(bindparam("status", expanding=True)),
    "priority": TASKS.c.priority.in_(bindparam("priority", expanding=True)),
    "tag": _contains_one_of(TASKS.c.tags_folded, bindparam("tag", type_=TASKS.c.tags.type)),
    "due_before": TASKS.c.due_date < bindparam("due_before"),
    "due_after": TASKS.c.due_date > bindparam("due_after"),
    "due": TASKS.c.due_date.is_(None),
    "q": or_(
        _contains(TASKS.c.title_folded, _WORDS),
        _contains(TASKS.c.description_folded, _WORDS),
        _contains(TASKS.c.tags_folded, _WORDS),
    ),
}
# One statement for each kind of page, built on first use.
PAGES_KEPT_MAX = 1000


@lru_cache(PAGES_KEPT_MAX)
def page(
    sort: Sort, filters: frozenset[str], *, backward: bool, at_cursor: bool, counting: bool
) -> Rows:
    """Read a page of the list in the order of `sort`, or `backward` in the reverse order.

    Parameters: owner, limit, offset; those of the FILTERS; with `at_cursor`, value and id, where
    the page begins. Besides the task, a row has `key`, the value by which it is sorted, unless that
    is a time; and with `counting`, `total`, the number of matching tasks.
    """
    order, descending = (sort.key, TASKS.c.id), sort.startswith("-") != backward
    more: list[ColumnElement[Any]] = []
    if not sort.by_time:
        more.append(sort.key.label("key"))
    if counting:
        total = count_matching(filters)
        more.append(total.correlate(None).scalar_subquery().label("total"))
    tasks = select_tasks(*more).where(owned(*_matching(filters)))
    if at_cursor:
        cursor = tuple_(bindparam("value", type_=sort.key.type), bindparam("id"))
        tasks = tasks.where(tuple_(*order) < cursor if descending else tuple_(*order) > cursor)
    return (
        tasks.order_by(*(column.desc() if descending else column.asc() for column in order))
        .limit(bindparam("limit"))
        .offset(bindparam("offset"))
    )


@lru_cache(PAGES_KEPT_MAX)
def count_matching(filters: frozenset[str]) -> SelectOfScalar[int]:
    """Count the matching tasks on all pages. Parameters: owner, and those of the FILTERS."""
    return select(func.count()).select_from(TASKS).where(owned(*_matching(filters)))


def _matching(filters: frozenset[str]) -> Iterator[ColumnElement[bool]]:
    return (condition for name, condition in FILTERS.items() if name in filters)


def tagged(tag: str) -> str:
    """Return the text by which `tags_folded` is searched for a tag."""
    return f"{TAG_SEPARATOR}{folded(tag)}{TAG_SEPARATOR}"


TAGS_LISTED_MAX = 1000


def _tags() -> Rows:
    tag = json_words(TASKS.c.tags).table_valued("value", joins_implicitly=True).c.value
    tasks = func.count()
    rows = cast("Rows", Select(tag.label("tag"), tasks.label("tasks")))
    return (
        rows.select_from(TASKS)
        .where(owned())
        .group_by(tag)
        .order_by(tasks.desc())
        .limit(TAGS_LISTED_MAX)
    )


# Parameters: owner. Each spelling of a tag and the number of tasks that have it, most used first.
TAGS = _tags()


# Oldest first, so that an import of an export keeps the order.
EXPORT_ORDER = (TASKS.c.created_at, TASKS.c.id)
EXPORT_PAGE_ROWS = 100  # a client that stops reading keeps one page in memory, at most 1.3 MB

# Parameters: owner, and created_at and id of the task after which the page begins.
EXPORT = (
    select_tasks()
    .where(
        owned(
            tuple_(*EXPORT_ORDER)
            > tuple_(*(bindparam(column.name, type_=column.type) for column in EXPORT_ORDER))
        )
    )
    .order_by(*EXPORT_ORDER)
    .limit(EXPORT_PAGE_ROWS)
)


class horizon(FunctionElement[int]):  # noqa: N801  # as json_words
    """The oldest transaction that may still be running.

    Every earlier transaction has committed and is visible, or was rolled back. After a crash,
    PostgreSQL may assign the ids of the latter again.
    """

    inherit_cache = True


class next_change(FunctionElement[int]):  # noqa: N801  # as json_words
    """The first change id not yet assigned."""

    inherit_cache = True


class written_by(FunctionElement[str]):  # noqa: N801  # as json_words
    """The id of the transaction that wrote a row of `task` (xmin).

    It differs after a dump is restored.
    """

    inherit_cache = True


class database_identity(FunctionElement[str]):  # noqa: N801  # as json_words
    """An identifier that changes when the change history is no longer continuous."""

    inherit_cache = True


@compiles(horizon, "postgresql")
def _(_: horizon, __: SQLCompiler, **___: object) -> str:
    return "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


@compiles(next_change, "postgresql")
def _(_: next_change, __: SQLCompiler, **___: object) -> str:
    return "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


@compiles(horizon, "sqlite")
@compiles(next_change, "sqlite")
def _(_: horizon | next_change, __: SQLCompiler, **___: object) -> str:
    return "todo_backend_sync.changed + 1"  # one writer at a time


@compiles(written_by, "postgresql")
def _(_: written_by, __: SQLCompiler, **___: object) -> str:
    return "task.xmin"


@compiles(written_by, "sqlite")
def _(_: written_by, __: SQLCompiler, **___: object) -> str:
    # Backups are copies of the file, which cannot be told apart. Other files can.
    return "(SELECT CAST(identity AS TEXT) FROM todo_backend_sync)"


@compiles(database_identity, "postgresql")
def _(_: database_identity, __: SQLCompiler, **___: object) -> str:
    # A restored dump keeps only the first part. Another database has another table oid, another
    # cluster another system identifier, and a failover begins a new timeline.
    return (
        "concat_ws('.', todo_backend_sync.identity, todo_backend_sync.tableoid,"
        " (pg_control_system()).system_identifier,"
        " left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))"
    )


@compiles(database_identity, "sqlite")
def _(_: database_identity, __: SQLCompiler, **___: object) -> str:
    return "todo_backend_sync.identity"


CHANGE_ORDER = (TASKS.c.changed, TASKS.c.id)


def _changes() -> Rows:
    position = tuple_(bindparam("changed"), bindparam("id"))
    live_only = or_(TASKS.c.deleted_at.is_(None), bindparam("with_deleted", type_=Boolean))
    changes = (
        select_tasks(TASKS.c.changed, TASKS.c.deleted_at, written_by().label("written_by"))
        .where(owned_with_tombstones(tuple_(*CHANGE_ORDER) > position, live_only))
        .order_by(*CHANGE_ORDER)
        .limit(bindparam("limit"))
        .subquery()
    )
    known = exists(
        select(TASKS.c.id).where(owned_with_tombstones(TASKS.c.id == bindparam("known")))
    )
    rows = cast(
        "Rows",
        Select(
            *changes.c,
            SYNC.c.purged,
            database_identity().label("identity"),
            horizon().label("horizon"),
            next_change().label("next_change"),
            known.label("is_known"),
        ),
    )
    return rows.select_from(SYNC.outerjoin(changes, true())).order_by(
        changes.c.changed, changes.c.id
    )


# The tasks and, `with_deleted`, the tombstones after a position in the order of changes. Each row
# also has the values that a sync token is checked against; without changes, one row has only those.
# `is_known` says whether the owner has the task or tombstone `known`. Parameters: owner, changed
# and id (the position), with_deleted, limit, known.
CHANGES = _changes()

# The user's latest change. Parameters: owner.
LATEST = (
    cast("Rows", Select(*CHANGE_ORDER, written_by()))
    .where(owned_with_tombstones())
    .order_by(*(column.desc() for column in CHANGE_ORDER))
    .limit(1)
)

# For all users, so no request may execute these. Parameter: before. Execute RECORD_PURGE first: it
# records the latest change among the tombstones that PURGE then removes. Those that are not older
# than every open transaction stay: no client can have a token that is later.
_OLD = TASKS.c.deleted_at < bindparam("before", type_=TASKS.c.deleted_at.type)
_LAST_REMOVED = (
    select(func.max(TASKS.c.changed))
    .where(_OLD, TASKS.c.changed < select(horizon()).select_from(SYNC).scalar_subquery())
    .scalar_subquery()
)
RECORD_PURGE = update(SYNC).where(SYNC.c.purged < _LAST_REMOVED).values(purged=_LAST_REMOVED)
PURGE = delete(TASKS).where(
    _OLD, TASKS.c.changed <= select(SYNC.c.purged).correlate(None).scalar_subquery()
)
