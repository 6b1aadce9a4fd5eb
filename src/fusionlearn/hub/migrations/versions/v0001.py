"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "answer",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("project", "task", "person"),
    )
    op.create_table(
        "chunk",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("object", sa.String(length=200), nullable=False),
        sa.Column("received", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("project", "task", "digest", "key", "start"),
    )
    op.create_index(op.f("ix_chunk_received"), "chunk", ["received"], unique=False)
    op.create_table(
        "event",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("project", "number"),
    )
    op.create_table(
        "nonce",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("nonce", sa.String(length=128), nullable=False),
        sa.Column("expires", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("key", "nonce"),
    )
    op.create_index(op.f("ix_nonce_expires"), "nonce", ["expires"], unique=False)
    op.create_table(
        "project",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("made", sa.String(32), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "code",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("expires", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project"],
            ["project.name"],
        ),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_table(
        "member",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("revoked", sa.String(32), nullable=True),
        sa.ForeignKeyConstraint(
            ["project"],
            ["project.name"],
        ),
        sa.PrimaryKeyConstraint("project", "key"),
    )
    op.create_table(
        "session",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project"],
            ["project.name"],
        ),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_table(
        "task",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("method", sa.String(length=200), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("max_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("quorum", sa.Integer(), nullable=True),
        sa.Column("deadline", sa.String(32), nullable=True),
        sa.Column("public_model", sa.Boolean(), nullable=False),
        sa.Column("published", sa.String(32), nullable=False),
        sa.Column("closed", sa.String(32), nullable=True),
        sa.Column("closed_by", sa.String(length=200), nullable=True),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project"],
            ["project.name"],
        ),
        sa.PrimaryKeyConstraint("project", "digest"),
    )
    op.create_table(
        "upload",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("signer", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("replaces", sa.String(length=64), nullable=False),
        sa.Column("guarantee", sa.String(length=32), nullable=False),
        sa.Column("received", sa.String(32), nullable=False),
        sa.Column("event", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "task"],
            ["task.project", "task.digest"],
        ),
        sa.PrimaryKeyConstraint("project", "task", "digest"),
    )
    op.create_index("upload_by_state", "upload", ["project", "task", "state"], unique=False)
    op.create_index("upload_of_person", "upload", ["project", "task", "person"], unique=False)
    op.create_table(
        "version",
        sa.Column("project", sa.String(length=40), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("members", sa.JSON(), nullable=False),
        sa.Column("asked", sa.String(32), nullable=False),
        sa.Column("asked_by", sa.String(length=200), nullable=False),
        sa.Column("lease", sa.String(32), nullable=True),
        sa.Column("worker", sa.String(length=200), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("made", sa.String(32), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("report", sa.String(length=64), nullable=True),
        sa.Column("report_sha256", sa.String(length=64), nullable=True),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "task"],
            ["task.project", "task.digest"],
        ),
        sa.PrimaryKeyConstraint("project", "task", "number"),
    )
    op.create_index("version_by_state", "version", ["state"], unique=False)
