"""jobs"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('job',
    sa.Column('number', Number, sa.Identity(always=False), nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('tenant', sa.String(length=128), nullable=False),
    sa.Column('key', sa.String(length=255), nullable=True),
    sa.Column('priority', sa.Integer(), nullable=False),
    sa.Column('cpu', sa.Float(), nullable=False),
    sa.Column('gpu', sa.Integer(), nullable=False),
    sa.Column('memory_bytes', sa.BigInteger(), nullable=False),
    sa.Column('arguments', sa.JSON(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('cancel_requested', sa.Boolean(), nullable=False),
    sa.Column('available_at', Moment, nullable=False),
    sa.Column('fence', Number, nullable=True),
    sa.Column('worker_id', sa.String(length=64), nullable=True),
    sa.Column('failures', sa.Integer(), nullable=False),
    sa.Column('crashes', sa.Integer(), nullable=False),
    sa.Column('run', sa.Integer(), nullable=False),
    sa.Column('fraction', sa.Float(), nullable=True),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('result', sa.JSON(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('has_steps', sa.Boolean(), nullable=False),
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('started_at', Moment, nullable=True),
    sa.Column('finished_at', Moment, nullable=True),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_job')),
    sa.UniqueConstraint('id', name=op.f('uq_job_id')),
    sa.UniqueConstraint('name', 'tenant', 'key', name=op.f('uq_job_name_tenant_key')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('job', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_job_state_priority'), ['state', 'priority'], unique=False)
        batch_op.create_index(batch_op.f('ix_job_worker_id'), ['worker_id'], unique=False)

    op.create_table('job_schedule',
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('job', sa.String(length=128), nullable=False),
    sa.Column('arguments', sa.JSON(), nullable=False),
    sa.Column('cron', sa.String(length=255), nullable=False),
    sa.Column('time_zone', sa.String(length=64), nullable=False),
    sa.Column('catch_up', sa.String(length=8), nullable=False),
    sa.Column('tenant', sa.String(length=128), nullable=False),
    sa.Column('priority', sa.Integer(), nullable=False),
    sa.Column('paused', sa.Boolean(), nullable=False),
    sa.Column('last_tick', Moment, nullable=False),
    sa.Column('created_at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_job_schedule'))
    )
    op.create_table('job_worker',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('process', sa.String(length=255), nullable=False),
    sa.Column('names', sa.JSON(), nullable=False),
    sa.Column('cpu', sa.Float(), nullable=False),
    sa.Column('gpu', sa.Integer(), nullable=False),
    sa.Column('memory_bytes', sa.BigInteger(), nullable=False),
    sa.Column('slots', sa.Integer(), nullable=False),
    sa.Column('beat', sa.Integer(), nullable=False),
    sa.Column('started_at', Moment, nullable=False),
    sa.Column('seen_at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_job_worker'))
    )
    op.create_table('job_attempt',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('job_id', sa.String(length=64), nullable=False),
    sa.Column('worker_id', sa.String(length=64), nullable=False),
    sa.Column('started_at', Moment, nullable=False),
    sa.Column('finished_at', Moment, nullable=True),
    sa.Column('outcome', sa.String(length=16), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], name=op.f('fk_job_attempt_job_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_job_attempt')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('job_attempt', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_job_attempt_job_id'), ['job_id'], unique=False)

    op.create_table('job_log',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('job_id', sa.String(length=64), nullable=False),
    sa.Column('attempt', Number, nullable=True),
    sa.Column('at', Moment, nullable=False),
    sa.Column('level', sa.String(length=16), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['job.id'], name=op.f('fk_job_log_job_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_job_log')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('job_log', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_job_log_job_id_id'), ['job_id', 'id'], unique=False)


def downgrade() -> None:
    with op.batch_alter_table('job_log', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_job_log_job_id_id'))

    op.drop_table('job_log')
    with op.batch_alter_table('job_attempt', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_job_attempt_job_id'))

    op.drop_table('job_attempt')
    op.drop_table('job_worker')
    op.drop_table('job_schedule')
    with op.batch_alter_table('job', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_job_worker_id'))
        batch_op.drop_index(batch_op.f('ix_job_state_priority'))

    op.drop_table('job')
