"""Budgets in the database: what is spent, and what each process has borrowed of the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_, update

from infra.database.engine import Database
from infra.database.money import allowance, budget, budget_account, revision, spender
from infra.errors import Conflict
from service.gateway.accounts import Request, Standing
from service.gateway.counts import AccountId
from service.gateway.lending import Row
from service.gateway.usage import record_usage

MONEY_LOCK = 0x7261_676D
"""Held while money moves: transactions are few, and one after the other they cannot deadlock."""
BATCH = 400


class Superseded(Conflict):
    """This process was struck off: what it had borrowed is accounted for without it."""


@dataclass(frozen=True, slots=True)
class News:
    """What other processes did."""

    budgets: int
    """Revision of the budgets."""
    recalled: tuple[AccountId, ...]
    """Accounts of which others want what is free here."""
    beats: Mapping[str, int]


class Escrow:
    """The database's side of the budgets, for one process."""

    def __init__(self, database: Database, spender_id: str) -> None:
        self._database = database
        self.spender_id = spender_id

    def register(self) -> None:
        """Enter this process among those that borrow."""
        now = datetime.now(UTC)
        with self._database.write(lock=MONEY_LOCK) as connection:
            connection.execute(
                insert(spender).values(
                    id=self.spender_id, reported=0, beat=0, started_at=now, seen_at=now
                )
            )

    def look(self) -> News:
        """Read what concerns this process; three small queries."""
        with self._database.read() as connection:
            number = connection.execute(
                select(revision.c.number).where(revision.c.name == "budgets")
            ).scalar_one()
            beats = {row.id: row.beat for row in connection.execute(select(spender))}
            rows = connection.execute(
                select(allowance.c.budget_id, allowance.c.span)
                .join(
                    budget_account,
                    (budget_account.c.budget_id == allowance.c.budget_id)
                    & (budget_account.c.span == allowance.c.span),
                )
                .where(
                    allowance.c.spender_id == self.spender_id,
                    allowance.c.answered < budget_account.c.recalls,
                )
            )
            recalled = tuple((row.budget_id, row.span) for row in rows)
        return News(int(number), recalled, beats)

    def exchange(self, request: Request, *, living: Collection[str]) -> dict[AccountId, Standing]:
        """Report, give back and borrow in one transaction.

        Raises:
            Superseded: this process was struck off.
            StorageFailed: it is not known whether it happened; `resolve` tells.
        """
        with self._database.write(lock=MONEY_LOCK) as connection:
            self._advance(connection, request.through)
            record_usage(connection, request.usage)
            rows = self._load(connection, request.touched, living)
            for account_id, row in rows.items():
                row.charge(request.spent.get(account_id, 0))
                if account_id in request.returns:
                    row.give_back(request.returns[account_id])
                if account_id in request.wants:
                    row.lend(request.wants[account_id])
            self._store(connection, rows, request.closing)
        return {
            account_id: Standing(row.granted, row.borrowed, row.is_exhausted)
            for account_id, row in rows.items()
        }

    def beat(self) -> None:
        """Show that this process lives.

        Raises:
            Superseded: this process was struck off.
        """
        with self._database.write(durable=False) as connection:
            self._touch(connection, {})

    def resolve(self, request: Request) -> tuple[bool, dict[AccountId, int]]:
        """Return whether a transaction happened of which that is not known, and what is granted."""
        with self._database.read() as connection:
            reported = connection.execute(
                select(spender.c.reported).where(spender.c.id == self.spender_id)
            ).scalar_one_or_none()
            if reported is None:
                raise _superseded(self.spender_id)
            rows = connection.execute(
                select(allowance).where(allowance.c.spender_id == self.spender_id)
            )
            granted = {(row.budget_id, row.span): row.granted for row in rows}
        return reported >= request.through, granted

    def _advance(self, connection: Connection, through: int) -> None:
        self._touch(connection, {"reported": through})

    def _touch(self, connection: Connection, values: dict[str, int]) -> None:
        done = connection.execute(
            update(spender)
            .where(spender.c.id == self.spender_id)
            .values(beat=spender.c.beat + 1, seen_at=datetime.now(UTC), **values)
        )
        if not done.rowcount:
            raise _superseded(self.spender_id)

    def _load(
        self, connection: Connection, wanted: Iterable[AccountId], living: Collection[str]
    ) -> dict[AccountId, Row]:
        """Return the accounts of those budgets that there are."""
        rows: dict[AccountId, Row] = {}
        for some in _batches(sorted(wanted)):
            amounts = connection.execute(
                select(budget.c.id, budget.c.amount).where(budget.c.id.in_({id for id, _ in some}))
            )
            known = {row.id: row.amount for row in amounts}
            for account_id in some:
                if account_id[0] in known:
                    rows[account_id] = Row(
                        known[account_id[0]], 0, 0, 0, 0, 0, has_account=False, has_allowance=False
                    )
            self._load_accounts(connection, some, rows)
            self._load_allowances(connection, some, rows, living)
        return rows

    def _load_accounts(
        self, connection: Connection, some: list[AccountId], rows: dict[AccountId, Row]
    ) -> None:
        of = tuple_(budget_account.c.budget_id, budget_account.c.span).in_(some)
        for found in connection.execute(select(budget_account).where(of)):
            row = rows[found.budget_id, found.span]
            row.spent, row.lent, row.recalls = found.spent, found.lent, found.recalls
            row.has_account = True

    def _load_allowances(
        self,
        connection: Connection,
        some: list[AccountId],
        rows: dict[AccountId, Row],
        living: Collection[str],
    ) -> None:
        of = tuple_(allowance.c.budget_id, allowance.c.span).in_(some)
        for found in connection.execute(select(allowance).where(of)):
            row = rows[found.budget_id, found.span]
            if found.spender_id == self.spender_id:
                row.granted, row.answered = found.granted, found.answered
                row.has_allowance = True
            elif found.spender_id in living:
                row.others += found.granted
                row.sharers += 1

    def _store(
        self,
        connection: Connection,
        rows: Mapping[AccountId, Row],
        closing: Collection[AccountId],
    ) -> None:
        accounts = [(key, row) for key, row in rows.items() if row.has_account]
        new = [(key, row) for key, row in rows.items() if not row.has_account]
        if new:
            connection.execute(insert(budget_account), [_account_values(*each) for each in new])
        if accounts:
            statement = (
                update(budget_account)
                .where(
                    budget_account.c.budget_id == bindparam("of_budget"),
                    budget_account.c.span == bindparam("of_span"),
                )
                .values(
                    spent=bindparam("now_spent"),
                    lent=bindparam("now_lent"),
                    recalls=bindparam("now_recalls"),
                )
            )
            connection.execute(statement, [_account_changes(*each) for each in accounts])
        self._store_allowances(connection, rows, closing)

    def _store_allowances(
        self,
        connection: Connection,
        rows: Mapping[AccountId, Row],
        closing: Collection[AccountId],
    ) -> None:
        mine = allowance.c.spender_id == self.spender_id
        new = [(key, row) for key, row in rows.items() if not row.has_allowance]
        old = [(key, row) for key, row in rows.items() if row.has_allowance]
        opened = [each for each in new if each[0] not in closing]
        if opened:
            connection.execute(
                insert(allowance),
                [
                    {
                        "spender_id": self.spender_id,
                        "budget_id": key[0],
                        "span": key[1],
                        "granted": row.granted,
                        "answered": row.recalls,
                    }
                    for key, row in opened
                ],
            )
        this = (
            mine,
            allowance.c.budget_id == bindparam("of_budget"),
            allowance.c.span == bindparam("of_span"),
        )
        kept = [each for each in old if each[0] not in closing or each[1].granted > 0]
        if kept:
            statement = (
                update(allowance)
                .where(*this)
                .values(granted=bindparam("now_granted"), answered=bindparam("now_answered"))
            )
            connection.execute(statement, [_allowance_changes(*each) for each in kept])
        gone = [each for each in old if each not in kept]
        if gone:
            names = [{"of_budget": key[0], "of_span": key[1]} for key, _ in gone]
            connection.execute(delete(allowance).where(*this), names)


def _account_values(key: AccountId, row: Row) -> dict[str, object]:
    return {
        "budget_id": key[0],
        "span": key[1],
        "spent": row.spent,
        "lent": row.lent,
        "recalls": row.recalls,
    }


def _account_changes(key: AccountId, row: Row) -> dict[str, object]:
    return {
        "of_budget": key[0],
        "of_span": key[1],
        "now_spent": row.spent,
        "now_lent": row.lent,
        "now_recalls": row.recalls,
    }


def _allowance_changes(key: AccountId, row: Row) -> dict[str, object]:
    return {
        "of_budget": key[0],
        "of_span": key[1],
        "now_granted": row.granted,
        "now_answered": row.answered,
    }


def _batches(items: list[AccountId]) -> Iterator[list[AccountId]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _superseded(spender_id: str) -> Superseded:
    return Superseded(f"The process {spender_id!r} is no longer among those that spend")
