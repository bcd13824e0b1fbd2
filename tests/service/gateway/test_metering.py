"""The meter: limits, budgets, prices and tickets together, on both databases."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from infra.contracts import Usage
from infra.database.engine import Database
from infra.errors import BudgetExceeded, InvalidRequest, NotFound, RateLimited, StorageFailed
from infra.gateway_settings import Gateway, Price, Quota
from service.callers import Caller, Limits
from service.gateway import clerk as clerks
from service.gateway.budgets import Budgets
from service.gateway.calls import Call
from service.gateway.clerk import Clerk
from service.gateway.metering import MeteredTicket, Metering
from service.gateway.prices import NANOS, Prices, format_amount, parse_amount
from service.gateway.usage import report
from set_clock import TimeOfDay
from waiting import until

PRICES = {"small": Price(input_per_million=1.0, output_per_million=2.0)}
ADA = Caller(key_id="key_ada", name="ada", tenant="acme")
MILLION = 10**6


@pytest.fixture
def clock() -> TimeOfDay:
    return TimeOfDay(datetime(2026, 11, 29, 12, tzinfo=UTC))


@pytest.fixture
def budgets(database: Database, clock: TimeOfDay) -> Budgets:
    return Budgets(database, clock=clock)


@pytest.fixture
def clerk(
    database: Database, clock: TimeOfDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Clerk]:
    monkeypatch.setattr(clerks, "REPORT_SECONDS", 0.05)
    monkeypatch.setattr(clerks, "PAUSE_SECONDS", 0.05)
    clerk = Clerk(database, tmp_path / "money", clock=clock, poll_seconds=0.02)
    clerk.start()
    yield clerk
    clerk.stop()


@pytest.fixture
def open_meter(clerk: Clerk, clock: TimeOfDay) -> Callable[..., Metering]:
    def open_(wait_seconds: float = 5.0, **sections: Any) -> Metering:
        settings = Gateway(**{"prices": PRICES, **sections})
        return Metering(settings, clerk, time_of_day=clock.timestamp, wait_seconds=wait_seconds)

    return open_


def call(caller: Caller = ADA, model: str = "small") -> Call:
    return Call("", caller, "/v1/chat/completions", model, {}, time.monotonic() + 60)


def admit(meter: Metering, *, tokens: int = MILLION, caller: Caller = ADA) -> MeteredTicket:
    ticket = asyncio.run(meter.admit(call(caller), prompt_tokens=tokens, completion_tokens=0))
    ticket.begin()
    return ticket


def see(clerk: Clerk, budgets: Budgets) -> None:
    """Wait until the process has seen the latest change of a budget."""
    revision = budgets.book().revision
    until(lambda: clerk.book.revision == revision)


def test_a_call_is_charged_what_it_used(
    database: Database, budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budget = budgets.put("tenant", "acme", period="month", amount=5 * NANOS)
    see(clerk, budgets)
    meter = open_meter()
    ticket = asyncio.run(meter.admit(call(), prompt_tokens=MILLION, completion_tokens=MILLION))
    assert ticket.settle(Usage(500_000, 250_000)) == 1.0
    assert ticket.settle(Usage(500_000, 250_000)) == 0.0
    ticket.refund()
    until(lambda: budgets.get(budget.id).spent == NANOS)
    until(lambda: len(report(database, ["key", "model", "day", "tenant"])) == 1)
    (row,) = report(database, ["key", "model", "day", "tenant"])
    assert (row.key, row.model, row.day, row.tenant) == ("key_ada", "small", "2026-11-29", "acme")
    count = row.count
    assert (count.requests, count.prompt_tokens, count.completion_tokens) == (1, 500_000, 250_000)
    assert count.cost == NANOS


def test_a_refunded_call_leaves_no_trace(
    database: Database, budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budget = budgets.put("key", "key_ada", period="total", amount=NANOS)
    see(clerk, budgets)
    meter = open_meter()
    for _ in range(3):
        ticket = admit(meter)
        ticket.refund()
        ticket.refund()
        assert ticket.settle(Usage(MILLION)) == 0.0
    clerk.stop()
    assert (budgets.get(budget.id).spent, budgets.get(budget.id).held) == (0, 0)
    assert report(database, ["key"]) == []


def test_the_narrowest_budget_refuses_and_says_so(
    budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budgets.put("all", "", period="total", amount=100 * NANOS)
    budgets.put("key", "key_ada", period="day", amount=NANOS)
    see(clerk, budgets)
    meter = open_meter()
    admit(meter).settle(Usage(MILLION))
    with pytest.raises(BudgetExceeded, match=r"of the key, 1.00 a day, .* 1.00 left") as refused:
        admit(meter)
    assert refused.value.retry_after_seconds == 12 * 3600
    admit(meter, caller=Caller(key_id="key_bob", name="bob"))


def test_a_call_that_was_promised_less_than_it_used_is_charged_all(
    budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budget = budgets.put("all", "", period="total", amount=2 * NANOS)
    see(clerk, budgets)
    meter = open_meter()
    admit(meter, tokens=1000).settle(Usage(3 * MILLION))
    with pytest.raises(BudgetExceeded):
        admit(meter, tokens=1)
    clerk.stop()
    assert (budgets.get(budget.id).spent, budgets.get(budget.id).held) == (3 * NANOS, 0)


def test_a_new_day_is_a_new_budget_and_a_clock_that_steps_back_finds_the_old_one(
    budgets: Budgets, clerk: Clerk, clock: TimeOfDay, open_meter: Any
) -> None:
    budgets.put("all", "", period="day", amount=NANOS)
    see(clerk, budgets)
    meter = open_meter()
    admit(meter).settle(Usage(MILLION))
    clock.now += timedelta(days=1)
    admit(meter).settle(Usage(MILLION))
    clock.now -= timedelta(days=1)
    with pytest.raises(BudgetExceeded):
        admit(meter)
    assert {row.day for row in _report_when_there(clerk, ["day"])} == {"2026-11-29", "2026-11-30"}


def _report_when_there(clerk: Clerk, by: list[Any]) -> list[Any]:
    clerk.stop()
    return report(clerk._database, by)


def test_a_call_that_was_promised_nothing_is_charged_too(
    budgets: Budgets, clerk: Clerk, clock: TimeOfDay, open_meter: Any
) -> None:
    budget = budgets.put("all", "", period="total", amount=2 * NANOS)
    see(clerk, budgets)
    meter = open_meter()
    admit(meter, tokens=0).settle(Usage(MILLION))
    clerk.stop()
    assert budgets.get(budget.id).spent == NANOS


def test_money_that_calls_under_way_do_not_use_is_waited_for(
    budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budgets.put("all", "", period="total", amount=NANOS)
    see(clerk, budgets)
    meter = open_meter()

    async def both() -> None:
        first = await meter.admit(call(), prompt_tokens=MILLION, completion_tokens=0)
        assert meter.try_admit(call(), prompt_tokens=MILLION, completion_tokens=0) is None
        second = asyncio.create_task(
            meter.admit(call(), prompt_tokens=MILLION // 2, completion_tokens=0)
        )
        await asyncio.sleep(0.1)
        assert not second.done()
        first.settle(Usage(MILLION // 2))
        (await second).settle(Usage(MILLION // 2))

    asyncio.run(both())


def test_a_budget_that_is_raised_or_lowered_binds_running_processes(
    budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budget = budgets.put("all", "", period="total", amount=NANOS)
    see(clerk, budgets)
    admit(open_meter()).settle(Usage(MILLION))
    meter = open_meter(wait_seconds=0.2)
    with pytest.raises(BudgetExceeded):
        admit(meter)
    budgets.put("all", "", period="total", amount=1000 * NANOS)
    until(lambda: _admits(meter))
    assert budgets.get(budget.id).held > NANOS  # borrowed ahead
    budgets.put("all", "", period="total", amount=3 * NANOS)
    until(lambda: not _admits(meter))
    standing = budgets.get(budget.id)
    assert standing.spent + standing.held <= 1000 * NANOS
    budgets.remove(budget.id)
    until(lambda: _admits(meter))


def _admits(meter: Metering) -> bool:
    try:
        admit(meter).settle(Usage(MILLION))
    except BudgetExceeded:
        return False
    return True


def test_admitting_asks_no_database(
    database: Database, budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budgets.put("all", "", period="month", amount=10**6 * NANOS)
    see(clerk, budgets)
    meter = open_meter(key_limits=Quota(requests_per_minute=10**9, tokens_per_minute=10**12))
    admit(meter, tokens=1000).refund()
    asking: set[int] = set()

    def note(*_: Any) -> None:
        asking.add(threading.get_ident())

    event.listen(database.engine, "before_cursor_execute", note)
    for _ in range(1000):
        ticket = meter.try_admit(call(), prompt_tokens=1000, completion_tokens=0)
        assert ticket is not None
        ticket.settle(Usage(1000))
    until(lambda: bool(asking))  # the thread that reports does
    assert threading.get_ident() not in asking


def test_limits_of_key_tenant_and_model_hold_together(open_meter: Any) -> None:
    meter = open_meter(
        key_limits=Quota(requests_per_minute=3),
        tenant_limits={"*": Quota(max_concurrent=2)},
        model_limits={"small": Quota(tokens_per_minute=100)},
    )
    first = admit(meter, tokens=10)
    assert first.headers["x-ratelimit-remaining-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-tokens"] == "90"
    admit(meter, tokens=10)
    with pytest.raises(RateLimited, match="tenant 'acme' has 2 calls under way"):
        admit(meter, tokens=10)
    first.settle(Usage(10))
    with pytest.raises(RateLimited, match="model 'small' may use 100 tokens") as refused:
        admit(meter, tokens=90)
    assert refused.value.headers["x-ratelimit-remaining-tokens"] in {"80", "81"}
    admit(meter, tokens=10).settle(Usage(10))
    with pytest.raises(RateLimited, match="key 'ada' may send 3 requests"):
        admit(meter, tokens=10)
    own = Caller(key_id="key_own", name="own", limits=Limits(requests_per_minute=1))
    admit(meter, tokens=10, caller=own).settle(Usage(10))
    with pytest.raises(RateLimited, match="may send 1 requests"):
        admit(meter, tokens=10, caller=own)


def test_a_model_that_is_not_the_keys_is_not_there(open_meter: Any) -> None:
    caller = Caller(key_id="key_ada", name="ada", models=("small", "tiny-*"))
    meter = open_meter()
    for model in ("large", "sm\nall", "\ud800", "x" * 256):
        with pytest.raises(NotFound):
            meter.try_admit(call(caller, model), prompt_tokens=1, completion_tokens=1)
    ticket = meter.try_admit(call(caller, "tiny-2"), prompt_tokens=1, completion_tokens=1)
    assert ticket is not None
    ticket.refund()


def test_a_full_disk_stops_spending_and_forgets_nothing(
    budgets: Budgets, clerk: Clerk, open_meter: Any
) -> None:
    budget = budgets.put("all", "", period="total", amount=10 * NANOS)
    see(clerk, budgets)
    meter = open_meter()
    under_way = admit(meter)
    journal = clerk._journal
    until(lambda: not journal._is_dirty)  # or `fsync` fails, and another file is begun
    kept = os.dup(journal._file)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._file)  # every write from here on finds no space
    with pytest.raises(StorageFailed, match="No space left"):
        admit(meter)
    assert under_way.settle(Usage(MILLION)) == 1.0
    with pytest.raises(StorageFailed, match="No space left"):
        admit(meter)
    assert budgets.get(budget.id).spent == 0
    os.dup2(kept, journal._file)
    admit(meter).settle(Usage(MILLION))
    until(lambda: budgets.get(budget.id).spent == 2 * NANOS)
    os.close(full)
    os.close(kept)


def test_what_a_dead_process_left_unreadable_stops_nothing(
    budgets: Budgets,
    clerk: Clerk,
    open_meter: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = budgets.put("all", "", period="total", amount=10 * NANOS)
    see(clerk, budgets)
    broken = tmp_path / "money" / "spender_gone.000001.journal"
    broken.mkdir()
    (tmp_path / "money" / "spender_gone.lock").touch()
    until(lambda: clerk.failure is not None and "budgets wait" in caplog.text)
    admit(open_meter()).settle(Usage(MILLION))
    until(lambda: budgets.get(budget.id).spent == NANOS)
    broken.rmdir()
    until(lambda: clerk.failure is None)


def test_a_model_without_a_price_costs_nothing_and_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prices = Prices(PRICES)
    assert prices.cost("gift", 10**9, 10**9) == 0
    assert prices.cost("gift", 1, 1) == 0
    assert caplog.text.count("'gift' has no price") == 1


def test_prices_are_exact_and_rounded_up_to_the_billionth() -> None:
    prices = Prices({"m": Price(input_per_million=0.15, output_per_million=0.000000001)})
    assert prices.cost("m", MILLION, 0) == 150_000_000
    assert prices.cost("m", 1, 0) == 150
    assert prices.cost("m", 0, 1) == 1


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0", 0), ("12.50", 12_500_000_000), ("1e-9", 1), ("9000000000", 9 * 10**18)],
)
def test_amounts_are_read_exactly(text: str, nanos: int) -> None:
    assert parse_amount(text) == nanos
    assert parse_amount(format_amount(nanos)) == nanos


@pytest.mark.parametrize("text", ["", "-1", "ten", "nan", "inf", "1e99999999", "9e9999", "1e-10"])
def test_absurd_amounts_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no amount of money"):
        parse_amount(text)
