"""artifacts"""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('artifact',
    sa.Column('digest', sa.String(length=80), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('entries', sa.Integer(), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.Column('job', sa.String(length=255), nullable=True),
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('collected_at', Moment, nullable=True),
    sa.PrimaryKeyConstraint('digest', name=op.f('pk_artifact'))
    )
    op.create_table('version',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('digest', sa.String(length=80), nullable=False),
    sa.Column('job', sa.String(length=255), nullable=True),
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('expires_at', Moment, nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_version')),
    sa.UniqueConstraint('kind', 'name', 'n', name=op.f('uq_version_kind_name_n'))
    )
    op.create_index(op.f('ix_version_digest'), 'version', ['digest'], unique=False)
    op.create_table('alias',
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('alias', sa.String(length=64), nullable=False),
    sa.Column('digest', sa.String(length=80), nullable=True),
    sa.Column('token', sa.BigInteger(), nullable=False),
    sa.Column('moved_at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('kind', 'name', 'alias', name=op.f('pk_alias'))
    )
    op.create_index(op.f('ix_alias_digest'), 'alias', ['digest'], unique=False)
    op.create_table('alias_log',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('alias', sa.String(length=64), nullable=False),
    sa.Column('action', sa.String(length=16), nullable=False),
    sa.Column('before', sa.String(length=80), nullable=True),
    sa.Column('after', sa.String(length=80), nullable=True),
    sa.Column('token', sa.BigInteger(), nullable=False),
    sa.Column('actor', sa.String(length=255), nullable=True),
    sa.Column('at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_alias_log'))
    )
    op.create_index(op.f('ix_alias_log_kind_name_alias'), 'alias_log', ['kind', 'name', 'alias'], unique=False)
    op.create_table('edge',
    sa.Column('child', sa.String(length=80), nullable=False),
    sa.Column('role', sa.String(length=64), nullable=False),
    sa.Column('parent', sa.String(length=80), nullable=False),
    sa.PrimaryKeyConstraint('child', 'role', 'parent', name=op.f('pk_edge'))
    )
    op.create_index(op.f('ix_edge_parent'), 'edge', ['parent'], unique=False)
    op.create_table('stat_cache',
    sa.Column('source', sa.String(length=64), nullable=False),
    sa.Column('digest', sa.String(length=80), nullable=False),
    sa.Column('files', sa.LargeBinary(), nullable=False),
    sa.Column('used_at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('source', name=op.f('pk_stat_cache'))
    )
    op.create_table('lease',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('digest', sa.String(length=80), nullable=True),
    sa.Column('started_at', Moment, nullable=False),
    sa.Column('expires_at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_lease'))
    )
    op.create_index(op.f('ix_lease_expires_at'), 'lease', ['expires_at'], unique=False)
    op.create_table('gc_run',
    sa.Column('id', Number, sa.Identity(always=False), nullable=False),
    sa.Column('started_at', Moment, nullable=False),
    sa.Column('finished_at', Moment, nullable=True),
    sa.Column('dry_run', sa.Boolean(), nullable=False),
    sa.Column('condemned', sa.BigInteger(), nullable=False),
    sa.Column('trashed', sa.BigInteger(), nullable=False),
    sa.Column('purged', sa.BigInteger(), nullable=False),
    sa.Column('bytes', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_gc_run'))
    )


def downgrade() -> None:
    for table in ('gc_run', 'lease', 'stat_cache', 'edge', 'alias_log', 'alias', 'version', 'artifact'):
        op.drop_table(table)
