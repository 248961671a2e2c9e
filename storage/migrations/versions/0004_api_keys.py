"""A table of the gateway's API keys.

What is written here stays as it is: databases out there were made by it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    key = sa.Text(collation="C") if postgres else sa.Text()
    json = sa.JSON() if postgres else sa.Text()
    moment = sa.DateTime(timezone=True) if postgres else sa.Text()
    op.create_table(
        "api_keys",
        sa.Column("id", key, primary_key=True),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("apps", json),
        sa.Column("users", json),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
        sa.Column("revoked_at", moment),
    )


def downgrade() -> None:
    op.drop_table("api_keys")
