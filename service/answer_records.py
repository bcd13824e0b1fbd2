"""What is kept of an answer over a collection: an interaction, and its place in a trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra import telemetry
from infra.contracts import Answer, Citation, Interaction, Passage
from infra.errors import RagstoneError
from infra.security import new_id
from service.answering import AnswerEvent, Cited, Finished, Retrieved, Text
from service.callers import Caller
from service.errors import describe

OK = 200
CLIENT_LEFT = 499


@dataclass(frozen=True, slots=True)
class Subject:
    """What is answered, for whom, by whom."""

    question: str
    collection: str
    """Its name."""
    engine: str
    """The one that is asked first."""
    caller: Caller
    quoted: Sequence[str] = ()
    """Public ids of the documents that earlier turns may quote."""


class AnswerRecords:
    """Takes note of answers; must not block."""

    def __init__(
        self,
        *,
        add: Callable[[Interaction], None] | None,
        trace: Callable[[Answer], None] | None,
        has_content: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take where it goes.

        Args:
            add: takes interactions; None keeps none.
            trace: makes spans of answers; None makes none.
            has_content: keep question, answer and citations, too.
            now: the time of day.
        """
        self.add = add or (lambda _: None)
        self.trace = trace or (lambda _: None)
        self.has_content = has_content
        self.now = now

    def begin(self, subject: Subject) -> AnswerRecord:
        """Take note of an answer from now on."""
        return AnswerRecord(self, subject)


class AnswerRecord:
    """One answer on its way; one interaction is made of it, however it ends."""

    def __init__(self, records: AnswerRecords, subject: Subject) -> None:
        self._records = records
        self._subject = subject
        self._started = time.monotonic()
        self._passages: tuple[Passage, ...] = ()
        self._citations: list[Citation] = []
        self._text = ""
        self._has_ended = False

    def note(self, event: AnswerEvent) -> None:
        """Look at an event on its way to the caller."""
        match event:
            case Retrieved():
                self._passages = event.passages
            case Text():
                self._text += event.text
            case Cited():
                self._citations.append(event.citation)
            case Finished():
                self._finish(event.answer)

    @contextmanager
    def to_its_end(self) -> Iterator[None]:
        """Take note of what goes wrong within, and of a caller who leaves."""
        try:
            yield
        except RagstoneError as error:
            failure = describe(error)
            self._end(outcome="failed", status=failure.status, error=failure.code)
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self._end(outcome="cancelled", status=CLIENT_LEFT)
            raise

    def _finish(self, answer: Answer) -> None:
        self._text, self._citations = answer.text, list(answer.citations)
        self._end(
            id=answer.id,
            outcome="answered" if answer.answerable else "abstained",
            upstream=answer.engine,
            prompt_version=answer.prompt_version,
            usage=answer.usage,
            seconds=answer.timings_ms.get("total", 0.0) / 1e3,
            support=min((each.support for each in answer.citations), default=None),
        )
        self._records.trace(answer)

    def _end(self, **how: Any) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        subject, has_content = self._subject, self._records.has_content
        values: dict[str, Any] = {
            "id": new_id("answer-"),
            "kind": "answer",
            "at": self._records.now(),
            "model": f"rag/{subject.collection}",
            "status": OK,
            "request_id": telemetry.request_id.get(),
            "tenant": subject.caller.tenant,
            "key_id": subject.caller.key_id,
            "collection": subject.collection,
            "upstream": subject.engine,
            "tag": "live",
            "seconds": time.monotonic() - self._started,
            "documents": self._documents() if has_content else (),
            "content": self._content() if has_content else None,
        }
        self._records.add(Interaction(**{**values, **how}))

    def _documents(self) -> tuple[str, ...]:
        found = {passage.document_id for passage in self._passages}
        return tuple(sorted(found.union(self._subject.quoted)))

    def _content(self) -> dict[str, Any]:
        return {
            "question": self._subject.question,
            "answer": self._text,
            "citations": [
                {
                    "document_id": each.document_id,
                    "document_version": each.document_version,
                    "start_char": each.start_char,
                    "end_char": each.end_char,
                    "text": each.text,
                    "support": each.support,
                }
                for each in self._citations
            ],
            "passages": [each.chunk_id for each in self._passages],
        }
