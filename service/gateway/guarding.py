"""Calls whose messages are screened before a model reads them, where the settings ask for that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from service.gateway.calls import Call
from service.gateway.replies import GatewayReply
from service.screening import Screening

Run: TypeAlias = Callable[[Call], Awaitable[GatewayReply]]
READ = frozenset({"tool", "function"})
"""Roles whose messages come from elsewhere: nobody asked what they say."""


class GuardedCalls:
    """Stands before the gateway for what callers wrote themselves; answers pass as they come.

    Prompts over documents are made here, of parts that were screened one by one.
    """

    def __init__(self, run: Run, screening: Screening) -> None:
        """`run` answers what passes."""
        self._run = run
        self._screening = screening

    async def run(self, call: Call) -> GatewayReply:
        """Answer a call.

        Raises:
            Screened: a message seems to instruct the model against its rules.
        """
        asked, read = _said(call.body)
        parameter = "messages" if "messages" in call.body else "prompt"
        await self._screening.check(asked, read, parameter=parameter)
        return await self._run(call)


def _said(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What users say, and what tools return; systems and assistants are the application's."""
    asked = [text for text in _texts(body.get("prompt")) if text.strip()]
    read: list[str] = []
    for message in body.get("messages") or ():
        if message["role"] == "user":
            asked += _texts(message.get("content"))
        elif message["role"] in READ:
            read += _texts(message.get("content"))
    return asked, read


def _texts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text
