"""Cases that a model writes: ragas' prompt has it ask and answer from one passage."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from pydantic import ValidationError

from evals.execution import seed_of
from evals.metrics._ragas import ragas
from evals.refusals import declines
from evals.support import supported
from evals.testsets.review import COLUMN, Row
from infra.contracts import Passage
from infra.errors import EngineFailed, RagstoneError
from infra.plugins import require

Ask: TypeAlias = Callable[[str, Mapping[str, Any], int], Awaitable[str]]
"""A prompt, the JSON Schema of what is wanted and a seed, to what the model answers."""

LEAST_SUPPORT = 0.6
"""Share of an answer's words that its passage must hold; a case below it is not proposed."""
GIVE_UP_AFTER = 5
"""Failures in a row: the model cannot do it, or is not there."""
_FEWEST_CHARACTERS = 80
_PERSONAS = (
    ("Newcomer", "Knows little of the subject, and asks for what is needed first."),
    ("Expert", "Knows the subject well, and asks for particulars."),
    ("Reader in a hurry", "Wants one fact, in few words."),
)
_WORD = re.compile(r"[^\W\d_]{5,}")


@dataclass(slots=True)
class Written:
    """What a model wrote, and what of it was no case."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""


async def propose(
    passages: Iterable[Passage], count: int, *, ask: Ask, model: str, seed: int = 0
) -> Written:
    """Return cases that a model wrote about passages, at most `count`, one for a document.

    Term, persona, style and length, which ragas draws from all of Python's chance, are drawn by
    the seed and the passage, so that the same is asked again and its memory answers.

    Args:
        passages: in an order drawn by chance.
        count: of cases.
        ask: asks the model.
        model: what it is called; kept with each case.
        seed: of all draws.

    Raises:
        MissingDependency: the extra `ragas` is not installed.
        EngineFailed: the model failed several times in a row.
    """
    written, seen, in_a_row = Written(), set[str](), 0
    for passage in passages:
        if len(written.rows) == count:
            break
        if passage.document_id in seen or len(passage.text) < _FEWEST_CHARACTERS:
            continue
        seen.add(passage.document_id)
        draw = random.Random(seed_of(seed, f"{passage.source}/{passage.start_char}", 0))
        try:
            question, answer = await _asked(passage, ask, draw)
        except RagstoneError as error:
            in_a_row += 1
            written.left_out["the model failed"] += 1
            if in_a_row == GIVE_UP_AFTER:
                raise EngineFailed(
                    f"{model!r} failed {in_a_row} times in a row: {error.message}"
                ) from error
            continue
        in_a_row = 0
        wrong = _wrong(question, answer, passage)
        if wrong:
            written.left_out[wrong] += 1
        else:
            written.rows.append(_row(passage, question, answer, model=model))
    return written


async def _asked(passage: Passage, ask: Ask, draw: random.Random) -> tuple[str, str]:
    prompts, persona = _library()
    name, role = draw.choice(_PERSONAS)
    condition = prompts.QueryCondition(
        persona=persona.Persona(name=name, role_description=role),
        term=_term(passage, draw),
        query_style=draw.choice(["Perfect grammar", "Poor grammar", "Web search like queries"]),
        query_length=draw.choice(["short", "medium", "long"]),
        context=passage.text,
    )
    prompt = prompts.QueryAnswerGenerationPrompt()
    # Its own way to ask writes an id of this user's into their home first, to report by.
    text = await ask(
        prompt.to_string(condition),
        prompts.GeneratedQueryAnswer.model_json_schema(),
        draw.getrandbits(31),
    )
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        written = prompts.GeneratedQueryAnswer.model_validate_json(bare)
    except ValidationError:
        raise EngineFailed(
            f"It answered {text[:200]!r}, which is not the JSON it should be"
        ) from None
    return written.query.strip(), written.answer.strip()


@lru_cache(maxsize=1)
def _library() -> tuple[Any, Any]:
    ragas()  # first, since it says that nothing is to be reported
    return (
        require("ragas.testset.synthesizers.single_hop.prompts", extra="ragas"),
        require("ragas.testset.persona", extra="ragas"),
    )


def _term(passage: Passage, draw: random.Random) -> str:
    """Return what a question is to be about: one of the passage's commonest longer words."""
    counts = Counter(_WORD.findall(passage.text))
    common = [word for word, _ in counts.most_common(8)]
    return draw.choice(common) if common else passage.title


def _wrong(question: str, answer: str, passage: Passage) -> str:
    if not question or not answer:
        return "the question or the answer is empty"
    if declines(answer):
        return "the answer is a refusal"
    if supported([answer], [passage.text], None)[0].support < LEAST_SUPPORT:
        return "the passage does not carry the answer"
    return ""


def _row(passage: Passage, question: str, answer: str, *, model: str) -> Row:
    digest = hashlib.sha256(f"{passage.source}\n{question}".encode("utf-8", "replace"))
    return {
        "id": f"written-{digest.hexdigest()[:12]}",
        "question": question,
        "answer": answer,
        "answerable": True,
        "relevant": passage.source,
        "cluster": passage.document_id,
        "document": passage.document_id,
        "document_version": passage.document_version,
        "chunk": passage.chunk_id,
        "evidence": passage.text,
        "evidence_start": passage.start_char,
        "evidence_end": passage.end_char,
        "template": "ragas",
        "origin": f"model {model}",
        COLUMN: "proposed",
    }
