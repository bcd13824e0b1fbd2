"""Budgets: how much a key, a tenant or everybody may spend, in all, in a day or in a month."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, cast, get_args

from sqlalchemy import Connection, delete, insert, or_, select, update

from infra.database.engine import Database
from infra.database.money import budget, budget_account, revision
from infra.errors import InvalidRequest, NotFound
from infra.security import new_id
from service.gateway.counts import AccountId
from service.gateway.escrow import MONEY_LOCK
from service.gateway.prices import MAX_UNITS, NANOS, format_amount
from service.gateway.spans import PERIODS, Period, span_of, spans
from service.gateway.usage import KEEP_DAYS
from service.keys import next_revision

Holder: TypeAlias = Literal["key", "tenant", "all"]
HOLDERS: tuple[Holder, ...] = get_args(Holder)


@dataclass(frozen=True, slots=True)
class Budget:
    id: str
    holder: Holder
    subject: str
    """The key's id or the tenant's name; empty for everybody."""
    period: Period
    amount: int
    """In billionths of a unit of the currency."""
    created_at: datetime

    @property
    def title(self) -> str:
        """As a person is told."""
        whose = {"key": "of the key", "tenant": f"of the tenant {self.subject!r}", "all": "for all"}
        each = {"total": "", "day": " a day", "month": " a month"}
        return f"The budget {whose[self.holder]}, {format_amount(self.amount)}{each[self.period]},"


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget and what has become of it in one span of time."""

    budget: Budget
    span: str
    spent: int = 0
    held: int = 0
    """Borrowed by processes: reserved by calls under way, or set aside for the next ones."""

    @property
    def remaining(self) -> int:
        return self.budget.amount - self.spent


@dataclass(frozen=True, slots=True)
class Book:
    """The budgets as a process knows them, by whom they bind."""

    revision: int
    by_holder: Mapping[tuple[Holder, str], tuple[Budget, ...]]
    ids: frozenset[str] = frozenset()

    def of(self, key_id: str | None, tenant: str | None) -> tuple[Budget, ...]:
        """Return the budgets that a caller's calls are charged to."""
        found = self.by_holder.get(("all", ""), ())
        if key_id is not None:
            found = self.by_holder.get(("key", key_id), ()) + found
        if tenant is not None:
            found = self.by_holder.get(("tenant", tenant), ()) + found
        return found

    def is_over(self, account_id: AccountId, current: frozenset[str]) -> bool:
        """Whether an account is of another span than the current ones, or its budget is gone."""
        return account_id[0] not in self.ids or account_id[1] not in current


class Budgets:
    """The budgets, as the database has them."""

    def __init__(
        self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._clock = clock

    def put(self, holder: Holder, subject: str, *, period: Period, amount: int) -> Budget:
        """Set a budget, or change the amount of the one there is; what was spent stays spent.

        Lowered, it binds within a second: until then running processes may spend what they have
        borrowed.
        """
        _check(holder, subject, period, amount)
        this = (
            budget.c.holder == holder,
            budget.c.subject == subject,
            budget.c.period == period,
        )
        with self._database.write(lock=MONEY_LOCK) as connection:
            row = connection.execute(select(budget).where(*this)).first()
            if row is None:
                values = {
                    "id": new_id("budget_"),
                    "holder": holder,
                    "subject": subject,
                    "period": period,
                    "created_at": self._clock(),
                }
                connection.execute(insert(budget).values(amount=amount, **values))
            else:
                connection.execute(update(budget).where(*this).values(amount=amount))
                if amount < row.amount:
                    of = budget_account.c.budget_id == row.id
                    recall = update(budget_account).where(of)
                    connection.execute(recall.values(recalls=budget_account.c.recalls + 1))
            next_revision(connection, "budgets")
            return _budget(connection.execute(select(budget).where(*this)).one())

    def standings(self) -> list[Standing]:
        """Return the budgets and how they stand now."""
        return self._standings()

    def get(self, budget_id: str) -> Standing:
        """Return one budget and how it stands now.

        Raises:
            NotFound: there is none of that id.
        """
        found = self._standings(budget.c.id == budget_id)
        if not found:
            raise NotFound("budget", budget_id, among=[each.budget.id for each in self.standings()])
        return found[0]

    def remove(self, budget_id: str) -> Budget:
        """Remove a budget and what it remembers; calls under way end as they began.

        Raises:
            NotFound: there is none of that id.
        """
        found = self.get(budget_id).budget
        with self._database.write(lock=MONEY_LOCK) as connection:
            connection.execute(delete(budget).where(budget.c.id == found.id))
            next_revision(connection, "budgets")
        return found

    def book(self) -> Book:
        """Read all budgets, as a process keeps them."""
        by_holder: dict[tuple[Holder, str], tuple[Budget, ...]] = {}
        with self._database.read() as connection:
            number = _revision(connection)
            found = [_budget(row) for row in connection.execute(select(budget))]
        for each in found:
            of = (each.holder, each.subject)
            by_holder[of] = (*by_holder.get(of, ()), each)
        return Book(number, by_holder, frozenset(each.id for each in found))

    def prune(self, *, keep_days: int = KEEP_DAYS) -> int:
        """Forget the accounts of days and months long past; returns how many went."""
        oldest = self._clock() - timedelta(days=keep_days)
        days = (budget_account.c.span.like("____-__-__"), f"{oldest:%Y-%m-%d}")
        months = (budget_account.c.span.like("____-__"), f"{oldest:%Y-%m}")
        past = [has_form & (budget_account.c.span < first) for has_form, first in (days, months)]
        with self._database.write(lock=MONEY_LOCK) as connection:
            query = delete(budget_account).where(or_(*past), budget_account.c.lent == 0)
            return int(connection.execute(query).rowcount)

    def _standings(self, *where: Any) -> list[Standing]:
        now = self._clock()
        query = select(budget).where(*where).order_by(budget.c.created_at, budget.c.id)
        with self._database.read() as connection:
            found = [_budget(row) for row in connection.execute(query)]
            current = budget_account.c.span.in_(spans(now))
            wanted = budget_account.c.budget_id.in_(select(budget.c.id).where(*where))
            accounts = {
                (row.budget_id, row.span): row
                for row in connection.execute(select(budget_account).where(current, wanted))
            }
        standings = []
        for each in found:
            span = span_of(each.period, now)
            row = accounts.get((each.id, span))
            standings.append(
                Standing(each, span, row.spent, row.lent) if row else Standing(each, span)
            )
        return standings


def subject_of(*, key: str | None, tenant: str | None) -> tuple[Holder, str]:
    """Return whose a budget is, of a key's id and a tenant's name.

    Raises:
        InvalidRequest: it would be of both.
    """
    if key is not None and tenant is not None:
        raise InvalidRequest(
            "A budget is of a key or of a tenant; set one for each", parameter="key"
        )
    if key is not None:
        return "key", key
    return ("all", "") if tenant is None else ("tenant", tenant)


def _check(holder: str, subject: str, period: str, amount: int) -> None:
    if holder not in HOLDERS:
        raise InvalidRequest(f"{holder!r} has no budget; {', '.join(HOLDERS)} do", parameter="for")
    if period not in PERIODS:
        known = ", ".join(PERIODS)
        raise InvalidRequest(f"{period!r} is no period; there are {known}", parameter="period")
    if bool(subject) != (holder != "all") or len(subject) > 255 or not subject.isprintable():
        raise InvalidRequest(
            f"A budget for {holder!r} cannot be of {subject[:80]!r}: name the key or the tenant, "
            "or nobody where it is for all",
            parameter="subject",
        )
    if not 0 <= amount <= MAX_UNITS * NANOS:
        raise InvalidRequest(
            f"A budget cannot be {format_amount(amount)}; from 0 to {MAX_UNITS:,} it can",
            parameter="amount",
        )


def _revision(connection: Connection) -> int:
    found = select(revision.c.number).where(revision.c.name == "budgets")
    return int(connection.execute(found).scalar_one())


def _budget(row: Any) -> Budget:
    return Budget(
        id=row.id,
        holder=cast("Holder", row.holder),
        subject=row.subject,
        period=cast("Period", row.period),
        amount=int(row.amount),
        created_at=row.created_at,
    )
