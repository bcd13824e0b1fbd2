"""what keys open"""

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('api_key') as table:
        table.add_column(sa.Column('tenant', sa.String(length=255), nullable=True))
        table.add_column(sa.Column('groups', sa.JSON(), nullable=True))
        table.add_column(sa.Column('scopes', sa.JSON(), nullable=True))
        table.add_column(sa.Column('models', sa.JSON(), nullable=True))
        table.add_column(sa.Column('collections', sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table('api_key') as table:
        for name in ('collections', 'models', 'scopes', 'groups', 'tenant'):
            table.drop_column(name)
