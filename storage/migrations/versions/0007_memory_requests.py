"""The requests that have put a session into its user's memory, so that a retry does not undo a forget.

What is written here stays as it is: databases out there were made by it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    key = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    columns = ("app", "user_id", "session_id", "request_id")
    op.create_table(
        "memory_requests",
        *(sa.Column(name, key, nullable=False) for name in columns),
        sa.PrimaryKeyConstraint(*columns, name="memory_requests_pkey"),
    )


def downgrade() -> None:
    op.drop_table("memory_requests")
