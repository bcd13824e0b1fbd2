"""The meter of who counts nothing: every model of a caller's own, without limit or price."""

from __future__ import annotations

from collections.abc import Mapping

from infra.contracts import Usage
from service.gateway.calls import Call
from service.gateway.meters import Ticket


class Unmetered:
    """Lets every caller use the models that are its own, without limit or price."""

    def try_admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        del prompt_tokens, completion_tokens
        call.caller.require_model(call.model)
        return _Free()

    async def admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        return self.try_admit(
            call, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )


class _Free:
    headers: Mapping[str, str] = {}

    def settle(self, usage: Usage) -> float:
        del usage
        return 0.0

    def waive(self, usage: Usage) -> None:
        """Nothing is counted."""

    def refund(self) -> None:
        """Nothing was taken."""
