"""The task table."""

import re
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "todo_0001"
down_revision = None

COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("user_id", sa.String(255), nullable=False),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("description", sa.String(2000), nullable=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
)
CHECK = "status IN ('pending', 'in_progress', 'completed')"
QUOTED = re.compile(r"'(\w+)'")
INDEXES = {"index ix_task_user_id_id (user_id, id)"}

# Earlier versions recorded their revisions in the table alembic_version, as 0001 and 0002. These
# are the columns that 0002 added, and the indexes after it.
FOLDED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
LATER_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("version", sa.BigInteger(), nullable=False),
    sa.Column("title_folded", FOLDED, nullable=False),
    sa.Column("description_folded", FOLDED, nullable=True),
    sa.Column("idempotency_key", sa.String(255), nullable=True),
    sa.Column("idempotency_digest", sa.String(64), nullable=True),
    sa.Column("replayed", sa.Boolean(), nullable=False),
)
LATER_INDEXES = {
    "index ix_task_user_id_created_at_id (user_id, created_at, id)",
    "unique index uq_task_user_id_idempotency_key (user_id, idempotency_key)",
}


def upgrade() -> None:
    """Create the table and the index that every read by owner uses."""
    if not op.get_context().as_sql and sa.inspect(op.get_bind()).has_table("task"):
        _require_ours()
        return
    op.create_table(
        "task",
        *COLUMNS,
        sa.CheckConstraint(CHECK, name="ck_task_status"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_user_id_id", "task", ["user_id", "id"])


def _require_ours() -> None:
    """Adopt the table of an earlier version. Refuse any other table, and leave it unchanged.

    `alembic_version` proves nothing: it may belong to another application that also has a revision
    0002. It stays unchanged, because processes of the earlier version may still read it.
    """
    found = _found()
    first: set[str] = {*map(_described, COLUMNS), *INDEXES}
    second: set[str] = {*map(_described, (*COLUMNS, *LATER_COLUMNS)), *LATER_INDEXES}
    constraints = {"primary key (id)", "check ck_task_status: pending in_progress completed"}
    difference, _ = sorted(
        (sorted(found ^ (shape | constraints)) for shape in (first, second)), key=len
    )
    if difference:
        raise CommandError(
            "The table task in this database does not belong to this service and was not changed:"
            " use another database or schema, or rename the table. Differences:"
            f" {len(difference)}, the first of which is: {difference[0]}"
        )


def _found() -> set[str]:
    """Describe the table in the database. Other indexes count only if they are unique."""
    table = sa.inspect(op.get_bind())
    known = INDEXES | LATER_INDEXES
    indexes = {
        f"{'unique ' if index['unique'] else ''}index {index['name']} "
        f"({', '.join(map(str, index['column_names']))})"
        for index in table.get_indexes("task")
    }
    return {
        *(
            _described(sa.Column(column["name"], column["type"], nullable=column["nullable"]))
            for column in table.get_columns("task")
        ),
        *(index for index in indexes if index in known or index.startswith("unique")),
        *(
            f"check {check['name']}: {' '.join(QUOTED.findall(check['sqltext']))}"
            for check in table.get_check_constraints("task")
        ),
        f"primary key ({', '.join(table.get_pk_constraint('task')['constrained_columns'])})",
        *(f"unique constraint {unique['name']}" for unique in table.get_unique_constraints("task")),
        *(
            f"foreign key to {foreign['referred_table']}"
            for foreign in table.get_foreign_keys("task")
        ),
    }


def _described(column: sa.Column[Any]) -> str:
    is_known = not isinstance(column.type, sa.types.NullType)  # SQLite columns need no type
    type_ = column.type.compile(op.get_bind().dialect) if is_known else "of another type"
    return f"column {column.name} {type_}{'' if column.nullable else ' NOT NULL'}"


def downgrade() -> None:
    """Drop the table and all tasks."""
    op.drop_table("task")
