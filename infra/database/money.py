"""The tables of money: budgets, what is spent of them and lent to processes, usage."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, UniqueConstraint

from infra.database.schema import Moment, metadata

# Counters that tell at the price of one row whether anything of a kind has changed.
revision = Table(
    "revision",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# Amounts are whole billionths of a unit of the currency.
budget = Table(
    "budget",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("holder", String(8), nullable=False),  # key | tenant | all
    Column("subject", String(255), nullable=False),  # the key's id, the tenant's name, or empty
    Column("period", String(8), nullable=False),  # total | day | month
    Column("amount", BigInteger, nullable=False),
    Column("created_at", Moment(), nullable=False),
    UniqueConstraint("holder", "subject", "period"),
)

# One row for each day, month or whole of a budget in which money was asked for.
# spent + lent <= amount, unless the amount was lowered meanwhile.
budget_account = Table(
    "budget_account",
    metadata,
    Column("budget_id", String(64), ForeignKey("budget.id", ondelete="CASCADE"), primary_key=True),
    Column("span", String(16), primary_key=True),  # total | 2026-11-29 | 2026-11
    Column("spent", BigInteger, nullable=False),
    Column("lent", BigInteger, nullable=False),
    # Raised by a process that finds nothing left to borrow: the others give back what they can.
    Column("recalls", BigInteger, nullable=False),
)

# A process that borrows; its journal has what it spent since `reported`.
spender = Table(
    "spender",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("reported", BigInteger, nullable=False),  # sequence in its journal
    Column("beat", BigInteger, nullable=False),
    Column("started_at", Moment(), nullable=False),
    Column("seen_at", Moment(), nullable=False),
)

allowance = Table(
    "allowance",
    metadata,
    Column(
        "spender_id", String(64), ForeignKey("spender.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("budget_id", String(64), ForeignKey("budget.id", ondelete="CASCADE"), primary_key=True),
    Column("span", String(16), primary_key=True),
    Column("granted", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),  # the last recall it gave back for
    Index(None, "budget_id", "span"),
)

usage = Table(
    "usage",
    metadata,
    Column("day", String(10), primary_key=True),  # UTC, 2026-11-29
    Column("key_id", String(64), primary_key=True),  # empty where no key is asked for
    Column("model", String(255), primary_key=True),
    Column("tenant", String(255), nullable=False),
    Column("requests", BigInteger, nullable=False),
    # Of these, cut off by the death of their process and charged at the most they could cost.
    Column("interrupted", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
)
