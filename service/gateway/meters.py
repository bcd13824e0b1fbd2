"""What a call holds of limits and budgets, and who gives it: admitted first, ended once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from infra.contracts import Usage
from service.gateway.calls import Call


class Ticket(Protocol):
    """What one admitted call holds of its key's limits and budget; ended once."""

    @property
    def headers(self) -> Mapping[str, str]:
        """`x-ratelimit-*`, for the answer."""
        ...

    def begin(self) -> None:
        """Note that the call is about to be made: from here on a crash charges its most.

        Raises:
            StorageFailed: it cannot be noted, so the call must not be made.
        """
        ...

    def settle(self, usage: Usage) -> float:
        """Charge what was used, give the rest back, return the cost. Later calls do nothing."""
        ...

    def waive(self, usage: Usage) -> None:
        """Charge nothing, but count the request and what it used. Later calls do nothing."""
        ...

    def refund(self) -> None:
        """Give everything back: nothing was sent. Later calls do nothing."""
        ...


class Meter(Protocol):
    """Limits and budgets; answers from memory, but for the moment when money must be borrowed."""

    def try_admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket | None:
        """Reserve what a call may use at most; None if only `admit` can tell.

        Args:
            call: who asks which model.
            prompt_tokens: at least what the prompt will be counted as; the bytes of its text are
                never less than that.
            completion_tokens: the most that may be answered, over all choices.

        Raises:
            RateLimited: too many requests, tokens or calls at once.
            BudgetExceeded: it might cost more than is left.
            NotFound: the key may not use the model.
            TooLarge: it asks for more tokens than the key has in a minute.
            StorageFailed: what calls cost cannot be written down.
        """
        ...

    async def admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        """Do the same, waiting a moment where money must be borrowed from the database."""
        ...
