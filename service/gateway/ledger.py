"""What this process may still spend of every budget: reserved, settled, refunded, from memory."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from infra.errors import RateLimited, StorageFailed
from service.gateway.accounts import Account, Request, Reservation, Standing, Waiter, Want
from service.gateway.counts import AccountId, Count, UsageId
from service.gateway.journal import Journal

MAX_WAITING = 4096
"""Calls that wait for money at a time; more are refused."""
EXHAUSTED_SECONDS = 1.0
"""How long it is remembered that a budget has nothing left, so that refusing costs nothing."""


class Ledger:
    """The accounts of this process; what a call may cost is in the journal before it is sent.

    One lock guards it: requests and the thread that talks to the database hold it for microseconds.
    """

    def __init__(
        self, journal: Journal, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = journal
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._accounts: dict[AccountId, Account] = {}
        self._usage: dict[UsageId, Count] = {}
        self._waiting = 0
        self._active: set[AccountId] = set()
        """Accounts that have something to tell or to ask."""
        self.wake = threading.Event()
        """Set when the database should be asked now."""

    def account(self, account_id: AccountId) -> Account:
        """Return the account of a budget in a span of time."""
        found = self._accounts.get(account_id)
        if found is None:
            with self._lock:
                found = self._accounts.setdefault(account_id, Account(account_id))
        return found

    def reserve(
        self, accounts: tuple[Account, ...], amount: int, *, usage: UsageId
    ) -> Reservation | Account:
        """Set `amount` aside in all the accounts, or return the first that does not have it.

        Only `begin` writes it down: what has not begun costs nothing if the process dies.

        Raises:
            StorageFailed: what was spent before cannot be written down.
        """
        with self._lock:
            self._journal.retry()
            ids = tuple([account.id for account in accounts])
            if not accounts or not amount:
                return Reservation(accounts, ids, 0, usage)
            for account in accounts:
                if account.free < amount:
                    return account
            for account in accounts:
                account.reserved += amount
                account.largest = max(account.largest, amount)
                if account.free < account.low:
                    self._active.add(account.id)
                    self.wake.set()
            return Reservation(accounts, ids, amount, usage)

    def begin(self, reservation: Reservation) -> None:
        """Write down that a call may cost what is set aside for it, before it is sent.

        Raises:
            StorageFailed: it cannot be written down, so it must not be spent.
        """
        if not reservation.amount or reservation.entry is not None:
            return
        with self._lock:
            reservation.entry = self._journal.reserve(
                reservation.ids, reservation.amount, usage=reservation.usage
            )

    def settle(self, reservation: Reservation, count: Count) -> None:
        """Charge what was used, which is also charged where it is more than was reserved."""
        with self._lock:
            self._journal.settle(
                reservation.entry, reservation.ids, usage=reservation.usage, count=count
            )
            known = self._usage.get(reservation.usage)
            if known is None:
                known = self._usage[reservation.usage] = Count()
            known.add(count)
            for account in reservation.accounts:
                account.reserved -= reservation.amount
                if account.is_closed:  # it held nothing of this one, whose use was not foreseen
                    account = self._accounts.setdefault(account.id, Account(account.id))
                account.spent += count.cost
                self._active.add(account.id)
                self._freed(account)

    def refund(self, reservation: Reservation) -> None:
        """Take a reservation back."""
        with self._lock:
            if reservation.entry is not None:
                self._journal.refund(reservation.entry)
            for account in reservation.accounts:
                account.reserved -= reservation.amount
                self._freed(account)

    async def wait(self, account: Account, need: int, *, until: float) -> bool:
        """Wait until an account may have enough, or has no prospect; False if time is up.

        Raises:
            RateLimited: too many wait already.
        """
        loop = asyncio.get_running_loop()
        waiter = Waiter(need, loop, loop.create_future())
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise RateLimited(f"{self._waiting} calls wait for a budget already")
            if account.free >= need or account.is_closed:
                return True
            self._waiting += 1
            account.waiting.append(waiter)
            self._active.add(account.id)
        self.wake.set()
        try:
            async with asyncio.timeout(max(0.0, until - self._monotonic())):
                await waiter.future
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiting -= 1
                if waiter in account.waiting:
                    account.waiting.remove(waiter)
        return True

    def is_exhausted(self, account: Account, need: int) -> bool:
        """Whether the database said a moment ago that there is not so much."""
        known = account.exhausted
        return known is not None and need >= known[0] and self._monotonic() < known[1]

    def prepare(
        self,
        *,
        recalled: Iterable[AccountId] = (),
        is_over: Callable[[AccountId], bool] = lambda _: False,
    ) -> Request:
        """Collect what the database is to be told and asked; `accept` or `resolve` ends it.

        Args:
            recalled: accounts of which other processes want what is free here.
            is_over: whether an account's span of time has passed, or its budget is gone.

        Raises:
            StorageFailed: the disk does not take what is to be reported.
        """
        with self._lock:
            self._journal.flush()
            request = Request(self._journal.next_sequence(), {}, self._usage, {}, {}, set())
            self._usage = {}
            active, self._active = self._active, set()
            over = {account_id for account_id in self._accounts if is_over(account_id)}
            for account_id in (active | over) & self._accounts.keys():
                self._collect(self._accounts[account_id], request, is_over=account_id in over)
            for account_id in recalled:
                account = self._accounts.get(account_id)
                if account is not None and account_id not in request.returns:
                    account.low = 0
                    request.returns[account_id] = 0
                    self._give_back(account, request)
            return request

    def _collect(self, account: Account, request: Request, *, is_over: bool) -> None:
        if account.spent:
            request.spent[account.id] = account.spent
        if account.waiting:
            needs = [waiter.need for waiter in account.waiting]
            request.wants[account.id] = Want(sum(needs), min(needs), account.largest)
            self._give_back(account, request)
            self._active.add(account.id)
        elif is_over and not account.reserved:
            request.closing.add(account.id)
            self._give_back(account, request)
        elif account.free < account.low:
            request.wants[account.id] = Want(0, 0, account.largest)

    def accept(self, request: Request, standings: Mapping[AccountId, Standing]) -> None:
        """Take over what the database did."""
        with self._lock:
            for account_id in request.touched:
                account = self._accounts.get(account_id)
                if account is None:
                    continue
                standing = standings.get(account_id, Standing(0))
                account.spent -= request.spent.get(account_id, 0)
                account.returning -= request.returns.get(account_id, 0)
                account.granted = standing.granted
                if account_id in request.wants:
                    self._borrowed(account, request.wants[account_id], standing)
                self._freed(account)
                if account_id in request.closing and not account.waiting:
                    account.is_closed = True
                    del self._accounts[account_id]
            self._journal.trim(request.through)

    def resolve(
        self, request: Request, granted: Mapping[AccountId, int], *, has_happened: bool
    ) -> None:
        """End a request whose transaction broke off, as the database has it."""
        if has_happened:
            self.accept(request, {each: Standing(amount) for each, amount in granted.items()})
            return
        with self._lock:
            for usage, count in request.usage.items():
                self._usage.setdefault(usage, Count()).add(count)
            for account_id in request.touched & self._accounts.keys():
                account = self._accounts[account_id]
                account.returning -= request.returns.get(account_id, 0)
                account.granted = granted.get(account_id, 0)
                self._active.add(account_id)

    def sync(self) -> None:
        """Bring the journal to the disk.

        Raises:
            StorageFailed: the disk does not take it, or refused it before: then trying again tells
                nothing, and only the database having taken what was refused helps.
        """
        try:
            with self._lock:
                descriptor = self._journal.duplicate()
            if descriptor is not None:
                self._sync(descriptor)
        except OSError as error:
            raise StorageFailed(f"The journal does not reach the disk: {error}") from error
        if self._journal.is_doubtful:
            raise StorageFailed(
                "The disk refused a part of the journal; it is doubtful until the database has it"
            )

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            with self._lock:
                self._journal.doubt()
            raise
        finally:
            os.close(descriptor)

    def forfeit(self) -> None:
        """Spend nothing more of what was granted."""
        with self._lock:
            for account in self._accounts.values():
                account.granted = 0

    @property
    def has_news(self) -> bool:
        """True if there is something to report or to ask."""
        return bool(self._usage or self._active)

    @property
    def waiting(self) -> int:
        """Calls that wait for money."""
        return self._waiting

    def _give_back(self, account: Account, request: Request) -> None:
        free = account.free
        if free > 0:
            account.returning += free
            request.returns[account.id] = free

    def _borrowed(self, account: Account, want: Want, standing: Standing) -> None:
        if standing.borrowed:
            account.low = (standing.borrowed - want.total) // 2
        elif not want.total:
            account.low = 0  # there is too little to borrow ahead: from now on by need
        if standing.is_exhausted:
            account.exhausted = (want.smallest, self._monotonic() + EXHAUSTED_SECONDS)
            account.low = 0
            for waiter in account.waiting:
                if waiter.need >= want.smallest:
                    _tell(waiter)

    def _freed(self, account: Account) -> None:
        """Wake those that can be served now, the first come first."""
        free = account.free
        if account.exhausted is not None and free >= account.exhausted[0]:
            account.exhausted = None
        while account.waiting and account.waiting[0].need <= free:
            waiter = account.waiting.popleft()
            free -= waiter.need
            _tell(waiter)


def _tell(waiter: Waiter) -> None:
    def tell() -> None:
        if not waiter.future.done():
            waiter.future.set_result(None)

    try:
        waiter.loop.call_soon_threadsafe(tell)
    except RuntimeError:  # its loop is closed
        waiter.need = 0
