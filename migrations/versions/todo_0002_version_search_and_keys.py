"""Versions, search, idempotency keys, and the order of the list."""

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

from models import folded

revision = "todo_0002"
down_revision = "todo_0001"

ROWS_PER_STATEMENT = 1000
WITH_KEY = sa.text("idempotency_key IS NOT NULL")


def upgrade() -> None:
    """Add the columns, fill those for the search, and index the order of the list."""
    if op.get_context().as_sql:
        _refuse_rows()
    elif "version" in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("task")}:
        return  # an earlier version did this as its revision 0002
    folded_type = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    for column in (
        sa.Column("version", sa.BigInteger(), nullable=False, server_default="1"),
        sa.Column("title_folded", folded_type, nullable=False, server_default=""),
        sa.Column("description_folded", folded_type, nullable=True),
        sa.Column("idempotency_key", sa.String(255), nullable=True),
        sa.Column("idempotency_digest", sa.String(64), nullable=True),
        sa.Column("replayed", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("task", column)
    if not op.get_context().as_sql:
        _fold()
        op.get_context().opts["is_folded"] = True  # for todo_0003, if it runs right after this
    op.create_index("ix_task_user_id_created_at_id", "task", ["user_id", "created_at", "id"])
    op.create_index(
        "uq_task_user_id_idempotency_key",
        "task",
        ["user_id", "idempotency_key"],
        unique=True,
        postgresql_where=WITH_KEY,
        sqlite_where=WITH_KEY,
    )
    op.drop_index("ix_task_user_id_id", "task")


def _refuse_rows() -> None:
    """Refuse to print SQL for a table that may have rows, because only Python can fold them."""
    if context.get_starting_revision_argument() is not None:
        raise CommandError(
            f"Revision {revision} changes rows in Python, which SQL cannot express: "
            "run `uv run alembic upgrade head` without --sql"
        )


def _fold() -> None:
    """Fold the existing titles and descriptions in Python, because the databases cannot."""
    task = sa.table(
        "task",
        *map(sa.column, ("id", "title", "description", "title_folded", "description_folded")),
    )
    page = sa.select(task.c.id, task.c.title, task.c.description).order_by(task.c.id)
    fill = (
        sa.update(task)
        .where(task.c.id == sa.bindparam("row"))
        .values(
            title_folded=sa.bindparam("new_title"),
            description_folded=sa.bindparam("new_description"),
        )
    )
    connection = op.get_bind()
    last = 0
    while rows := connection.execute(page.where(task.c.id > last).limit(ROWS_PER_STATEMENT)).all():
        values = [
            {
                "row": id_,
                "new_title": folded(title),
                "new_description": None if description is None else folded(description),
            }
            for id_, title, description in rows
        ]
        connection.execute(fill, values)
        last = rows[-1].id


def downgrade() -> None:
    """Drop the columns and their values."""
    op.create_index("ix_task_user_id_id", "task", ["user_id", "id"])
    op.drop_index("uq_task_user_id_idempotency_key", "task")
    op.drop_index("ix_task_user_id_created_at_id", "task")
    for name in (
        "replayed",
        "idempotency_digest",
        "idempotency_key",
        "description_folded",
        "title_folded",
        "version",
    ):
        op.drop_column("task", name)
