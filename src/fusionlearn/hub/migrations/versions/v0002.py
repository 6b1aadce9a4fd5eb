"""Small updates' bytes beside their rows."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "body",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["project", "task", "digest"], ["upload.project", "upload.task", "upload.digest"]),
        sa.PrimaryKeyConstraint("project", "task", "digest"),
    )
