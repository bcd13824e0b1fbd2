"""Laws of budgets under any order of calls, reports, failures and deaths of two processes."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from infra.database.engine import Database
from infra.errors import StorageFailed
from service.gateway import usage
from service.gateway.accounts import Account, Reservation
from service.gateway.budgets import Budgets
from service.gateway.clerk import Clerk
from service.gateway.counts import Count

AMOUNTS = st.integers(min_value=1, max_value=60)
USAGE = ("2026-11-29", "key_test", "model", "")
PROCESSES = st.sampled_from(["one", "two"])


class BreakingDatabase(Database):
    """Loses its connection once, when told to: before a transaction is committed, or after."""

    breaks: str | None = None

    @contextmanager
    def write(self, **options: Any) -> Iterator[Connection]:
        breaks, self.breaks = self.breaks, None
        with super().write(**options) as connection:
            yield connection
            if breaks == "before":
                raise StorageFailed("the connection broke before the commit")
        if breaks == "after":
            raise StorageFailed("the connection broke after the commit")


class Machine(RuleBasedStateMachine):
    """Two processes and one budget; `due` is what somebody has to be paid."""

    held = Bundle("held")
    database: BreakingDatabase

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = itertools.count(step=2)
        self.clerks: dict[str, Clerk] = {}
        self.budgets = Budgets(self.database)
        for standing in self.budgets.standings():
            self.budgets.remove(standing.budget.id)
        usage.prune(self.database, keep_days=-10_000)
        self.amount = 100
        self.budget = self.budgets.put("all", "", period="total", amount=self.amount)
        self.due = 0
        self.open: dict[int, int] = {}
        self.waiting: dict[int, Clerk] = {}
        """Of those that are open, which have not begun, and where."""
        self.names = itertools.count()
        for name in ("one", "two"):
            self.start(name)

    def start(self, name: str) -> None:
        clerk = Clerk(self.database, self.folder, monotonic=lambda: float(next(self.clock)))
        clerk.register()
        self.clerks[name] = clerk

    def account(self, name: str) -> Account:
        return self.clerks[name].ledger.account((self.budget.id, "total"))

    def try_reserve(self, name: str, amount: int) -> Any:
        made = self.clerks[name].ledger.reserve((self.account(name),), amount, usage=USAGE)
        if isinstance(made, Account):
            return None
        number = next(self.names)
        self.open[number] = amount
        self.waiting[number] = self.clerks[name]
        return number, name, self.clerks[name], made

    @rule(target=held, name=PROCESSES, amount=AMOUNTS)
    def reserve(self, name: str, amount: int) -> Any:
        made = self.try_reserve(name, amount)
        return multiple() if made is None else made

    @rule(target=held, name=PROCESSES, amount=AMOUNTS)
    def borrow(self, name: str, amount: int) -> Any:
        """Whoever waits gets money if there is any, wherever it is."""

        is_left = self.due + sum(self.open.values()) + amount <= self.amount

        async def take() -> Any:
            while (made := self.try_reserve(name, amount)) is None:
                ledger = self.clerks[name].ledger
                await ledger.wait(self.account(name), amount, until=float("inf"))
            return made

        async def work() -> Any:
            taking = asyncio.ensure_future(take())
            for _ in range(8):
                for _ in range(3):
                    await asyncio.sleep(0)
                if taking.done():
                    return taking.result()
                for clerk in self.clerks.values():
                    clerk.turn()
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            return None

        made = asyncio.run(work())
        assert (made is not None) == is_left
        return multiple() if made is None else made

    @rule(reservation=held)
    def begin(self, reservation: tuple[int, str, Clerk, Reservation]) -> None:
        number, name, clerk, made = reservation
        if self.clerks[name] is clerk:
            clerk.ledger.begin(made)
            self.waiting.pop(number, None)

    @rule(reservation=consumes(held), share=st.floats(min_value=0, max_value=1))
    def settle(self, reservation: tuple[int, str, Clerk, Reservation], share: float) -> None:
        number, name, clerk, made = reservation
        if self.clerks[name] is not clerk:  # its process died
            return
        cost = int(self.open.pop(number) * share)
        self.waiting.pop(number, None)
        clerk.ledger.settle(made, Count(1, 0, 1, 1, cost))
        self.due += cost

    @rule(reservation=consumes(held))
    def refund(self, reservation: tuple[int, str, Clerk, Reservation]) -> None:
        number, name, clerk, made = reservation
        if self.clerks[name] is clerk:
            clerk.ledger.refund(made)
            del self.open[number]
            self.waiting.pop(number, None)

    @rule(name=PROCESSES)
    def turn(self, name: str) -> None:
        self.clerks[name].turn()

    @rule(name=PROCESSES, breaks=st.sampled_from(["before", "after"]))
    def turn_while_the_connection_breaks(self, name: str, breaks: str) -> None:
        self.database.breaks = breaks
        try:
            self.clerks[name].turn()
        except StorageFailed:
            pass
        finally:
            self.database.breaks = None

    @rule(name=PROCESSES)
    def die(self, name: str) -> None:
        self.forget_waiting(name)
        self.clerks.pop(name)._journal.close()  # what the end of a process does to its lock
        self.start(name)

    @rule(name=PROCESSES)
    def restart(self, name: str) -> None:
        self.forget_waiting(name)
        self.clerks.pop(name).stop()
        self.start(name)

    def forget_waiting(self, name: str) -> None:
        """What had not begun when its process ended costs nothing."""
        for number, clerk in list(self.waiting.items()):
            if clerk is self.clerks[name]:
                del self.open[number], self.waiting[number]

    @rule(more=st.integers(min_value=1, max_value=100))
    def raise_budget(self, more: int) -> None:
        self.amount += more
        self.budgets.put("all", "", period="total", amount=self.amount)

    @invariant()
    def nothing_is_overspent(self) -> None:
        assert self.due + sum(self.open.values()) <= self.amount

    @invariant()
    def the_database_lends_no_more_than_there_is(self) -> None:
        standing = self.budgets.get(self.budget.id)
        assert 0 <= standing.spent <= self.due + sum(self.open.values())
        assert standing.held >= 0
        assert standing.spent + standing.held <= self.amount

    def teardown(self) -> None:
        """In the end everything is accounted for, once; what was cut off at its most."""
        for name, clerk in self.clerks.items():
            self.forget_waiting(name)
            clerk.stop()
        standing = self.budgets.get(self.budget.id)
        (row,) = usage.report(self.database, [])
        assert (standing.spent, standing.held) == (self.due + sum(self.open.values()), 0)
        assert row.count.cost == standing.spent
        assert row.count.interrupted == len(self.open)
        assert list(self.folder.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize("examples", [12, pytest.param(400, marks=pytest.mark.slow)])
def test_budgets_hold_whatever_happens(database: Database, examples: int) -> None:
    breaking = BreakingDatabase(database.url)
    machine = type("BoundMachine", (Machine,), {"database": breaking})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    breaking.close()
