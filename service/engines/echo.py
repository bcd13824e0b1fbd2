"""Repeats the question word by word and cites the first passage; the shipped fake."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields

import anyio

from infra.contracts import Embedder
from infra.errors import EngineFailed, InvalidConfiguration
from infra.sentences import sentence_spans
from service.engines import Delta, EngineContext, Prompt, Quote, count_tokens
from service.engines._usage import measure_usage


@dataclass(frozen=True, slots=True)
class Options:
    delay_seconds: float = 0.0
    """Waited before each word."""
    fail_after: int | None = None
    """Words after which the engine fails."""


class Echo:
    name = "echo"

    def __init__(self, embedder: Embedder, options: Options) -> None:
        self._embedder = embedder
        self._options = options

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield one delta per word of the question, then one with the quote.

        Raises:
            EngineFailed: the option `fail_after` says so.
        """
        told = ""
        is_cut = False
        for number, word in enumerate(re.findall(r"\s*\S+", prompt.question.strip())):
            await anyio.sleep(self._options.delay_seconds)
            if number == self._options.fail_after:
                raise EngineFailed(
                    f"The engine echo failed after {number} words, as it was told to"
                )
            if count_tokens(self._embedder, [told + word]) > prompt.max_tokens:
                is_cut = True
                break
            told += word
            yield Delta(word)
        yield Delta(
            quotes=_first_sentence(prompt, told),
            finish_reason="length" if is_cut else "stop",
            usage=measure_usage(self._embedder, prompt, told),
        )

    async def close(self) -> None:
        """Do nothing: the embedder belongs to the service."""


def build(context: EngineContext) -> Echo:
    known = [field.name for field in fields(Options)]
    for name in context.options:
        if name not in known:
            raise InvalidConfiguration(
                f"Unknown option {name!r} of the engine echo; there are {', '.join(known)}"
            )
    return Echo(context.embedder, Options(**context.options))


def _first_sentence(prompt: Prompt, told: str) -> tuple[Quote, ...]:
    spans = sentence_spans(prompt.passages[0].text) if prompt.passages else []
    if not spans or not told:
        return ()
    start, end = spans[0]
    return (Quote(0, start, end, answer_start=0, answer_end=len(told), support=1.0),)
