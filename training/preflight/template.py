"""The chat template: what is trained on must be, token by token, what the server will render."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from training.chat_templates import ChatTemplate
from training.encoding import Encoded
from training.examples import Conversation, Wrong
from training.preflight import Batch, Check, Derived, Facts, Silent
from training.problems import Problem, at_rows

SAMPLE = 256
"""Rows of a source that are rendered as the server does."""
CONTEXT_TOKENS = 6


class _Template:
    def __init__(self, facts: Facts) -> None:
        assert facts.base is not None
        self._base = facts.base
        self._data = facts.spec.data
        self._training = facts.training_template
        self._serving = facts.serving_template
        self._looked: Counter[str] = Counter()
        self._conversations = False
        self._apart: list[tuple[str, int, str]] = []
        self._twice: list[tuple[str, int]] = []

    def take(self, batch: Batch) -> None:
        for row in batch.rows:
            for sequence, encoded in zip(row.sequences, row.encoded, strict=True):
                begin = self._base.tokenizer.bos_token_id
                if begin is not None and encoded.ids[:2] == [begin, begin]:
                    self._twice.append((batch.key, row.number))
                if isinstance(sequence, Conversation):
                    self._conversations = True
                    self._compare(batch.key, row.number, sequence, encoded)

    def problems(self, _: Derived) -> Iterable[Problem]:
        for key in dict.fromkeys(key for key, _, _ in self._apart):
            rows = [(number, what) for of, number, what in self._apart if of == key]
            where = at_rows(key, [number for number, _ in rows])
            yield Problem("template", where, f"training and serving render apart: {rows[0][1]}")
        for key in dict.fromkeys(key for key, _ in self._twice):
            rows_of = [number for of, number in self._twice if of == key]
            yield Problem(
                "template",
                at_rows(key, rows_of),
                "begins with two tokens of the beginning, not one",
            )

    def _compare(self, key: str, number: int, sequence: Conversation, encoded: Encoded) -> None:
        if self._serving is None or self._looked[key] >= SAMPLE:
            return
        self._looked[key] += 1
        what = self._difference(self._serving, sequence, encoded)
        if what is not None:
            self._apart.append((key, number, what))

    def _difference(
        self, serving: ChatTemplate, sequence: Conversation, encoded: Encoded
    ) -> str | None:
        """Hold each prompt that the server would render against what stands before its answer."""
        if self._data.supervise == "all":
            return None
        places = [n for n, each in enumerate(sequence.messages) if each["role"] == "assistant"]
        if self._data.supervise != "assistant" or sequence.prompt is not None:
            places = places[-1:]
        for place, (start, _) in zip(places, encoded.spans, strict=False):
            try:
                text = serving.render(
                    sequence.messages[:place], sequence.tools, add_generation_prompt=True
                )
            except Wrong as wrong:
                return str(wrong)
            served = self._tokens(text)
            if served != encoded.ids[:start]:
                return self._where(encoded.ids[:start], served)
        return None

    def _where(self, trained: list[int], served: list[int]) -> str:
        same = next(
            (n for n, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b),
            min(len(trained), len(served)),
        )
        ours, theirs = (
            repr(self._base.tokenizer.decode(ids[same : same + CONTEXT_TOKENS]))
            for ids in (trained, served)
        )
        return f"at token {same + 1}, {ours} in training and {theirs} in serving"

    def _tokens(self, text: str) -> list[int]:
        backend: Any = self._base.tokenizer.backend_tokenizer
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids


def build(facts: Facts) -> Check:
    return _Template(facts) if facts.base is not None else Silent()
