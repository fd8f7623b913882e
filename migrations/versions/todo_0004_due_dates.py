"""Due dates, priorities and tags."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "todo_0004"
down_revision = "todo_0003"


def upgrade() -> None:
    """Add the columns. Their defaults are for processes of the previous version.

    PostgreSQL keeps a constant default in its catalog, so no row is rewritten.
    """
    tags = sa.JSON().with_variant(JSONB(), "postgresql")
    for column in (
        sa.Column("due_date", _in_code_point_order(sa.String, 16), nullable=True),
        sa.Column("priority", sa.String(16), nullable=False, server_default="medium"),
        sa.Column("tags", tags, nullable=False, server_default="[]"),
        sa.Column("tags_folded", _in_code_point_order(sa.Text), nullable=False, server_default=""),
    ):
        op.add_column("task", column)


def _in_code_point_order(
    kind: type[sa.String], length: int | None = None
) -> sa.types.TypeEngine[str]:
    return kind(length).with_variant(kind(length, collation="C"), "postgresql")


def downgrade() -> None:
    """Drop the columns and their values."""
    for name in ("tags_folded", "tags", "priority", "due_date"):
        op.drop_column("task", name)
