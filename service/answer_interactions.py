"""Interactions of answers over collections: what was asked, what was told, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra import telemetry
from infra.contracts import Citation, Interaction, Passage
from infra.security import new_id
from service.callers import Caller

OK = 200


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


@dataclass(slots=True)
class Told:
    """An answer as far as it was told."""

    passages: Sequence[Passage] = ()
    text: str = ""
    citations: Sequence[Citation] = ()


def interaction_of(
    subject: Subject, told: Told, *, at: datetime, has_content: bool, **how: Any
) -> Interaction:
    """Return the interaction of an answer; `how` it ended are fields of it."""
    values: dict[str, Any] = {
        "id": new_id("answer-"),
        "kind": "answer",
        "at": at,
        "model": f"rag/{subject.collection}",
        "status": OK,
        "request_id": telemetry.request_id.get(),
        "tenant": subject.caller.tenant,
        "key_id": subject.caller.key_id,
        "collection": subject.collection,
        "upstream": subject.engine,
        "tag": "live",
    }
    if has_content:
        values["content"] = _content(subject, told)
        found = {passage.document_id for passage in told.passages}
        values["documents"] = tuple(sorted(found.union(subject.quoted)))
    return Interaction(**{**values, **how})


def _content(subject: Subject, told: Told) -> dict[str, Any]:
    return {
        "question": subject.question,
        "answer": told.text,
        "citations": [
            {
                "document_id": each.document_id,
                "document_version": each.document_version,
                "start_char": each.start_char,
                "end_char": each.end_char,
                "text": each.text,
                "support": each.support,
            }
            for each in told.citations
        ],
        "passages": [each.chunk_id for each in told.passages],
        "retrieval_score": told.passages[0].score if told.passages else None,
    }
