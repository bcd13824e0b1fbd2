"""What is kept of an answer over a collection: an interaction, and its place in a trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from infra.contracts import Answer, Groundedness, Interaction
from infra.security import drawn
from service.answer_interactions import Subject, Told, interaction_of
from service.answering import AnswerEvent, Cited, Finished, Retrieved, Text
from service.errors import describe
from service.gateway.calls import LEFT
from service.grounding import noted

Score: TypeAlias = Callable[[Answer, Callable[[Groundedness | None], None]], None]
"""Scores an answer some time, and hands on what it found; must not block."""


class AnswerRecords:
    """Takes note of answers; must not block."""

    def __init__(
        self,
        *,
        add: Callable[[Interaction], None] | None,
        trace: Callable[[Answer], None] | None,
        content_share: float | None,
        score: Score | None = None,
        review_share: float = 0.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take where it goes.

        Args:
            add: takes interactions; None keeps none.
            trace: makes spans of answers; None makes none.
            content_share: of the requests whose question, answer and citations are kept too, beside
                all answers that are marked for review; None keeps none.
            score: scores answers after they were told; None leaves those unscored that are.
            review_share: of scored answers, marked to be looked at.
            now: the time of day.
        """
        self.add = add or (lambda _: None)
        self.trace = trace or (lambda _: None)
        self.content_share = content_share
        self.score = score
        self.review_share = review_share
        self.now = now

    def keep(self, item: Interaction, answer: Answer | None) -> None:
        """Add an interaction with what is found of its answer, once it is."""
        found = None if answer is None else answer.groundedness
        if answer is not None and found is None and self.score is not None:
            self.score(answer, lambda found: self._keep(item, found))
        else:
            self._keep(item, found)

    def _keep(self, item: Interaction, found: Groundedness | None) -> None:
        item = noted(item, found, review_share=self.review_share)
        share = self.content_share
        if share is not None and item.review is None and drawn(item.request_id or item.id) >= share:
            item = replace(item, content=None, documents=())
        self.add(item)

    def begin(self, subject: Subject) -> AnswerRecord:
        """Take note of an answer from now on."""
        return AnswerRecord(self, subject)


class AnswerRecord:
    """One answer on its way; one interaction is made of it, however it ends."""

    def __init__(self, records: AnswerRecords, subject: Subject) -> None:
        self._records = records
        self._subject = subject
        self._started = time.monotonic()
        self._told = Told()
        self._has_ended = False

    def note(self, event: AnswerEvent) -> None:
        """Look at an event on its way to the caller."""
        told = self._told
        match event:
            case Retrieved():
                told.passages = event.passages
            case Text():
                told.text += event.text
            case Cited():
                told.citations = (*told.citations, event.citation)
            case Finished():
                self._finish(event.answer)

    @contextmanager
    def to_its_end(self) -> Iterator[None]:
        """Take note of what goes wrong within, whatever it is, and of a caller who leaves."""
        try:
            yield
        except Exception as error:
            failure = describe(error)
            self._end(outcome="failed", status=failure.status, error=failure.code)
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self._end(outcome="cancelled", status=LEFT)
            raise

    def _finish(self, answer: Answer) -> None:
        self._told = Told(answer.passages, answer.text, answer.citations)
        self._end(
            answer,
            id=answer.id,
            outcome="answered" if answer.answerable else "abstained",
            upstream=answer.engine,
            prompt_version=answer.prompt_version,
            usage=answer.usage,
            seconds=answer.timings_ms.get("total", 0.0) / 1e3,
            support=min((each.support for each in answer.citations), default=None),
        )
        self._records.trace(answer)

    def _end(self, answer: Answer | None = None, **how: Any) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        records = self._records
        values = {"seconds": time.monotonic() - self._started, **how}
        item = interaction_of(
            self._subject,
            self._told,
            at=records.now(),
            has_content=records.content_share is not None,
            **values,
        )
        records.keep(item, answer)
