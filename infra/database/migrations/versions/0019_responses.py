"""responses"""

import sqlalchemy as sa
from alembic import op

revision = '0019'
down_revision = '0018'
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    op.create_table(
        'response',
        sa.Column('number', NUMBER, sa.Identity(), primary_key=True),
        sa.Column('id', sa.String(length=64), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('tenant', sa.String(length=255), nullable=True),
        sa.Column('key_id', sa.String(length=64), nullable=True),
        sa.Column('body', sa.JSON(), nullable=False),
        sa.Column('items', sa.JSON(), nullable=False),
        sa.Column('messages', sa.JSON(), nullable=False),
        sa.UniqueConstraint('id', name=op.f('uq_response_id')),
        sqlite_autoincrement=True,
    )
    op.create_table(
        'response_document',
        sa.Column('response_number', NUMBER, nullable=False),
        sa.Column('file_id', sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ['response_number'],
            ['response.number'],
            name=op.f('fk_response_document_response_number_response'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('response_number', 'file_id', name=op.f('pk_response_document')),
    )
    op.create_index(op.f('ix_response_document_file_id'), 'response_document', ['file_id'])


def downgrade() -> None:
    op.drop_table('response_document')
    op.drop_table('response')
