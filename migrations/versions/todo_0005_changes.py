"""The order of changes, and tombstones of deleted tasks."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "todo_0005"
down_revision = "todo_0004"

INDEX = "ix_task_user_id_created_at_id"

# A transaction id orders the changes, and pg_snapshot_xmin() shows which of them are complete.
POSTGRESQL = (
    "ALTER TABLE task ALTER changed SET DEFAULT pg_current_xact_id()::text::bigint",
    """
    CREATE OR REPLACE FUNCTION todo_backend_set_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.changed := pg_current_xact_id()::text::bigint;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER task_changed BEFORE UPDATE ON task FOR EACH ROW
    WHEN (NEW.version <> OLD.version) EXECUTE FUNCTION todo_backend_set_changed()
    """,
)

SET_CHANGED = """
BEGIN
    UPDATE todo_backend_sync SET changed = changed + 1;
    UPDATE task SET changed = (SELECT changed FROM todo_backend_sync) WHERE id = NEW.id;
END
"""
SQLITE = (
    f"CREATE TRIGGER task_inserted AFTER INSERT ON task {SET_CHANGED}",
    f"""
    CREATE TRIGGER task_changed AFTER UPDATE ON task WHEN NEW.version <> OLD.version {SET_CHANGED}
    """,
)


def upgrade() -> None:
    """Add the columns, and the default and triggers that set `changed`.

    Processes of the previous version do not know the column. Existing tasks come first in the order
    of changes.
    """
    op.add_column("task", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("task", sa.Column("changed", sa.BigInteger(), nullable=False, server_default="0"))
    sync = op.create_table(
        "todo_backend_sync",
        sa.Column("identity", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("purged", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(sync, [{"identity": secrets.randbits(62), "changed": 0, "purged": 0}])
    for statement in POSTGRESQL if _is_postgresql() else SQLITE:
        op.execute(statement)
    op.drop_index(INDEX, "task")
    live = sa.text("deleted_at IS NULL")
    op.create_index(
        INDEX,
        "task",
        ["user_id", "created_at", "id"],
        postgresql_where=live,
        sqlite_where=live,
    )
    op.create_index("ix_task_user_id_changed_id", "task", ["user_id", "changed", "id"])


def downgrade() -> None:
    """Remove the tombstones and everything that the upgrade added."""
    op.execute("DELETE FROM task WHERE deleted_at IS NOT NULL")
    op.drop_index("ix_task_user_id_changed_id", "task")
    op.drop_index(INDEX, "task")
    op.create_index(INDEX, "task", ["user_id", "created_at", "id"])
    if _is_postgresql():
        op.execute("DROP TRIGGER task_changed ON task")
        op.execute("DROP FUNCTION todo_backend_set_changed")
    else:
        op.execute("DROP TRIGGER task_changed")
        op.execute("DROP TRIGGER task_inserted")
    op.drop_column("task", "changed")
    op.drop_column("task", "deleted_at")
    op.drop_table("todo_backend_sync")


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"
