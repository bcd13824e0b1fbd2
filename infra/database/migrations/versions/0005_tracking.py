"""tracking"""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('package_set',
    sa.Column('digest', sa.String(length=80), nullable=False),
    sa.Column('packages', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('digest', name=op.f('pk_package_set'))
    )
    op.create_table('run',
    sa.Column('number', Number, sa.Identity(always=False), nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('exit_reason', sa.Text(), nullable=True),
    sa.Column('parent_id', sa.String(length=64), nullable=True),
    sa.Column('parameters', sa.Text(), nullable=False),
    sa.Column('command', sa.Text(), nullable=False),
    sa.Column('environment', sa.JSON(), nullable=False),
    sa.Column('packages', sa.String(length=80), nullable=True),
    sa.Column('git_revision', sa.String(length=64), nullable=True),
    sa.Column('git_dirty', sa.Boolean(), nullable=True),
    sa.Column('process', sa.String(length=255), nullable=False),
    sa.Column('seen_at', Moment, nullable=False),
    sa.Column('flush', Number, nullable=False),
    sa.Column('dropped', Number, nullable=False),
    sa.Column('started_at', Moment, nullable=False),
    sa.Column('finished_at', Moment, nullable=True),
    sa.ForeignKeyConstraint(['parent_id'], ['run.id'], name=op.f('fk_run_parent_id'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_run')),
    sa.UniqueConstraint('id', name=op.f('uq_run_id')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_run_kind_number'), 'run', ['kind', 'number'], unique=False)
    op.create_index(op.f('ix_run_name'), 'run', ['name'], unique=False)
    op.create_index(op.f('ix_run_parent_id'), 'run', ['parent_id'], unique=False)
    op.create_index(op.f('ix_run_state'), 'run', ['state'], unique=False)
    op.create_table('run_tag',
    sa.Column('run_id', sa.String(length=64), nullable=False),
    sa.Column('key', sa.String(length=255), nullable=False),
    sa.Column('value', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_run_tag_run_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'key', name=op.f('pk_run_tag'))
    )
    op.create_index(op.f('ix_run_tag_key'), 'run_tag', ['key'], unique=False)
    op.create_table('run_artifact',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('run_id', sa.String(length=64), nullable=False),
    sa.Column('direction', sa.String(length=8), nullable=False),
    sa.Column('role', sa.String(length=64), nullable=False),
    sa.Column('reference', sa.String(length=512), nullable=False),
    sa.Column('digest', sa.String(length=80), nullable=False),
    sa.Column('at', Moment, nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_run_artifact_run_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_run_artifact')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_run_artifact_digest'), 'run_artifact', ['digest'], unique=False)
    op.create_index(op.f('ix_run_artifact_run_id'), 'run_artifact', ['run_id'], unique=False)
    op.create_table('run_series',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('run_id', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('length', Number, nullable=False),
    sa.Column('last_step', Number, nullable=False),
    sa.Column('last_at', sa.Float(), nullable=False),
    sa.Column('last', sa.Float(), nullable=True),
    sa.Column('low_step', Number, nullable=True),
    sa.Column('low', sa.Float(), nullable=True),
    sa.Column('high_step', Number, nullable=True),
    sa.Column('high', sa.Float(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_run_series_run_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_run_series')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_run_series_run_id_name'), 'run_series', ['run_id', 'name'], unique=True)
    op.create_table('run_block',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('series_id', Number, nullable=False),
    sa.Column('length', sa.Integer(), nullable=False),
    sa.Column('flush', Number, nullable=False),
    sa.Column('points', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['series_id'], ['run_series.id'], name=op.f('fk_run_block_series_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_run_block')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_run_block_series_id_id'), 'run_block', ['series_id', 'id'], unique=False)
    op.create_table('run_mirror',
    sa.Column('run_id', sa.String(length=64), nullable=False),
    sa.Column('mirror', sa.String(length=255), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('remote_id', sa.String(length=1024), nullable=True),
    sa.Column('flush', Number, nullable=False),
    sa.Column('partial', sa.JSON(), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('holder', sa.String(length=64), nullable=True),
    sa.Column('held_until', Moment, nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['run.id'], name=op.f('fk_run_mirror_run_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'mirror', name=op.f('pk_run_mirror'))
    )
    op.create_index(op.f('ix_run_mirror_state'), 'run_mirror', ['state'], unique=False)


def downgrade() -> None:
    for table in ('run_mirror', 'run_block', 'run_series', 'run_artifact', 'run_tag', 'run', 'package_set'):
        op.drop_table(table)
