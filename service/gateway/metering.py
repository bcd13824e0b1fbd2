"""The meter: every call passes the limits and budgets of its key, tenant and model, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from infra.contracts import Usage
from infra.errors import BudgetExceeded, NotFound, RateLimited, StorageFailed
from infra.gateway_settings import Gateway, Quota
from service.callers import NO_LIMITS, Caller, Limits
from service.gateway.accounts import Account, Reservation
from service.gateway.budgets import Book, Budget
from service.gateway.calls import Call
from service.gateway.clerk import Clerk
from service.gateway.counts import Count, UsageId
from service.gateway.prices import NANOS, Prices, format_amount
from service.gateway.rates import Gate, Pass, Rates
from service.gateway.spans import seconds_left, span_of

WAIT_SECONDS = 5.0
"""For money that other processes hold, or that calls under way may not use."""
MAX_MODEL_CHARACTERS = 255
FORGET_EVERY = 10_000
"""Calls after which gates that hold nothing are dropped."""
MAX_PLANS = 200_000
OTHERS = "*"
"""The name of limits for every tenant that has none of its own."""


class Metering:
    """Admits calls and charges them.

    To be used by one event loop: limits are counted without a lock.
    """

    def __init__(
        self,
        settings: Gateway,
        clerk: Clerk,
        *,
        time_of_day: Callable[[], float] = time.time,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.adopt(settings)
        self._clerk = clerk
        self._ledger = clerk.ledger
        self._time = time_of_day
        self._now_ns = monotonic_ns
        self._wait_seconds = wait_seconds
        self._rates = Rates(monotonic_ns)
        self._calls = 0
        self._plans: dict[tuple[str | None, str | None], tuple[_Charge, ...]] = {}
        self._planned_for: tuple[Book, str] = (clerk.book, "")
        self._today = ("", 0.0, 0.0)

    def adopt(self, settings: Gateway) -> None:
        """Go by other prices and limits from now on; what was used of a limit stays used."""
        self._prices = Prices(settings.prices)
        self._key_default = _limits(settings.key_limits)
        self._tenants = {name: _limits(each) for name, each in settings.tenant_limits.items()}
        self._models = {name: _limits(each) for name, each in settings.model_limits.items()}
        self._merged: dict[Limits, Limits] = {}

    def try_admit(
        self, call: Call, *, prompt_tokens: int, completion_tokens: int
    ) -> MeteredTicket | None:
        """Reserve what a call may use at most; None if only `admit` can tell."""
        admitted = self._admit(call, prompt_tokens, completion_tokens)
        return admitted if isinstance(admitted, MeteredTicket) else None

    def try_admit_free(self, caller: Caller, model: str, *, calls: int) -> MeteredTicket | None:
        """Admit several calls at once that use no tokens; None if not all of them fit."""
        admitted = self._admit_calls(caller, model, (0, 0), calls)
        return admitted if isinstance(admitted, MeteredTicket) else None

    async def admit(
        self, call: Call, *, prompt_tokens: int, completion_tokens: int
    ) -> MeteredTicket:
        """Do the same, waiting a moment where money must be borrowed from the database."""
        until = self._now_ns() / NANOS + self._wait_seconds
        until = min(until, call.deadline)
        while True:
            admitted = self._admit(call, prompt_tokens, completion_tokens)
            if isinstance(admitted, MeteredTicket):
                return admitted
            need = self._prices.cost(call.model, prompt_tokens, completion_tokens)
            if not await self._ledger.wait(admitted.account, need, until=until):
                if self._clerk.failure is not None:
                    raise StorageFailed(f"Budgets cannot be asked: {self._clerk.failure.message}")
                raise self._exceeded(admitted, need)

    def _admit(
        self, call: Call, prompt_tokens: int, completion_tokens: int
    ) -> MeteredTicket | _Charge:
        """Return the ticket, or what the call could not be charged to."""
        return self._admit_calls(call.caller, call.model, (prompt_tokens, completion_tokens), 1)

    def _admit_calls(
        self, caller: Caller, model: str, most: tuple[int, int], calls: int
    ) -> MeteredTicket | _Charge:
        _check_model(caller, model)
        prompt_tokens, completion_tokens = most
        tokens = prompt_tokens + completion_tokens
        gates = self._gates(caller, model)
        try:
            self._rates.check(gates, tokens, calls=calls)
        except RateLimited as error:
            error.headers = self._rates.headers(gates)
            raise
        need = self._prices.cost(model, prompt_tokens, completion_tokens)
        charges = self._charges(caller)
        for charge in charges:
            if charge.account.exhausted and self._ledger.is_exhausted(charge.account, need):
                raise self._exceeded(charge, need)
        usage: UsageId = (self._day(), caller.key_id or "", model, caller.tenant or "")
        accounts = tuple([charge.account for charge in charges])
        reserved = self._ledger.reserve(accounts, need, usage=usage)
        if isinstance(reserved, Account):
            return next(charge for charge in charges if charge.account is reserved)
        self._calls += 1
        if self._calls % FORGET_EVERY == 0:
            self._rates.forget_idle()
        return MeteredTicket(self, model, reserved, self._rates.take(gates, tokens, calls=calls))

    def begin(self, ticket: MeteredTicket) -> None:
        """Note that what a ticket is for is about to be done; see there."""
        self._ledger.begin(ticket.reservation)

    def settle(self, ticket: MeteredTicket, usage: Usage) -> float:
        """Charge a ticket; see there."""
        prompt, completion = max(0, usage.prompt_tokens), max(0, usage.completion_tokens)
        cost = self._prices.cost(ticket.model, prompt, completion)
        self._ledger.settle(
            ticket.reservation, Count(ticket.passed.calls, 0, prompt, completion, cost)
        )
        self._rates.release(ticket.passed, used_tokens=prompt + completion)
        return cost / NANOS

    def waive(self, ticket: MeteredTicket, usage: Usage) -> None:
        """Count a ticket against limits alone; see there."""
        self._ledger.settle(ticket.reservation, Count(requests=ticket.passed.calls))
        self._rates.release(
            ticket.passed, used_tokens=usage.prompt_tokens + usage.completion_tokens
        )

    def refund(self, ticket: MeteredTicket) -> None:
        """Give back what a ticket holds; see there."""
        self._ledger.refund(ticket.reservation)
        self._rates.undo(ticket.passed)

    def headers(self, passed: Pass) -> Mapping[str, str]:
        """Return the limits of a call as they stand, for its answer."""
        return self._rates.headers(passed.gates)

    def _gates(self, caller: Caller, model: str) -> tuple[Gate, ...]:
        rates, found = self._rates, []
        of_key = self._limits_of(caller)
        if of_key is not NO_LIMITS:
            found.append(rates.gate("key", caller.key_id or "", shown=caller.name, limits=of_key))
        if caller.tenant is not None and self._tenants:
            tenant = caller.tenant
            of_tenant = self._tenants.get(tenant) or self._tenants.get(OTHERS, NO_LIMITS)
            if of_tenant is not NO_LIMITS:
                found.append(rates.gate("tenant", tenant, shown=tenant, limits=of_tenant))
        of_model = self._models.get(model, NO_LIMITS)
        if of_model is not NO_LIMITS:
            found.append(rates.gate("model", model, shown=model, limits=of_model))
        return tuple(found)

    def _limits_of(self, caller: Caller) -> Limits:
        """Return the key's own limits, and the default where it has none of a kind."""
        own, default = caller.limits, self._key_default
        if default is NO_LIMITS or caller.key_id is None:
            return own
        merged = self._merged.get(own)
        if merged is None:
            if len(self._merged) >= MAX_PLANS:
                self._merged.clear()
            merged = self._merged[own] = Limits(
                *(getattr(own, name) or getattr(default, name) for name in own.__slots__)
            )
        return merged

    def _charges(self, caller: Caller) -> tuple[_Charge, ...]:
        """Return the accounts that a caller's calls are charged to now."""
        book, day = self._clerk.book, self._day()
        known_book, known_day = self._planned_for
        if known_book is not book or known_day != day:
            self._planned_for = (book, day)
            self._plans.clear()
        plan = self._plans.get((caller.key_id, caller.tenant))
        if plan is None or _is_stale(plan):
            now = self._clock()
            plan = tuple(
                _Charge(each, self._ledger.account((each.id, span_of(each.period, now))))
                for each in book.of(caller.key_id, caller.tenant)
            )
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[caller.key_id, caller.tenant] = plan
        return plan

    def _day(self) -> str:
        """Return the day in UTC; worked out once a day."""
        now = self._time()
        day, first, last = self._today
        if not first <= now < last:
            first = now // 86_400 * 86_400
            day = datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%d")
            self._today = (day, first, first + 86_400)
        return day

    def _clock(self) -> datetime:
        return datetime.fromtimestamp(self._time(), UTC)

    def _exceeded(self, charge: _Charge, need: int) -> BudgetExceeded:
        return BudgetExceeded(
            f"{charge.budget.title} does not have {format_amount(need)} left, "
            "which the call may cost; raise it with `ragstone budgets set`",
            retry_after_seconds=seconds_left(charge.budget.period, self._clock()),
        )


class _Charge:
    """A budget and the account that it has now."""

    __slots__ = ("account", "budget")

    def __init__(self, budget: Budget, account: Account) -> None:
        self.budget = budget
        self.account = account


class MeteredTicket:
    """What one admitted call holds; ended once."""

    __slots__ = ("_is_open", "_metering", "model", "passed", "reservation")

    def __init__(
        self, metering: Metering, model: str, reservation: Reservation, passed: Pass
    ) -> None:
        self._metering = metering
        self._is_open = True
        self.model = model
        self.reservation = reservation
        self.passed = passed

    @property
    def headers(self) -> Mapping[str, str]:
        """`x-ratelimit-*`, as they stand now."""
        return self._metering.headers(self.passed)

    def begin(self) -> None:
        """Note that the call is about to be made: from here on a crash charges its most.

        Raises:
            StorageFailed: it cannot be noted, so the call must not be made.
        """
        self._metering.begin(self)

    def settle(self, usage: Usage) -> float:
        """Charge what was used, give the rest back, return the cost. Later calls do nothing.

        What was used beyond the reservation is charged too.
        """
        if not self._is_open:
            return 0.0
        self._is_open = False
        return self._metering.settle(self, usage)

    def waive(self, usage: Usage) -> None:
        """Charge nothing, but count the request and what it used. Later calls do nothing.

        For what a server refused or failed at: nobody pays for that, and nobody repeats it
        without a limit.
        """
        if self._is_open:
            self._is_open = False
            self._metering.waive(self, usage)

    def refund(self) -> None:
        """Give everything back: nothing was sent. Later calls do nothing."""
        if self._is_open:
            self._is_open = False
            self._metering.refund(self)


def _is_stale(plan: tuple[_Charge, ...]) -> bool:
    for charge in plan:  # noqa: SIM110 - a generator would cost as much as the rest
        if charge.account.is_closed:
            return True
    return False


def _limits(quota: Quota) -> Limits:
    values = (quota.requests_per_minute, quota.tokens_per_minute, quota.max_concurrent)
    return NO_LIMITS if values == (None, None, None) else Limits(*values)


def _check_model(caller: Caller, model: str) -> None:
    if len(model) > MAX_MODEL_CHARACTERS or not model.isprintable():
        raise NotFound("model", ascii(model[:80]))
    if caller.models is not None:
        caller.require_model(model)
