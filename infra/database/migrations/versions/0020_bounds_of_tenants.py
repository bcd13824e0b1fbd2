"""bounds of tenants"""

from alembic import op

revision = '0020'
down_revision = '0019'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f('ix_response_tenant_number'), 'response', ['tenant', 'number'])
    op.create_index(
        op.f('ix_conversation_tenant_updated_at'), 'conversation', ['tenant', 'updated_at']
    )


def downgrade() -> None:
    op.drop_index(op.f('ix_conversation_tenant_updated_at'), table_name='conversation')
    op.drop_index(op.f('ix_response_tenant_number'), table_name='response')
