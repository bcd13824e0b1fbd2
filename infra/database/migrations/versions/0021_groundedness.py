"""groundedness of answers"""

import sqlalchemy as sa
from alembic import op

revision = '0021'
down_revision = '0020'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('interaction', sa.Column('groundedness', sa.Float(), nullable=True))
    op.add_column('interaction', sa.Column('verdict', sa.String(16), nullable=True))
    op.add_column('interaction', sa.Column('review', sa.String(16), nullable=True))
    op.create_index(op.f('ix_interaction_review'), 'interaction', ['review'])


def downgrade() -> None:
    op.drop_index(op.f('ix_interaction_review'), table_name='interaction')
    for name in ('review', 'verdict', 'groundedness'):
        op.drop_column('interaction', name)
