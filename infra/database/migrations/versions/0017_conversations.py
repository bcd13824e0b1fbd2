"""conversations"""

import sqlalchemy as sa
from alembic import op

revision = '0017'
down_revision = '0013'
branch_labels = None
depends_on = None

Number = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table('conversation',
    sa.Column('number', Number, sa.Identity(), nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('tenant', sa.String(length=255), nullable=True),
    sa.Column('attributes', sa.JSON(), nullable=False),
    sa.Column('created_at', Moment, nullable=False),
    sa.Column('updated_at', Moment, nullable=False),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_conversation')),
    sa.UniqueConstraint('id', name=op.f('uq_conversation_id')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_conversation_updated_at'), 'conversation', ['updated_at'], unique=False)
    op.create_table('conversation_item',
    sa.Column('number', Number, sa.Identity(), nullable=False),
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('conversation_number', Number, nullable=False),
    sa.Column('role', sa.String(length=16), nullable=False),
    sa.Column('content', sa.JSON(), nullable=False),
    sa.Column('bytes', sa.Integer(), nullable=False),
    sa.Column('created_at', Moment, nullable=False),
    sa.ForeignKeyConstraint(['conversation_number'], ['conversation.number'], name=op.f('fk_conversation_item_conversation_number'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('number', name=op.f('pk_conversation_item')),
    sa.UniqueConstraint('id', name=op.f('uq_conversation_item_id')),
    sqlite_autoincrement=True
    )
    op.create_index(op.f('ix_conversation_item_conversation_number'), 'conversation_item', ['conversation_number'], unique=False)


def downgrade() -> None:
    op.drop_index(op.f('ix_conversation_item_conversation_number'), table_name='conversation_item')
    op.drop_table('conversation_item')
    op.drop_index(op.f('ix_conversation_updated_at'), table_name='conversation')
    op.drop_table('conversation')
