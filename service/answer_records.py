"""What is kept of an answer over a collection: an interaction, and its place in a trace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from infra import telemetry
from infra.contracts import Answer, Interaction
from service.callers import Caller

OK = 200


class AnswerRecords:
    """Takes note of answers; must not block."""

    def __init__(
        self,
        *,
        add: Callable[[Interaction], None] | None,
        trace: Callable[[Answer], None] | None,
        has_content: bool,
        mask: Callable[[str], str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take where it goes.

        Args:
            add: takes interactions; None keeps none.
            trace: makes spans of answers; None makes none.
            has_content: keep question, answer and citations, too.
            mask: takes personal data out of what is kept.
            now: the time of day.
        """
        self._add = add
        self._trace = trace
        self._has_content = has_content
        self._mask = mask or (lambda text: text)
        self._now = now

    def record(self, answer: Answer, caller: Caller) -> None:
        """Take note of a whole answer."""
        if self._add is not None:
            self._add(self._interaction(answer, caller))
        if self._trace is not None:
            self._trace(answer)

    def _interaction(self, answer: Answer, caller: Caller) -> Interaction:
        documents = {passage.document_id for passage in answer.passages}
        return Interaction(
            id=answer.id,
            kind="answer",
            at=self._now(),
            model=f"rag/{answer.collection}",
            outcome="answered" if answer.answerable else "abstained",
            status=OK,
            request_id=telemetry.request_id.get(),
            tenant=caller.tenant,
            key_id=caller.key_id,
            collection=answer.collection,
            upstream=answer.engine,
            tag="live",
            prompt_version=answer.prompt_version,
            usage=answer.usage,
            seconds=answer.timings_ms.get("total", 0.0) / 1e3,
            support=min((each.support for each in answer.citations), default=None),
            documents=tuple(sorted(documents)) if self._has_content else (),
            content=self._content(answer) if self._has_content else None,
        )

    def _content(self, answer: Answer) -> dict[str, Any]:
        return {
            "question": self._mask(answer.question),
            "answer": self._mask(answer.text),
            "citations": [
                {
                    "document_id": each.document_id,
                    "document_version": each.document_version,
                    "start_char": each.start_char,
                    "end_char": each.end_char,
                    "text": self._mask(each.text),
                    "support": each.support,
                }
                for each in answer.citations
            ],
            "passages": [each.chunk_id for each in answer.passages],
        }
