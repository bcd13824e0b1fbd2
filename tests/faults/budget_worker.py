"""A process that spends from a shared budget until it is refused, or killed from outside."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from infra.contracts import Usage
from infra.database.engine import Database
from infra.errors import BudgetExceeded
from infra.gateway_settings import Gateway, Price
from service.callers import Caller
from service.gateway.calls import Call
from service.gateway.clerk import Clerk
from service.gateway.metering import Metering

TOKENS = 1
PRICES = {"model": Price(input_per_million=100.0)}
"""So that a call of one token costs a ten-thousandth."""


async def spend(metering: Metering, log: int, *, callers: int, seconds: float) -> None:
    """Call until refused; every call leaves a line where nothing of Ragstone's is involved."""
    caller = Caller(key_id="key_test", name="test")

    async def call_until_refused() -> None:
        while True:
            call = Call("", caller, "/v1/chat/completions", "model", {}, time.monotonic() + 60)
            try:
                ticket = await metering.admit(call, prompt_tokens=TOKENS, completion_tokens=0)
            except BudgetExceeded:
                os.write(log, b"refused\n")
                return
            ticket.begin()
            os.write(log, b"called\n")  # from here on the model's owner wants money
            await asyncio.sleep(random.uniform(0, seconds))
            ticket.settle(Usage(prompt_tokens=TOKENS))

    await asyncio.gather(*(call_until_refused() for _ in range(callers)))


def main(url: str, folder: Path, *, callers: int, seconds: float) -> None:
    database = Database(url)
    clerk = Clerk(database, folder / "money")
    metering = Metering(Gateway(prices=PRICES), clerk, wait_seconds=30.0)
    clerk.start()
    log = os.open(folder / "calls", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(spend(metering, log, callers=callers, seconds=seconds))
    clerk.stop()
    database.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), callers=int(sys.argv[3]), seconds=float(sys.argv[4]))
