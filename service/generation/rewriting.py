"""Follow-up questions made to stand by themselves by the model, so that they find something."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing

from anyio import to_thread

from infra.errors import EngineFailed, Overloaded
from infra.quoted_text import MARK, speech
from service.engines import Turn
from service.generation import sources
from service.generation.chat import ChatModel, read
from service.generation.templates import Template, fill

logger = logging.getLogger(__name__)

MAX_TURNS = 8
MAX_TURN_CHARACTERS = 1_000
MAX_TOKENS = 160


class Rewriter:
    """Asks a chat model to put names in place of what points back."""

    def __init__(
        self, model: ChatModel, *, template: Callable[[], Template], max_characters: int
    ) -> None:
        self._model = model
        self._template = template
        self._max_characters = max_characters

    async def __call__(self, question: str, history: Sequence[Turn]) -> str | None:
        """Return the question as it is to be searched for, or None where the model gives none.

        What comes back is only searched with. The question that is answered stays as it was asked.
        """
        template = await to_thread.run_sync(self._template)
        body = {
            "model": self._model.name,
            "messages": messages_of(template, question, history),
            "max_tokens": MAX_TOKENS,
            "temperature": template.temperature,
            "stream": True,
        }
        text = ""
        try:
            async with (
                aclosing(self._model.complete(body)) as events,
                aclosing(read(events, name=self._model.name)) as pieces,
            ):
                async for piece in pieces:
                    text += piece.text
        except (EngineFailed, Overloaded) as error:
            logger.warning("the question is searched for as it is: %s", error.message)
            return None
        return self._usable(text)

    def _usable(self, text: str) -> str | None:
        line = next((line.strip() for line in text.splitlines() if line.strip()), "")
        line = line.strip('"“”«» ').removeprefix("Question:").strip()
        return line if 0 < len(line) <= self._max_characters else None


def messages_of(template: Template, question: str, history: Sequence[Turn]) -> list[dict[str, str]]:
    """Return the chat that asks for the rewriting; what was said before stands in it as data."""
    said = "\n".join(
        f"{MARK}{turn.role}: {' '.join(sources.as_data(turn.content).split())}"[
            :MAX_TURN_CHARACTERS
        ]
        for turn in history[-MAX_TURNS:]
    )
    values = {"history": said, "question": speech(question)}
    return [
        {"role": "system", "content": fill(template.system, values).strip()},
        {"role": "user", "content": fill(template.user, values).strip()},
    ]
