"""monitoring"""

import sqlalchemy as sa
from alembic import op


revision = '0022'
down_revision = '0021'
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        'feedback',
        sa.Column('number', NUMBER, sa.Identity(), nullable=False),
        sa.Column('id', sa.String(64), nullable=False),
        sa.Column('interaction_id', sa.String(64), nullable=False),
        sa.Column('at', MOMENT, nullable=False),
        sa.Column('key_id', sa.String(64), nullable=True),
        sa.Column('kind', sa.String(16), nullable=False),
        sa.Column('value', sa.String(255), nullable=False),
        sa.Column('text', sa.Text(), nullable=True),
        sa.Column('digest', sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ['interaction_id'],
            ['interaction.id'],
            name=op.f('fk_feedback_interaction_id_interaction'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('number', name=op.f('pk_feedback')),
        sa.UniqueConstraint('id', name=op.f('uq_feedback_id')),
        sa.UniqueConstraint(
            'interaction_id', 'digest', name=op.f('uq_feedback_interaction_id_digest')
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f('ix_feedback_interaction_id'), 'feedback', ['interaction_id'])
    op.create_table(
        'watch_result',
        sa.Column('number', NUMBER, sa.Identity(), nullable=False),
        sa.Column('monitor', sa.String(100), nullable=False),
        sa.Column('at', MOMENT, nullable=False),
        sa.Column('verdict', sa.String(16), nullable=False),
        sa.Column('is_alarm', sa.Boolean(), nullable=False),
        sa.Column('action', sa.String(16), nullable=True),
        sa.Column('report', sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint('number', name=op.f('pk_watch_result')),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f('ix_watch_result_monitor_number'), 'watch_result', ['monitor', 'number'])


def downgrade() -> None:
    op.drop_table('watch_result')
    op.drop_table('feedback')
