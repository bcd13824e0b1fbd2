"""sources"""

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('source',
    sa.Column('number', Number, sa.Identity(), nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('collection_id', Number, nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('place', sa.Text(), nullable=False),
    sa.Column('identity', sa.Text(), nullable=False),
    sa.Column('options', sa.JSON(), nullable=False),
    sa.Column('metadata', sa.JSON(), nullable=False),
    sa.Column('created_at', Moment, nullable=False),
    sa.ForeignKeyConstraint(['collection_id'], ['collection.id'], name=op.f('fk_source_collection_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_source')),
    sa.UniqueConstraint('name', name=op.f('uq_source_name')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_source_collection_id'), 'source', ['collection_id'], unique=False)
    op.create_table('source_item',
    sa.Column('collection_id', Number, nullable=False),
    sa.Column('scope', sa.String(length=80), nullable=False),
    sa.Column('uri', sa.String(length=2048), nullable=False),
    sa.Column('token', sa.Text(), nullable=True),
    sa.Column('digest', sa.String(length=80), nullable=True),
    sa.ForeignKeyConstraint(['collection_id'], ['collection.id'], name=op.f('fk_source_item_collection_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('collection_id', 'scope', 'uri', name=op.f('pk_source_item'))
    )


def downgrade() -> None:
    op.drop_table('source_item')
    op.drop_index(op.f('ix_source_collection_id'), table_name='source')
    op.drop_table('source')
