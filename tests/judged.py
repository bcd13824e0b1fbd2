"""Scores by a judge over real HTTP, as a run gets them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from evals.context import Context
from evals.memory import Memory
from evals.metric import Metric, open_metric
from evals.scores import Score
from evals.trial import Case, Output
from infra.contracts import Passage
from service.evaluation.judge_servers import JudgeServers


def score_by(
    name: str,
    parameters: Mapping[str, Any],
    case: Case,
    output: Output,
    *,
    memory: Memory | None = None,
    **context: Any,
) -> Score:
    """Score one output; the servers are opened and closed around it."""

    async def once() -> Score:
        servers = JudgeServers(sleep=lambda _: asyncio.sleep(0))
        metric = cast("Metric", open_metric(name, parameters))
        try:
            return await metric.score(
                case, output, Context(memory=memory or Memory(), ask=servers, **context)
            )
        finally:
            await servers.close()

    return asyncio.run(once())


def passages(*texts: str) -> tuple[Passage, ...]:
    return tuple(
        Passage(n, "file-a", 1, "c", "file:///a.md", "", 0, len(text), text, 0.9)
        for n, text in enumerate(texts)
    )
