"""builds"""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)

# Every build so far was live and held what its collection held.
FILL = """
INSERT INTO build_document (build_id, document_id, version)
SELECT collection.live_build_id, document.id, document.version
FROM document JOIN collection ON collection.id = document.collection_id
WHERE document.version > 0 AND collection.live_build_id IS NOT NULL
"""


def upgrade() -> None:
    op.create_table('build_document',
    sa.Column('build_id', Number, nullable=False),
    sa.Column('document_id', Number, nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['build_id'], ['build.id'], name=op.f('fk_build_document_build_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['document_id'], ['document.id'], name=op.f('fk_build_document_document_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('build_id', 'document_id', name=op.f('pk_build_document'))
    )
    op.create_index(op.f('ix_build_document_document_id'), 'build_document', ['document_id'], unique=False)
    op.create_table('build_event',
    sa.Column('id', Number, sa.Identity(), nullable=False),
    sa.Column('collection_id', Number, nullable=False),
    sa.Column('build_id', Number, nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('detail', sa.JSON(), nullable=False),
    sa.Column('at', Moment, nullable=False),
    sa.ForeignKeyConstraint(['collection_id'], ['collection.id'], name=op.f('fk_build_event_collection_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_build_event')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_build_event_collection_id'), 'build_event', ['collection_id'], unique=False)
    op.execute(FILL)


def downgrade() -> None:
    op.drop_index(op.f('ix_build_event_collection_id'), table_name='build_event')
    op.drop_table('build_event')
    op.drop_index(op.f('ix_build_document_document_id'), table_name='build_document')
    op.drop_table('build_document')
