"""Models that write cases of test sets: any server that speaks OpenAI's chat, remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from evals.context import Context
from evals.judges import asking
from evals.judges.question import Question
from evals.memory import Memory
from service.evaluation.evaluating import CALLS
from service.evaluation.judge_servers import JudgeServers

if TYPE_CHECKING:
    from evals.testsets.generated import Ask
    from service.wiring import Components

TEMPERATURE = 0.7
"""So that cases are not all alike; the seed makes them the same again."""


@asynccontextmanager
async def opened(parts: Components, model: str) -> AsyncIterator[Ask]:
    """Yield what asks a model; the same prompt with the same seed is asked once.

    Args:
        parts: of this process.
        model: as its server, that of the environment's `JUDGE_URL`, calls it.
    """
    servers = JudgeServers()
    context = Context(memory=Memory(parts.settings.data_folder / CALLS), ask=servers)

    async def ask(prompt: str, schema: Mapping[str, Any], seed: int) -> str:
        messages = [{"role": "user", "content": prompt}]
        question = Question(model, messages, schema, seed=seed, temperature=TEMPERATURE)
        return await asking.ask(question, context)

    try:
        yield ask
    finally:
        await servers.close()
