"""interactions"""

import sqlalchemy as sa
from alembic import op

revision = '0018'
down_revision = '0017'
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        'interaction',
        sa.Column('number', NUMBER, sa.Identity(), primary_key=True),
        sa.Column('id', sa.String(length=64), nullable=False),
        sa.Column('at', MOMENT, nullable=False),
        sa.Column('kind', sa.String(length=16), nullable=False),
        sa.Column('model', sa.String(length=255), nullable=False),
        sa.Column('outcome', sa.String(length=16), nullable=False),
        sa.Column('status', sa.Integer(), nullable=False),
        sa.Column('request_id', sa.String(length=128), nullable=True),
        sa.Column('error', sa.String(length=64), nullable=True),
        sa.Column('tenant', sa.String(length=255), nullable=True),
        sa.Column('key_id', sa.String(length=64), nullable=True),
        sa.Column('collection', sa.String(length=255), nullable=True),
        sa.Column('upstream', sa.String(length=255), nullable=False),
        sa.Column('tag', sa.String(length=64), nullable=False),
        sa.Column('source', sa.String(length=16), nullable=False),
        sa.Column('prompt_version', sa.String(length=80), nullable=True),
        sa.Column('prompt_tokens', sa.Integer(), nullable=False),
        sa.Column('completion_tokens', sa.Integer(), nullable=False),
        sa.Column('cached_tokens', sa.Integer(), nullable=False),
        sa.Column('cost_nano', sa.BigInteger(), nullable=False),
        sa.Column('first_byte_seconds', sa.Float(), nullable=True),
        sa.Column('seconds', sa.Float(), nullable=False),
        sa.Column('support', sa.Float(), nullable=True),
        sa.Column('content', sa.JSON(), nullable=True),
        sa.UniqueConstraint('id', name=op.f('uq_interaction_id')),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f('ix_interaction_at'), 'interaction', ['at'])
    op.create_index(op.f('ix_interaction_tenant'), 'interaction', ['tenant'])
    op.create_index(op.f('ix_interaction_request_id'), 'interaction', ['request_id'])
    op.create_table(
        'interaction_document',
        sa.Column('interaction_number', NUMBER, nullable=False),
        sa.Column('file_id', sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ['interaction_number'],
            ['interaction.number'],
            name=op.f('fk_interaction_document_interaction_number_interaction'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('interaction_number', 'file_id', name=op.f('pk_interaction_document')),
    )
    op.create_index(op.f('ix_interaction_document_file_id'), 'interaction_document', ['file_id'])


def downgrade() -> None:
    op.drop_table('interaction_document')
    op.drop_table('interaction')
