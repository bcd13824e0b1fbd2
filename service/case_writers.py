"""Models that write cases of test sets: any server that speaks OpenAI's chat, remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evals.chat import Chat
from evals.memory import Memory
from service.evaluating import CALLS

if TYPE_CHECKING:
    from evals.testsets.generated import Ask
    from service.wiring import Components

TEMPERATURE = 0.7
"""So that cases are not all alike; the seed makes them the same again."""


def writer(parts: Components, model: str, url: str = "") -> Ask:
    """Return what asks a model; the same prompt with the same seed is asked once.

    Args:
        parts: of this process.
        model: as its server calls it.
        url: of the server, up to `/v1`; that of the environment's `JUDGE_URL` if empty.
    """
    chat = Chat(model, url, temperature=TEMPERATURE)
    memory = Memory(parts.settings.data_folder / CALLS)

    async def ask(prompt: str, schema: Mapping[str, Any], seed: int) -> str:
        return await chat.ask(prompt, schema, memory, seed=seed)

    return ask
