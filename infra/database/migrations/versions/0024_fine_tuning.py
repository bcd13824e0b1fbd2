"""fine-tuning over HTTP"""

import sqlalchemy as sa
from alembic import op


revision = '0024'
down_revision = '0022'
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        'fine_tuning_job',
        sa.Column('number', NUMBER, sa.Identity(), nullable=False),
        sa.Column('id', sa.String(64), nullable=False),
        sa.Column('tenant', sa.String(255), nullable=True),
        sa.Column('job_id', sa.String(64), nullable=False),
        sa.Column('asked', sa.JSON(), nullable=False),
        sa.Column('specification', sa.JSON(), nullable=False),
        sa.Column('status', sa.String(32), nullable=False),
        sa.Column('paused', sa.Boolean(), nullable=False),
        sa.Column('created_at', MOMENT, nullable=False),
        sa.Column('finished_at', MOMENT, nullable=True),
        sa.Column('estimated_finish', MOMENT, nullable=True),
        sa.Column('steps', sa.Integer(), nullable=True),
        sa.Column('trained_tokens', sa.BigInteger(), nullable=True),
        sa.Column('error', sa.JSON(none_as_null=True), nullable=True),
        sa.Column('result_files', sa.JSON(), nullable=False),
        sa.Column('told_bytes', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('number', name=op.f('pk_fine_tuning_job')),
        sa.UniqueConstraint('id', name=op.f('uq_fine_tuning_job_id')),
        sa.UniqueConstraint('job_id', name=op.f('uq_fine_tuning_job_job_id')),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f('ix_fine_tuning_job_tenant'), 'fine_tuning_job', ['tenant'])
    op.create_table(
        'fine_tuning_event',
        sa.Column('number', NUMBER, sa.Identity(), nullable=False),
        sa.Column('id', sa.String(64), nullable=False),
        sa.Column('fine_tuning_job_id', sa.String(64), nullable=False),
        sa.Column('at', MOMENT, nullable=False),
        sa.Column('level', sa.String(16), nullable=False),
        sa.Column('type', sa.String(16), nullable=False),
        sa.Column('message', sa.Text(), nullable=False),
        sa.Column('data', sa.JSON(none_as_null=True), nullable=True),
        _of_job('fine_tuning_event'),
        sa.PrimaryKeyConstraint('number', name=op.f('pk_fine_tuning_event')),
        sa.UniqueConstraint('id', name=op.f('uq_fine_tuning_event_id')),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f('ix_fine_tuning_event_fine_tuning_job_id_number'),
        'fine_tuning_event',
        ['fine_tuning_job_id', 'number'],
    )
    op.create_table(
        'fine_tuning_checkpoint',
        sa.Column('number', NUMBER, sa.Identity(), nullable=False),
        sa.Column('id', sa.String(64), nullable=False),
        sa.Column('fine_tuning_job_id', sa.String(64), nullable=False),
        sa.Column('step', sa.Integer(), nullable=False),
        sa.Column('metrics', sa.JSON(), nullable=False),
        sa.Column('created_at', MOMENT, nullable=False),
        _of_job('fine_tuning_checkpoint'),
        sa.PrimaryKeyConstraint('number', name=op.f('pk_fine_tuning_checkpoint')),
        sa.UniqueConstraint('id', name=op.f('uq_fine_tuning_checkpoint_id')),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f('ix_fine_tuning_checkpoint_fine_tuning_job_id'),
        'fine_tuning_checkpoint',
        ['fine_tuning_job_id'],
    )
    op.create_table(
        'tuned_model',
        sa.Column('number', NUMBER, sa.Identity(), nullable=False),
        sa.Column('name', sa.String(255), nullable=False),
        sa.Column('base', sa.String(128), nullable=False),
        sa.Column('tenant', sa.String(255), nullable=True),
        sa.Column('adapter', sa.String(255), nullable=False),
        sa.Column('fine_tuning_job_id', sa.String(64), nullable=False),
        sa.Column('created_at', MOMENT, nullable=False),
        _of_job('tuned_model'),
        sa.PrimaryKeyConstraint('number', name=op.f('pk_tuned_model')),
        sa.UniqueConstraint('name', name=op.f('uq_tuned_model_name')),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f('ix_tuned_model_fine_tuning_job_id'), 'tuned_model', ['fine_tuning_job_id']
    )


def downgrade() -> None:
    for table in ('tuned_model', 'fine_tuning_checkpoint', 'fine_tuning_event', 'fine_tuning_job'):
        op.drop_table(table)


def _of_job(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ['fine_tuning_job_id'],
        ['fine_tuning_job.id'],
        name=op.f(f'fk_{table}_fine_tuning_job_id_fine_tuning_job'),
        ondelete='CASCADE',
    )
