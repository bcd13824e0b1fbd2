"""An account as one process has it, what a call holds of it, what goes to the database and back."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from service.gateway.counts import AccountId, Count, UsageId
from service.gateway.journal import Entry


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that waits until an account can carry it."""

    need: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Account:
    """One budget in one span of time, as far as this process may spend of it.

    What was granted is the process's own: no other can spend it. `granted` is what the database
    has; the rest of it that is neither reserved, nor spent, nor on its way back, is free.
    """

    id: AccountId
    granted: int = 0
    reserved: int = 0
    spent: int = 0
    """Settled, and not reported yet."""
    returning: int = 0
    largest: int = 0
    """Of the reservations so far: how much is worth borrowing ahead."""
    low: int = 0
    """Below this, more is borrowed ahead of need."""
    exhausted: tuple[int, float] | None = None
    """A need that could not be met, and until when on the monotonic clock that is remembered."""
    waiting: deque[Waiter] = field(default_factory=deque)
    is_closed: bool = False
    """Given back for good; who still knows it asks for another."""

    @property
    def free(self) -> int:
        return self.granted - self.reserved - self.spent - self.returning


@dataclass(slots=True)
class Reservation:
    """What one call holds; ended once."""

    accounts: tuple[Account, ...]
    ids: tuple[AccountId, ...]
    amount: int
    usage: UsageId
    entry: Entry | None = None
    """None until the call begins, and where no budget is touched."""


@dataclass(frozen=True, slots=True)
class Want:
    """What an account asks the database for."""

    total: int
    """What all waiting calls need; 0 asks ahead of need."""
    smallest: int
    """What the first that can be served needs: less than that helps nobody."""
    largest: int


@dataclass(slots=True)
class Request:
    """What goes to the database in one transaction."""

    through: int
    """Everything settled up to this sequence of the journal is in it."""
    spent: dict[AccountId, int]
    usage: dict[UsageId, Count]
    returns: dict[AccountId, int]
    wants: dict[AccountId, Want]
    closing: set[AccountId]
    """Of spans that are over: given back for good."""

    @property
    def touched(self) -> set[AccountId]:
        return self.spent.keys() | self.returns.keys() | self.wants.keys() | self.closing


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands after a transaction."""

    granted: int
    borrowed: int = 0
    """Of that, what came with this transaction."""
    is_exhausted: bool = False
    """Nothing is left, and nobody holds any that could come back."""
