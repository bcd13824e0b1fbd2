"""Answers with the best supported sentences of the passages, verbatim; no download, no GPU."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from infra.contracts import Embedder
from infra.errors import EngineFailed, InvalidConfiguration
from service import words
from service.conversation import context_of, standalone
from service.engines import Delta, EngineContext, Prompt, Quote, count_tokens
from service.engines._evidence import Evidence, Sentence, gather, shortlist
from service.engines._support import SupportModel, load_model, measure
from service.engines._usage import measure_usage

NO_ANSWER = "The documents do not say."

MAX_CHARACTERS_READ = 60_000
MAX_SENTENCES_EMBEDDED = 48
MAX_CHARACTERS_EMBEDDED = 9_000
MAX_QUESTION_EMBEDDED = 2_000
_LINE_OF_ITS_OWN = re.compile(r"(?:[-*•‣]|\(?\w{1,3}[.)])\s|.* \| ")


@dataclass(frozen=True, slots=True)
class Options:
    """Set under `generation.engine_options`."""

    max_sentences: int = 3
    min_support: float = 0.15
    """Sentences after the first need at least this much support."""
    min_share: float = 0.6
    """... and at least this share of the first one's."""
    threshold: float | None = None
    """The probability of being answerable below which there is no answer; as fitted if absent."""
    max_overlap: float = 0.7
    """A sentence that shares more of its words with one chosen before is left out."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The sentences of an answer in the order they are told, and how sure the engine is."""

    sentences: tuple[Sentence, ...]
    supports: tuple[float, ...]
    answerable: float
    """The probability that the passages answer the question."""
    reason: str | None = None
    """Why nothing was selected."""


class Extractive:
    """Selects, orders and joins sentences; every word of an answer is a quote."""

    name = "extractive"

    def __init__(self, embedder: Embedder, model: SupportModel, options: Options) -> None:
        self._embedder = embedder
        self._model = model
        self._options = options
        self.threshold = model.threshold if options.threshold is None else options.threshold

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield one delta per sentence, then one with the finish reason."""
        selection = await to_thread.run_sync(self.select, prompt)
        if selection.reason is not None:
            yield await self._decline(prompt, selection.reason)
            return
        told = ""
        numbers: dict[int, int] = {}
        for sentence, support in zip(selection.sentences, selection.supports, strict=True):
            number = numbers.setdefault(sentence.passage, len(numbers) + 1)
            lead = _separator(told, sentence)
            piece = f"{lead}{sentence.text} [{number}]"
            if not self._fits(told + piece, prompt):
                yield await self._last(prompt, told, is_cut=True)
                return
            yield Delta(piece, quotes=(_quote(sentence, support, at=len(told) + len(lead)),))
            told += piece
        yield await self._last(prompt, told)

    async def close(self) -> None:
        """Do nothing: the embedder belongs to the service."""

    def select(self, prompt: Prompt) -> Selection:
        """Choose the sentences of the answer; blocks while the candidates are embedded."""
        evidence, chosen = candidates(prompt)
        if not chosen:
            return Selection(
                (), (), 0.0, reason="No passage was found that could answer the question."
            )
        cosines = self._cosines(prompt, evidence, chosen) if self._model.uses_cosines else None
        judgement = self._model.judge(measure(evidence, chosen, cosines))
        if judgement.answerable < self.threshold:
            reason = _explain(judgement.answerable, self.threshold, prompt)
            return Selection((), (), judgement.answerable, reason)
        found = [
            (evidence.sentences[position], float(support))
            for position, support in zip(chosen, judgement.support, strict=True)
        ]
        return self._arrange(found, judgement.answerable)

    def _cosines(
        self, prompt: Prompt, evidence: Evidence, chosen: Sequence[int]
    ) -> NDArray[np.float32]:
        asked = standalone(prompt.question, prompt.history, max_characters=MAX_QUESTION_EMBEDDED)
        texts = [evidence.sentences[position].read_as for position in chosen]
        try:
            question = self._embedder.embed([asked], kind="query")[0]
            cosines: NDArray[np.float32] = self._embedder.embed(texts, kind="document") @ question
        except (RuntimeError, OSError) as error:  # what torch raises for memory, device or weights
            raise EngineFailed(f"The sentences could not be embedded: {error}") from error
        return cosines

    def _arrange(self, found: Sequence[tuple[Sentence, float]], answerable: float) -> Selection:
        options = self._options
        ranked = sorted(found, key=lambda pair: -pair[1])
        floor = max(options.min_support, options.min_share * ranked[0][1])
        kept = [ranked[0]]
        for sentence, support in ranked[1:]:
            if len(kept) == options.max_sentences or support < floor:
                break
            if all(_overlap(sentence, other) <= options.max_overlap for other, _ in kept):
                kept.append((sentence, support))
        passages = list(dict.fromkeys(sentence.passage for sentence, _ in kept))
        kept.sort(key=lambda pair: (passages.index(pair[0].passage), pair[0].start))
        return Selection(
            tuple(sentence for sentence, _ in kept),
            tuple(support for _, support in kept),
            answerable,
        )

    def _fits(self, text: str, prompt: Prompt) -> bool:
        return count_tokens(self._embedder, [text]) <= prompt.max_tokens

    async def _last(self, prompt: Prompt, told: str, *, is_cut: bool = False) -> Delta:
        usage = await to_thread.run_sync(measure_usage, self._embedder, prompt, told)
        return Delta(finish_reason="length" if is_cut else "stop", usage=usage)

    async def _decline(self, prompt: Prompt, reason: str) -> Delta:
        text = NO_ANSWER if self._fits(NO_ANSWER, prompt) else ""
        last = await self._last(prompt, text, is_cut=not text)
        return replace(last, text=text, answerable=False, reason=reason)


def candidates(prompt: Prompt) -> tuple[Evidence, list[int]]:
    """Return the evidence for a prompt and the positions of the sentences to judge."""
    context = context_of(prompt.question, prompt.history)
    question = words.read_question(prompt.question, context=context)
    evidence = gather(question, prompt.passages, max_characters=MAX_CHARACTERS_READ)
    chosen = shortlist(
        evidence, sentences=MAX_SENTENCES_EMBEDDED, characters=MAX_CHARACTERS_EMBEDDED
    )
    return evidence, chosen


def build(context: EngineContext) -> Extractive:
    """Open the engine with the weights that fit the service's embedder.

    Raises:
        InvalidConfiguration: an option is unknown or out of range.
    """
    known = [field.name for field in fields(Options)]
    for name in context.options:
        if name not in known:
            raise InvalidConfiguration(
                f"Unknown option {name!r} of the engine extractive; there are {', '.join(known)}"
            )
    options = Options(**context.options)
    if options.max_sentences < 1:
        raise InvalidConfiguration(
            f"Engine extractive: max_sentences is {options.max_sentences!r}; use 1 or more"
        )
    return Extractive(context.embedder, load_model(context.embedder.identity), options)


def _explain(answerable: float, threshold: float, prompt: Prompt) -> str:
    return (
        f"No sentence of the {len(prompt.passages)} passages found seems to answer the question "
        f"(probability {answerable:.2f}, {threshold:.2f} needed)."
    )


def _quote(sentence: Sentence, support: float, *, at: int) -> Quote:
    return Quote(
        passage=sentence.passage,
        start=sentence.start,
        end=sentence.end,
        answer_start=at,
        answer_end=at + len(sentence.text),
        support=support,
    )


def _separator(told: str, sentence: Sentence) -> str:
    """Nothing at the start, a line break around list items and table rows, else a space."""
    if not told:
        return ""
    previous = told.rpartition("\n")[2]
    own_line = _LINE_OF_ITS_OWN.match(sentence.text) or _LINE_OF_ITS_OWN.match(previous)
    return "\n" if own_line or "\n" in sentence.text else " "


def _overlap(sentence: Sentence, other: Sentence) -> float:
    """The share of the smaller sentence's terms that the other holds too."""
    shared = len(sentence.terms & other.terms)
    return shared / min(len(sentence.terms), len(other.terms))
