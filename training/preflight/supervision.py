"""What carries a loss: it must be what the assistant says, whole, with the token that ends it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from training.encoding import Encoded
from training.examples import Conversation
from training.preflight import Batch, Check, Derived, Facts, Read, Silent
from training.problems import SHOWN_ROWS, Problem, at_rows

SAMPLE = 256
"""Rows of a source whose tokens are decoded; of the others, text and end token are looked at."""
MIN_PROMPT = 12
"""Characters of a question from which it is looked for in what is learned."""


class _Supervision:
    def __init__(self, facts: Facts) -> None:
        assert facts.base is not None
        self._tokenizer = facts.base.tokenizer
        self._ends = facts.base.end_ids
        self._supervise = facts.spec.data.supervise
        self._decoded: Counter[str] = Counter()
        self._found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._counts: Counter[tuple[str, str]] = Counter()

    def take(self, batch: Batch) -> None:
        for row in batch.rows:
            for fault in self._faults(batch.key, row):
                key = (batch.key, fault)
                self._counts[key] += 1
                if len(self._found[key]) <= SHOWN_ROWS:
                    self._found[key].append(row.number)

    def problems(self, _: Derived) -> Iterable[Problem]:
        for (key, what), rows in self._found.items():
            total = self._counts[key, what]
            yield Problem("supervision", at_rows(key, rows, total=total), what)

    def _faults(self, key: str, row: Read) -> set[str]:
        faults = set()
        for sequence, encoded in zip(row.sequences, row.encoded, strict=True):
            if encoded.spans and encoded.ids[encoded.spans[-1][1] - 1] not in self._ends:
                faults.add(
                    "the token that ends an answer carries no loss, so the model would not learn "
                    "to stop; put it between {% generation %} and {% endgeneration %}"
                )
            if isinstance(sequence, Conversation) and self._supervise != "all":
                faults |= self._words(key, sequence, encoded)
        return faults

    def _words(self, key: str, sequence: Conversation, encoded: Encoded) -> set[str]:
        answers, question = _said(sequence)
        if self._supervise != "assistant" or sequence.prompt is not None:
            answers = answers[-1:]
        texts = list(encoded.texts)
        if self._decoded[key] < SAMPLE:
            self._decoded[key] += 1
            texts = [self._decode(encoded.ids[s:e]) for s, e in encoded.spans]
        if len(texts) != len(answers):
            return {
                f"{len(texts)} spans carry a loss and the assistant speaks {len(answers)} times"
            }
        if any(answer not in text for answer, text in zip(answers, texts, strict=True)):
            return {"what carries a loss is not what the assistant says"}
        called = _called(sequence)[-len(answers) :]
        if any(
            name not in text for names, text in zip(called, texts, strict=True) for name in names
        ):
            return {"the chat template leaves out what tools are called; give one that writes it"}
        if len(question) >= MIN_PROMPT and any(
            question in text and question not in answer
            for answer, text in zip(answers, texts, strict=True)
        ):
            return {"what carries a loss holds what the user says"}
        return set()

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text


def _said(sequence: Conversation) -> tuple[list[str], str]:
    """Return the answers, empty where they are more than text, and the last question."""
    answers, question = [], ""
    for message in sequence.messages:
        content = message.get("content")
        text = content.strip() if isinstance(content, str) else ""
        if message["role"] == "assistant":
            answers.append(text)
        elif message["role"] == "user":
            question = text
    return answers, question


def _called(sequence: Conversation) -> list[list[str]]:
    """Return the names of the functions that each message of the assistant calls."""
    return [
        [call["function"]["name"] for call in message.get("tool_calls", ())]
        for message in sequence.messages
        if message["role"] == "assistant"
    ]


def build(facts: Facts) -> Check:
    return _Supervision(facts) if facts.base is not None else Silent()
