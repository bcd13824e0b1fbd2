"""pipelines"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('pipeline_run',
    sa.Column('number', Number, sa.Identity(always=False), nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('pipeline', sa.String(length=64), nullable=False),
    sa.Column('key', sa.String(length=255), nullable=True),
    sa.Column('mode', sa.String(length=16), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('definition', sa.JSON(), nullable=False),
    sa.Column('pins', sa.JSON(), nullable=False),
    sa.Column('snapshot', sa.String(length=80), nullable=True),
    sa.Column('force', sa.Boolean(), nullable=False),
    sa.Column('process', sa.String(length=255), nullable=True),
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('finished_at', Moment, nullable=True),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_pipeline_run')),
    sa.UniqueConstraint('id', name=op.f('uq_pipeline_run_id')),
    sa.UniqueConstraint('pipeline', 'key', name=op.f('uq_pipeline_run_pipeline_key')),
    sqlite_autoincrement=True
    )
    op.create_table('pipeline_step',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('run_id', sa.String(length=64), nullable=False),
    sa.Column('pipeline', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('key', sa.String(length=80), nullable=True),
    sa.Column('parts', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('inputs', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('outputs', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('result', sa.JSON(none_as_null=True), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('failures', sa.Integer(), nullable=False),
    sa.Column('work', sa.String(length=64), nullable=True),
    sa.Column('job_id', sa.String(length=64), nullable=True),
    sa.Column('started_at', Moment, nullable=True),
    sa.Column('finished_at', Moment, nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['pipeline_run.id'], name=op.f('fk_pipeline_step_run_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_pipeline_step')),
    sa.UniqueConstraint('run_id', 'name', name=op.f('uq_pipeline_step_run_id_name')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_pipeline_step_key'), 'pipeline_step', ['key'], unique=False)
    op.create_index(op.f('ix_pipeline_step_pipeline_name_state'), 'pipeline_step', ['pipeline', 'name', 'state'], unique=False)


def downgrade() -> None:
    op.drop_table('pipeline_step')
    op.drop_table('pipeline_run')
