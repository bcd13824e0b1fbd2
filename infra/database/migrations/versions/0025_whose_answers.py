"""which version answered whom, and on what terms"""

import sqlalchemy as sa
from alembic import op

revision = '0025'
down_revision = '0024'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('interaction', sa.Column('served', sa.String(255), nullable=True))
    op.add_column('interaction', sa.Column('terms', sa.String(16), nullable=True))
    op.add_column('interaction', sa.Column('draw', sa.Float(), nullable=True))


def downgrade() -> None:
    for name in ('draw', 'terms', 'served'):
        op.drop_column('interaction', name)
