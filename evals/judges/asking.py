"""Asks a judge through the memory of a run, and tells an answer from a refusal to give one."""

from __future__ import annotations

from evals.context import Context
from evals.judges.question import Question, Reply
from infra.errors import InvalidConfiguration, RagstoneError


class JudgeRefused(RagstoneError):
    """The judge declined to judge."""


class Unusable(RagstoneError):
    """The judge answered something else than what it was asked for."""


async def ask(question: Question, context: Context) -> str:
    """Return what the judge answered, which should be JSON of the question's schema.

    The same question is asked once; what was answered before needs no server.

    Raises:
        JudgeRefused: it says so, or its server withheld the answer.
        InvalidConfiguration: no model is named, or nothing may be asked here.
        Unusable: the answer was cut off; it is remembered, and would be cut off again.
        EngineFailed: the server failed.
    """
    if not question.model:
        raise InvalidConfiguration("No judge is named; give the metric a `model`")

    async def call() -> dict[str, object]:
        if context.ask is None:
            raise InvalidConfiguration(
                f"The judge {question.model!r} has not answered this before, and is not asked "
                "here; run the suite with `ragstone eval run`"
            )
        return (await context.ask(question)).as_dict()

    reply = Reply.from_dict(await context.memory.recall(question.body(), call))
    if reply.refusal or reply.finish_reason == "content_filter":
        raise JudgeRefused(reply.refusal or "the server withheld the answer")
    if reply.finish_reason == "length":
        raise Unusable(
            f"the judge was cut off after {question.max_tokens} tokens; give it more `max_tokens`"
        )
    return reply.text
