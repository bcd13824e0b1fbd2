"""Cases from what was really asked: sampled, without doubles, and with personal data masked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from evals.testsets.leakage import normal
from evals.testsets.review import COLUMN, Row
from infra.contracts import Interaction
from infra.expectations.recognizers import mask
from infra.near_texts import NearTexts

SIMILARITY = 0.7
"""Questions at least this similar are taken for one."""
MOST_CHARACTERS = 4_000


def propose(interactions: Iterable[Interaction], count: int, *, seed: int = 0) -> list[Row]:
    """Return what was asked as cases without a right answer: a person has to give it.

    What was answered stands in the column `said`, and is no reference.

    Args:
        interactions: those without content are passed over.
        count: of cases, at most.
        seed: decides which are drawn.
    """
    held = [each for each in interactions if _said(each)]
    held.sort(key=lambda each: hashlib.sha256(f"{seed}/{each.id}".encode()).digest())
    # Masked first: two questions that differ in a name alone are one afterwards, with one id.
    questions = [mask(_said(each)) for each in held]
    texts = [normal(each) for each in questions]
    first: dict[str, int] = {}
    index = NearTexts(texts, SIMILARITY)
    rows: list[Row] = []
    for place, (each, question) in enumerate(zip(held, questions, strict=True)):
        if len(rows) == count:
            break
        if first.setdefault(texts[place], place) == place and index.twin(place) is None:
            rows.append(_row(each, question))
    return rows


def _row(item: Interaction, question: str) -> Row:
    content: Mapping[str, Any] = item.content or {}
    digest = hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "id": f"asked-{digest[:12]}",
        "question": question,
        "said": mask(str(content.get("answer") or ""))[:MOST_CHARACTERS],
        "outcome": item.outcome,
        "model": item.model,
        "documents": list(item.documents),
        "origin": "interactions",
        COLUMN: "proposed",
    }


def _said(item: Interaction) -> str:
    said = (item.content or {}).get("question")
    return said.strip()[:MOST_CHARACTERS] if isinstance(said, str) else ""
