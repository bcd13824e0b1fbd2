"""Texts for the injection screen: what it is fitted on, and what it is only tested on."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.injection_phrases import DIRECT, INDIRECT, LETTERS, REQUESTS
from infra.sentences import sentence_spans

PLACES = ("start", "middle", "end")
LANGUAGES = ("de", "zh", "ar")
SEED = 20261129
LETTERS_WEIGH = 5
PASTED = 8_000
LONG = 400
"""Questions behind paragraphs."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Instructions and harmless texts of one kind."""

    bad: tuple[str, ...]
    good: tuple[str, ...]


def read_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def questions_to_fit(data: Path, *, with_deepset: bool = True) -> Texts:
    """Our own phrases, alone and behind harmless questions; half of deepset's rows."""
    draw = random.Random(SEED)
    harmless = _questions(data)
    own = list(DIRECT)
    own += [f"{draw.choice(harmless)} {phrase}" for phrase in DIRECT for _ in range(2)]
    if with_deepset:
        own += _deepset(data, part=0)
    requests = [
        f"{row['instruction']}\n{row['input']}".strip()
        for name in ("en", "zh")
        for row in read_rows(data / "chat" / "demo" / f"alpaca_{name}_demo.jsonl.gz")[:400]
    ]
    good = [*harmless, *(" ".join(draw.sample(harmless, 2)) for _ in range(200)), *requests]
    # Who asks pastes what the question is about: sentences of documents are no orders here either.
    pasted = [one for text in documents(data, part=0) for one in _sentences(text)]
    good += draw.sample(pasted, PASTED)
    return Texts(tuple(own), (*good, *REQUESTS))


def questions_to_test(data: Path, *, every_row: bool = False) -> Texts:
    """The other half of deepset's rows, or all of them; questions of two other sources."""
    bad = [*_deepset(data, part=1), *(_deepset(data, part=0) if every_row else ())]
    rows = read_rows(data / "guardrails" / "benign.jsonl.gz")
    return Texts(tuple(bad), tuple(row["text"] for row in rows))


def long_questions_to_test(data: Path) -> Texts:
    """Orders behind what somebody tells at length, against questions behind the same."""
    draw = random.Random(SEED)
    paragraphs = list(documents(data, part=1))
    asked = [row["text"] for row in read_rows(data / "guardrails" / "benign.jsonl.gz")]
    return Texts(
        tuple(_told(draw, _deepset(data, part=1), paragraphs, number=LONG)),
        tuple(_told(draw, asked, paragraphs, number=LONG)),
    )


def sentences_to_fit(data: Path) -> Texts:
    """BIPIA's training attacks and our own, against sentences of documents."""
    attacks = [row["attack"] for row in _bipia(data, "attacks_train")]
    attacks += [*INDIRECT, *DIRECT]
    sentences = [one for text in documents(data, part=0) for one in _sentences(text)]
    random.Random(SEED).shuffle(sentences)
    # Letters are few beside the rest, and where an order most often stands without harm. Pages of
    # frequent questions are full of questions: one by itself must not pass for an injection.
    harmless = (*sentences[:12_000], *_questions(data), *LETTERS * LETTERS_WEIGH)
    return Texts(tuple(attacks), harmless)


def passages_to_test(data: Path) -> dict[str, Texts]:
    """BIPIA's test attacks, in its own contexts and in other documents, by place."""
    contexts = [row["context"] for row in _bipia(data, "contexts_test")]
    attacks = [row["attack"] for row in _bipia(data, "attacks_test")]
    clean = list(documents(data, part=1))
    found = {
        f"BIPIA contexts, {place}": Texts(_inserted(attacks, contexts, place), tuple(contexts))
        for place in PLACES
    }
    return {**found, "paragraphs, middle": Texts(_inserted(attacks, clean, "middle"), tuple(clean))}


def documents(data: Path, *, part: int) -> Iterator[str]:
    """Yield every second paragraph: of an encyclopedia, of science, of our own manual."""
    texts = [row["text"] for row in read_rows(data / "qa" / "squad_v2" / "corpus.jsonl.gz")]
    science = read_rows(data / "retrieval" / "scifact" / "corpus.jsonl.gz")[:600]
    texts += [row["text"] for row in science]
    for language in LANGUAGES:
        rows = read_rows(data / "qa" / "xquad" / language / "corpus.jsonl.gz")
        texts += [row["text"] for row in rows]
    manual = sorted((Path(__file__).parent.parent / "docs").rglob("*.md"))
    # Four times: a manual is full of orders, and an order there must not pass for an injection.
    blocks = [block for page in manual for block in page.read_text("utf-8").split("\n\n")]
    texts += [block for block in blocks if len(block) > 80] * (4 if part == 0 else 1)
    yield from texts[part::2]


def insert(attack: str, context: str, place: str) -> str:
    """Put an attack into a text between two of its sentences, as a paragraph of its own."""
    spans = sentence_spans(context)
    at = {"start": 0, "end": len(context)}.get(place, spans[len(spans) // 2][0] if spans else 0)
    return f"{context[:at]}\n{attack}\n{context[at:]}"


def _inserted(attacks: Sequence[str], contexts: Sequence[str], place: str) -> tuple[str, ...]:
    draw = random.Random(SEED)
    return tuple(
        insert(attack, context, place)
        for attack in attacks
        for context in draw.sample(list(contexts), 4)
    )


def _told(
    draw: random.Random, asked: Sequence[str], paragraphs: Sequence[str], *, number: int
) -> list[str]:
    """What is asked, each behind one to three paragraphs."""
    return [
        "\n".join([*draw.sample(paragraphs, draw.randint(1, 3)), draw.choice(asked)])
        for _ in range(number)
    ]


def _deepset(data: Path, *, part: int) -> list[str]:
    rows = read_rows(data / "guardrails" / "injections.jsonl.gz")
    return [row["text"] for row in rows][part::2]


def _bipia(data: Path, name: str) -> list[dict[str, Any]]:
    return read_rows(data / "guardrails" / "bipia" / f"{name}.jsonl.gz")


def _questions(data: Path) -> list[str]:
    rows = read_rows(data / "qa" / "squad_v2" / "questions.jsonl.gz")[::8]
    found = [row["question"] for row in rows]
    for language in LANGUAGES:
        path = data / "qa" / "xquad" / language / "questions.jsonl.gz"
        found += [row["question"] for row in read_rows(path)[::6]]
    return found


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]
