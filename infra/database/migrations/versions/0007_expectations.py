"""expectations"""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('dataset_check',
    sa.Column('digest', sa.String(length=80), nullable=False),
    sa.Column('suite', sa.String(length=128), nullable=False),
    sa.Column('suite_digest', sa.String(length=80), nullable=False),
    sa.Column('passed', sa.Boolean(), nullable=False),
    sa.Column('report', sa.JSON(), nullable=False),
    sa.Column('checked_at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('digest', 'suite', name=op.f('pk_dataset_check'))
    )


def downgrade() -> None:
    op.drop_table('dataset_check')
