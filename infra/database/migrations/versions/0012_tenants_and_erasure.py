"""tenants and erasure"""

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)
OWNED = ('collection', 'file', 'document', 'batch', 'source')


def upgrade() -> None:
    # Plain ALTER TABLE: to write these tables anew would let go of the rows that refer to them.
    for name in OWNED:
        op.add_column(name, sa.Column('tenant', sa.String(length=255), nullable=True))
    op.add_column('source', sa.Column('allow', sa.JSON(), nullable=True))
    op.add_column('build', sa.Column('compactions', sa.Integer(), server_default='0', nullable=False))
    op.create_index(op.f('ix_document_collection_id_tenant'), 'document', ['collection_id', 'tenant'])
    op.create_table('document_reader',
    sa.Column('document_id', Number, nullable=False),
    sa.Column('principal', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['document_id'], ['document.id'], name=op.f('fk_document_reader_document_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('document_id', 'principal', name=op.f('pk_document_reader'))
    )
    op.create_table('doomed_quote',
    sa.Column('document', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('document', name=op.f('pk_doomed_quote'))
    )
    op.create_table('erasure',
    sa.Column('number', Number, sa.Identity(), nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('collection', sa.String(length=64), nullable=False),
    sa.Column('collection_name', sa.String(length=255), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('requested_by', sa.String(length=255), nullable=False),
    sa.Column('tenant', sa.String(length=255), nullable=True),
    sa.Column('documents', sa.JSON(), nullable=False),
    sa.Column('removed', sa.JSON(), nullable=False),
    sa.Column('compaction', sa.JSON(), nullable=False),
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('removed_at', Moment, nullable=True),
    sa.Column('compacted_at', Moment, nullable=True),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_erasure')),
    sa.UniqueConstraint('id', name=op.f('uq_erasure_id')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_erasure_collection'), 'erasure', ['collection'], unique=False)


def downgrade() -> None:
    op.drop_table('erasure')
    op.drop_table('doomed_quote')
    op.drop_table('document_reader')
    op.drop_index(op.f('ix_document_collection_id_tenant'), table_name='document')
    op.drop_column('build', 'compactions')
    op.drop_column('source', 'allow')
    for name in OWNED:
        op.drop_column(name, 'tenant')
