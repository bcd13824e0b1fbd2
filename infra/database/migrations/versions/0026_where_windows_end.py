"""where the windows of a watch end that are so many rows"""

import sqlalchemy as sa
from alembic import op

revision = '0026'
down_revision = '0025'
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    op.create_table(
        'watch_position',
        sa.Column('monitor', sa.String(length=100), nullable=False),
        sa.Column('number', NUMBER, nullable=False),
        sa.Column('missing', sa.Integer(), nullable=False),
        sa.Column('due', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('monitor', name=op.f('pk_watch_position')),
    )


def downgrade() -> None:
    op.drop_table('watch_position')
