"""where windows of so many rows end, and who is still to be told of an event"""

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
    op.create_table(
        'watch_untold',
        sa.Column('number', NUMBER, nullable=False),
        sa.Column('receiver', sa.String(length=100), nullable=False),
        sa.Column('due', sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ['number'],
            ['watch_result.number'],
            name=op.f('fk_watch_untold_number_watch_result'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('number', 'receiver', name=op.f('pk_watch_untold')),
    )


def downgrade() -> None:
    op.drop_table('watch_untold')
    op.drop_table('watch_position')
