"""limits of keys, budgets, usage"""

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0011'
branch_labels = None
depends_on = None

KEY_COLUMNS = (
    ('revision', sa.BigInteger()),
    ('requests_per_minute', sa.BigInteger()),
    ('tokens_per_minute', sa.BigInteger()),
    ('max_concurrent', sa.BigInteger()),
    ('previous_fingerprint', sa.String(length=64)),
    ('previous_until', sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    with op.batch_alter_table('api_key') as table:
        for name, kind in KEY_COLUMNS:
            default = '0' if name == 'revision' else None
            table.add_column(
                sa.Column(name, kind, nullable=default is None, server_default=default)
            )
        table.create_index(op.f('ix_api_key_revision'), ['revision'])
    op.create_table(
        'revision',
        sa.Column('name', sa.String(length=32), nullable=False),
        sa.Column('number', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('name', name=op.f('pk_revision')),
    )
    op.execute("INSERT INTO revision (name, number) VALUES ('keys', 0), ('budgets', 0)")
    op.create_table(
        'budget',
        sa.Column('id', sa.String(length=64), nullable=False),
        sa.Column('holder', sa.String(length=8), nullable=False),
        sa.Column('subject', sa.String(length=255), nullable=False),
        sa.Column('period', sa.String(length=8), nullable=False),
        sa.Column('amount', sa.BigInteger(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_budget')),
        sa.UniqueConstraint('holder', 'subject', 'period', name=op.f('uq_budget_holder_subject_period')),
    )
    op.create_table(
        'budget_account',
        sa.Column('budget_id', sa.String(length=64), nullable=False),
        sa.Column('span', sa.String(length=16), nullable=False),
        sa.Column('spent', sa.BigInteger(), nullable=False),
        sa.Column('lent', sa.BigInteger(), nullable=False),
        sa.Column('recalls', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ['budget_id'], ['budget.id'], name=op.f('fk_budget_account_budget_id'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('budget_id', 'span', name=op.f('pk_budget_account')),
    )
    op.create_table(
        'spender',
        sa.Column('id', sa.String(length=64), nullable=False),
        sa.Column('reported', sa.BigInteger(), nullable=False),
        sa.Column('beat', sa.BigInteger(), nullable=False),
        sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('seen_at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_spender')),
    )
    op.create_table(
        'allowance',
        sa.Column('spender_id', sa.String(length=64), nullable=False),
        sa.Column('budget_id', sa.String(length=64), nullable=False),
        sa.Column('span', sa.String(length=16), nullable=False),
        sa.Column('granted', sa.BigInteger(), nullable=False),
        sa.Column('answered', sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ['spender_id'], ['spender.id'], name=op.f('fk_allowance_spender_id'),
            ondelete='CASCADE',
        ),
        sa.ForeignKeyConstraint(
            ['budget_id'], ['budget.id'], name=op.f('fk_allowance_budget_id'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint(
            'spender_id', 'budget_id', 'span', name=op.f('pk_allowance')
        ),
    )
    op.create_index(op.f('ix_allowance_budget_id_span'), 'allowance', ['budget_id', 'span'])
    op.create_table(
        'usage',
        sa.Column('day', sa.String(length=10), nullable=False),
        sa.Column('key_id', sa.String(length=64), nullable=False),
        sa.Column('model', sa.String(length=255), nullable=False),
        sa.Column('tenant', sa.String(length=255), nullable=False),
        sa.Column('requests', sa.BigInteger(), nullable=False),
        sa.Column('interrupted', sa.BigInteger(), nullable=False),
        sa.Column('prompt_tokens', sa.BigInteger(), nullable=False),
        sa.Column('completion_tokens', sa.BigInteger(), nullable=False),
        sa.Column('cost', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('day', 'key_id', 'model', name=op.f('pk_usage')),
    )


def downgrade() -> None:
    for name in ('usage', 'allowance', 'spender', 'budget_account', 'budget', 'revision'):
        op.drop_table(name)
    with op.batch_alter_table('api_key') as table:
        table.drop_index(op.f('ix_api_key_revision'))
        for name, _ in reversed(KEY_COLUMNS):
            table.drop_column(name)
