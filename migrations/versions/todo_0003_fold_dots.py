"""Let searches ignore the dots of i and j, and treat the dotless i as i."""

from contextlib import nullcontext

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy import Connection

from driver import time_limit, transaction
from models import folded

revision = "todo_0003"
down_revision = "todo_0002"

ROWS_PER_TRANSACTION = 1000
PAGE_LIMIT_SECONDS = 60


def upgrade() -> None:
    """Fold texts with these letters again, one page per transaction, to keep locks short.

    On PostgreSQL, a second connection writes the pages. The first one holds the migration lock. If
    it has just added the folded texts, it has locked the table, and these letters are folded.
    """
    if op.get_context().as_sql:
        if context.get_starting_revision_argument() is not None:
            raise CommandError(
                f"Revision {revision} changes rows in Python, which SQL cannot express: "
                "run `uv run alembic upgrade head` without --sql"
            )
        return
    if "is_folded" in op.get_context().opts:
        return
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":  # it has only one writer
        _fold(connection, connection)
        return
    with connection.engine.connect() as writer:
        _fold(connection, writer)


def _fold(reader: Connection, writer: Connection) -> None:
    schema = None  # the second connection does not have the search path of the first
    if reader is not writer:
        schema = reader.exec_driver_sql("SELECT current_schema()").scalar_one()
    columns = ("id", "version", "title_folded", "description_folded")
    task = sa.table("task", *map(sa.column, columns), schema=schema)
    page = (
        sa.select(*task.c)
        .where(
            sa.or_(
                *(
                    column.like(f"%{letter}%")
                    for column in (task.c.title_folded, task.c.description_folded)
                    for letter in ("\N{LATIN SMALL LETTER DOTLESS I}", "\N{COMBINING DOT ABOVE}")
                )
            )
        )
        .order_by(task.c.id)
        .limit(ROWS_PER_TRANSACTION)
    )
    fill = (
        sa.update(task)
        # The text may have changed since the task was read.
        .where(task.c.id == sa.bindparam("row"), task.c.version == sa.bindparam("read"))
        .values(title_folded=sa.bindparam("title"), description_folded=sa.bindparam("description"))
    )
    last = 0
    while rows := reader.execute(page.where(task.c.id > last)).all():
        values = [
            {
                "row": id_,
                "read": version,
                "title": folded(title),
                "description": None if description is None else folded(description),
            }
            for id_, version, title, description in rows
        ]
        with (
            time_limit(PAGE_LIMIT_SECONDS),
            nullcontext() if reader is writer else transaction(writer),
        ):
            writer.execute(fill, values)
        last = rows[-1].id


def downgrade() -> None:
    """Keep the rows. Earlier versions find them by the letter i until they are changed."""
