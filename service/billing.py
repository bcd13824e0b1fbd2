"""What answers, searches and vectors of this process cost; the gateway charges for its models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from infra import telemetry
from infra.contracts import Usage
from infra.errors import StorageFailed
from service.answering import AnswerEvent, Finished, Text
from service.callers import Caller
from service.gateway.calls import Call
from service.gateway.meters import Meter, Ticket

ANSWER_SECONDS = 300.0


class Bill:
    """What one request is charged: what it used, or, cut off, what was written of its answer."""

    def __init__(self, ticket: Ticket | None, prompt_tokens: int) -> None:
        """Without a ticket nothing is charged."""
        self._ticket = ticket
        self._prompt_tokens = prompt_tokens
        self._written_bytes = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """`x-ratelimit-*`, as they stand now."""
        return {} if self._ticket is None else self._ticket.headers

    def settle(self, tokens: int) -> None:
        """Charge what was read, where nothing is written."""
        if self._ticket is not None:
            self._ticket.settle(Usage(tokens, 0))

    def note(self, event: AnswerEvent) -> None:
        """Look at an event on its way to the caller."""
        if isinstance(event, Text):
            self._written_bytes += len(event.text.encode("utf-8", "replace"))
        elif isinstance(event, Finished) and self._ticket is not None:
            self._ticket.settle(event.answer.usage)

    def close(self) -> None:
        """End it; an answer that nothing was written of costs nothing, and counts as a request."""
        if self._ticket is None:
            return
        if self._written_bytes:
            self._ticket.settle(Usage(self._prompt_tokens, self._written_bytes))
        self._ticket.waive(Usage())


async def count_repeated(meter: Meter, *, caller: Caller, model: str) -> Mapping[str, str]:
    """Count a request whose answer is told again and costs nothing; returns headers for it.

    Raises:
        RateLimited: as `open_bill`.
    """
    bill = await open_bill(meter, caller=caller, engine=model, prompt_tokens=0)
    bill.settle(0)
    return bill.headers


async def open_bill(
    meter: Meter, *, caller: Caller, engine: str, prompt_tokens: int, completion_tokens: int = 0
) -> Bill:
    """Reserve the most that an answer, a search or a vector may cost.

    Raises:
        RateLimited: too many requests, tokens or calls at once.
        BudgetExceeded: it might cost more than is left.
        StorageFailed: what it costs cannot be written down.
    """
    call = Call(
        request_id=telemetry.request_id.get() or "",
        # What it may ask is a matter of collections; the engine that answers is the service's.
        caller=caller if caller.models is None else replace(caller, models=None),
        path="/v1/answers",
        model=engine,
        body={},
        deadline=time.monotonic() + ANSWER_SECONDS,
    )
    most = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    ticket = meter.try_admit(call, **most) or await meter.admit(call, **most)
    try:
        ticket.begin()
    except StorageFailed:
        ticket.refund()
        raise
    return Bill(ticket, prompt_tokens)
