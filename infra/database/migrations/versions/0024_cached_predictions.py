"""cached predictions"""

import sqlalchemy as sa
from alembic import op

revision = '0024'
down_revision = '0023'
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    op.create_table(
        'prediction_batch',
        sa.Column('number', NUMBER, sa.Identity(), primary_key=True),
        sa.Column('model', sa.String(length=128), nullable=False),
        sa.Column('tenant', sa.String(length=255), nullable=True),
        sa.Column('job', sa.String(length=64), nullable=False),
        sa.Column('made_by', sa.String(length=255), nullable=False),
        sa.Column('digest', sa.String(length=80), nullable=False),
        sa.Column('key', sa.JSON(), nullable=False),
        sa.Column('made_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('artifact', sa.String(length=255), nullable=True),
        sa.Column('is_live', sa.Boolean(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f('ix_prediction_batch_model_tenant'), 'prediction_batch', ['model', 'tenant']
    )
    op.create_table(
        'cached_prediction',
        sa.Column('batch_number', NUMBER, nullable=False),
        sa.Column('key', sa.String(length=64), nullable=False),
        sa.Column('answer', sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ['batch_number'],
            ['prediction_batch.number'],
            name=op.f('fk_cached_prediction_batch_number_prediction_batch'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('batch_number', 'key', name=op.f('pk_cached_prediction')),
    )


def downgrade() -> None:
    op.drop_table('cached_prediction')
    op.drop_table('prediction_batch')
