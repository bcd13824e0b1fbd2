"""How long the meter takes to admit a call under limits and a budget, and to settle it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from infra.contracts import Usage
from infra.database.engine import Database
from infra.database.migrate import upgrade
from infra.gateway_settings import Gateway, Price, Quota
from service.callers import Caller
from service.gateway.budgets import Budgets
from service.gateway.calls import Call
from service.gateway.clerk import Clerk
from service.gateway.metering import Metering
from service.gateway.prices import NANOS

SETTINGS = Gateway(
    prices={"model": Price(input_per_million=1.0, output_per_million=2.0)},
    key_limits=Quota(requests_per_minute=10**9, tokens_per_minute=10**12, max_concurrent=1000),
)
BATCH = 50
"""Calls between two readings of the clock: short, so that some batches are not interrupted."""


def admit_and_settle_microseconds(folder: Path, *, calls: int = 20_000) -> tuple[float, float]:
    """Return the time for one call with limits and a budget: of the best batch, and the median."""
    database = Database(f"sqlite:///{folder / 'metering.db'}")
    upgrade(database)
    Budgets(database).put("key", "key_benchmark", period="month", amount=10**6 * NANOS)
    clerk = Clerk(database, folder / "money")
    clerk.start()
    try:
        return asyncio.run(_measure(Metering(SETTINGS, clerk), calls))
    finally:
        clerk.stop()
        database.close()


async def _measure(metering: Metering, calls: int) -> tuple[float, float]:
    caller = Caller(key_id="key_benchmark", name="benchmark")
    deadline = time.monotonic() + 600
    call = Call("", caller, "/v1/chat/completions", "model", {}, deadline)
    usage = Usage(prompt_tokens=500, completion_tokens=100)
    batches = []
    for _ in range(max(1, calls // BATCH)):
        # The first call of an allowance waits for the database; it is not what is measured.
        ticket = await metering.admit(call, prompt_tokens=1000, completion_tokens=500)
        ticket.refund()
        start = time.perf_counter()
        for _ in range(BATCH):
            admitted = metering.try_admit(call, prompt_tokens=1000, completion_tokens=500)
            if admitted is None:
                break
            admitted.begin()
            admitted.settle(usage)
        else:
            batches.append((time.perf_counter() - start) / BATCH * 1e6)
    batches.sort()
    return batches[0], batches[len(batches) // 2]
