"""Claims beside the texts that carry them or do not, by dataset; each belongs to a source."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from infra.sentences import sentence_spans
from monitoring.grounding.names import names

SEED = 7


@dataclass(frozen=True, slots=True)
class Response:
    """What was said beside what it should rest on."""

    text: str
    context: str
    is_wrong: bool
    group: str
    """Responses of one group are not independent."""
    kind: str = "as it is"
    """How it was made wrong, if by us."""
    title: str = ""
    """Of the context."""


def drawn(responses: Sequence[Response], most: int) -> list[Response]:
    """Return whole groups until there are enough."""
    names = sorted({each.group for each in responses})
    random.Random(SEED).shuffle(names)
    rank = {name: place for place, name in enumerate(names)}
    return sorted(responses, key=lambda each: rank[each.group])[:most]


def rows(path: Path) -> Iterator[Any]:
    """Yield the lines of a gzip JSON Lines file."""
    with gzip.open(path) as lines:
        yield from map(orjson.loads, lines)


def _halueval(data: Path) -> Iterator[Response]:
    for row in rows(data / "groundedness" / "halueval_qa.jsonl.gz"):
        yield Response(row["response"], row["context"], bool(row["label"]), row["group"])


def _climate_fever(data: Path) -> Iterator[Response]:
    for row in rows(data / "groundedness" / "climate_fever_pairs.jsonl.gz"):
        group = row["response"]
        yield Response(
            row["response"], row["context"], bool(row["label"]), group, title=row["title"]
        )


def _factscore(data: Path) -> Iterator[Response]:
    folder = data / "groundedness" / "factscore"
    documents = {row["id"]: row["context"] for row in rows(folder / "documents.jsonl.gz")}
    for row in rows(folder / "claims.jsonl.gz"):
        context = documents[row["doc_id"]]
        group = context[:60]  # three models wrote of each person
        title = next((each.text for each in names(context[:80])), "")
        yield Response(row["claim"], context, bool(row["label"]), group, title=title)


def _scifact(data: Path) -> Iterator[Response]:
    pairs = list(rows(data / "retrieval" / "scifact" / "claim_pairs.jsonl.gz"))
    groups = _connected([(row["id"].partition("|")[0], row["doc_id"]) for row in pairs])
    for row, group in zip(pairs, groups, strict=True):
        yield Response(row["response"], row["context"], bool(row["label"]), group)


def _connected(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a group for each pair of a claim and a document: those that share one are of one."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for claim, document in pairs:
        leader[find(f"claim {claim}")] = find(document)
    return [find(document) for _, document in pairs]


DATASETS: Mapping[str, Callable[[Path], Iterator[Response]]] = {
    "HaluEval QA": _halueval,
    "Climate-FEVER": _climate_fever,
    "FActScore": _factscore,
    "SciFact": _scifact,
}


def statements(data: Path, *, rng: random.Random) -> Iterator[Response]:
    """Yield paragraphs of SQuAD with what they say: sentences, and questions with their answers.

    A question says what its paragraph does in other words. An answer of another question about the
    paragraph, of like form, makes it wrong.
    """
    squad = data / "qa" / "squad_v2"
    texts = {row["id"]: row for row in rows(squad / "corpus.jsonl.gz")}
    asked: dict[str, list[tuple[str, str]]] = {}
    for row in rows(squad / "questions.jsonl.gz"):
        if row["answers"]:
            asked.setdefault(row["doc_id"], []).append((row["question"], row["answers"][0]))
    for name, row in texts.items():
        group = str(row.get("title") or name.partition("#")[0])
        text = str(row["text"])
        spans = sentence_spans(text)
        for start, end in rng.sample(spans, min(2, len(spans))):
            yield Response(text[start:end], text, False, group, "copied", group)
        pairs = asked.get(name, [])
        for question, answer in pairs[:4]:
            yield Response(stated(question, answer), text, False, group, "asked", group)
            others = [each for _, each in pairs if _form(each) == _form(answer) and each != answer]
            if others:
                wrong = rng.choice(others)
                yield Response(stated(question, wrong), text, True, group, "other answer", group)


def stated(question: str, answer: str) -> str:
    """Return a question with its answer as a sentence, more or less.

    >>> stated("Who crossed the bridge?", "Queen Victoria")
    'Queen Victoria crossed the bridge.'
    >>> stated("When did the bridge open?", "1890")
    'The bridge open 1890.'
    """
    bare = question.strip().rstrip("?").strip()
    match = _ASKS.match(bare)
    if match is None:
        said = f"{bare} {answer}"
    elif match["helper"]:
        said = f"{bare[match.end() :].strip()} {answer}"
    else:
        said = f"{answer} {bare[match.end() :].strip()}"
    said = said.strip()
    return f"{said[:1].upper()}{said[1:]}."


_ASKS = re.compile(
    r"(?:in |on |by |at |for |of )?(?:who|what|when|where|which|whom|how (?:many|much|long|old))\b"
    r"(?P<helper>\s+(?:did|does|do|was|were|is|are|has|have|had|can|could|would|will)\b)?",
    re.IGNORECASE,
)


def _form(answer: str) -> str:
    if answer[:1].isdigit():
        return "number"
    return "name" if answer[:1].isupper() else "other"
