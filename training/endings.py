"""Whether a model that has learned rows ends their answers, decoded greedily from the prompts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.plugins import require
from training.encoding import IGNORED
from training.tokenized import Tokenized

ASKED = 4
"""Answers, the shortest ones."""
LEFT_TOKENS = 32
"""Of an answer, at its end, that are left to the model; of a longer one the beginning is given."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is given, and how long it may go on."""

    ids: tuple[int, ...]
    answer_tokens: int

    @property
    def most_tokens(self) -> int:
        return 2 * self.answer_tokens + 8


def prompts(rows: Tokenized, ends: frozenset[int]) -> list[Prompt]:
    """Return prompts of the rows whose last answer ends with an end token.

    Their tokens are what the server renders: the preflight has held them against its template.
    """
    found = {each.ids: each for each in _answered(rows, ends)}
    return sorted(found.values(), key=lambda each: each.answer_tokens)[:ASKED]


def count_ended(model: Any, asked: list[Prompt], ends: frozenset[int]) -> int:
    """Return after how many of the prompts the model comes to an end token."""
    torch = require("torch", extra="finetune")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return sum(_ends(model, prompt, ends) for prompt in asked)
    finally:
        model.train(was_training)


def _answered(rows: Tokenized, ends: frozenset[int]) -> Iterator[Prompt]:
    for ids, labels in zip(rows.ids, rows.labels, strict=True):
        last = max((at for at, label in enumerate(labels) if label != IGNORED), default=0)
        if ids[last] not in ends:
            continue
        first = last
        while first > 1 and labels[first - 1] != IGNORED and last - first < LEFT_TOKENS:
            first -= 1
        if first:
            yield Prompt(tuple(ids[:first]), last + 1 - first)


def _ends(model: Any, prompt: Prompt, ends: frozenset[int]) -> bool:
    torch = require("torch", extra="finetune")
    forward = type(model.get_base_model()).forward
    # A row of logits is as large as the vocabulary; most models can leave out all but the last.
    only_last = {"logits_to_keep": 1} if _takes(forward, "logits_to_keep") else {}
    ids = torch.tensor([prompt.ids], device=model.device)
    for _ in range(prompt.most_tokens):
        token = model(input_ids=ids, use_cache=False, **only_last).logits[0, -1].argmax()
        if int(token) in ends:
            return True
        ids = torch.cat([ids, token.reshape(1, 1)], dim=1)
    return False


def _takes(function: Any, name: str) -> bool:
    return name in inspect.signature(function).parameters
