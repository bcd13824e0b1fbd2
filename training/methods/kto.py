"""Kahneman-Tversky optimisation, https://arxiv.org/abs/2402.01306: answers marked good or bad.

The loss of a good answer is 1 - sigmoid(beta (d - z)), that of a bad one 1 - sigmoid(beta (z - d)),
where d is how much likelier it is with the adapter than without it, and z what d is on average of
answers to other questions of its batch, at least 0. Before training both are 0, and the loss 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from infra.plugins import require
from training.encoding import IGNORED
from training.methods import Learning, Start, _comparing
from training.methods._batches import against_base, batch, tile_losses
from training.spec import FineTuning
from training.specification.method import Method
from training.tokenized import Tokenized

START = 0.5


class _Kto:
    left = _comparing.LEFT
    heart_rate = _comparing.HEART_RATE
    fewest_rows = 2
    is_mean_of_tokens = False

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def starts_at(self, vocabulary: int) -> Start:
        del vocabulary
        return Start(START - _comparing.START_TOLERANCE, START + _comparing.START_TOLERANCE)

    def ready(self, model: Any) -> None:
        tile_losses(model)

    def loss(self, model: Any, rows: Tokenized) -> Any:
        """Leave z out: it is a figure of a batch, and rows are looked at one by one, too."""
        torch = require("torch", extra="finetune")
        gained = against_base(model, rows.ids, rows.labels)
        signs = torch.tensor([1.0 if mark else -1.0 for mark in rows.marks], device=gained.device)
        return (1 - torch.sigmoid(self._beta * signs * gained)).mean()

    def weight(self, rows: Tokenized) -> int:
        return rows.rows

    def trainer(self) -> Any:
        return _comparing.as_prepared(require("trl", extra="finetune").KTOTrainer)

    def configuration(self) -> Any:
        return require("trl", extra="finetune").KTOConfig

    def arguments(self, spec: FineTuning) -> Mapping[str, Any]:
        del spec
        return {"beta": self._beta, "max_length": None, "remove_unused_columns": False}

    def dataset(self, rows: Tokenized, *, seed: int) -> Any:
        # This trainer goes through the rows in their order, and files hold the good ones together.
        return _comparing.dataset(rows.shuffled(seed))

    def collator(self, tokenizer: Any, *, max_length: int) -> Any:
        return partial(_collate, pad=_comparing.padding_of(tokenizer), max_length=max_length)

    def built(self, trainer: Any) -> None:
        _comparing.drop_reference(trainer)


def _collate(examples: list[dict[str, Any]], *, pad: int, max_length: int) -> dict[str, Any]:
    """Return a batch, with each question also before the answer of the row before it."""
    torch = require("torch", extra="finetune")
    ids = [each[_comparing.IDS][0] for each in examples]
    labels = [each[_comparing.LABELS][0] for each in examples]
    starts = [_start(row) for row in labels]
    other_ids, other_labels = [], []
    for row in range(len(examples)):
        question = ids[row][: starts[row]]
        answer = ids[row - 1][starts[row - 1] :]
        other_ids.append([*question, *answer][:max_length])
        learned = labels[row - 1][starts[row - 1] :]
        other_labels.append([*[IGNORED] * len(question), *learned][:max_length])
    others = batch(other_ids, other_labels, pad=pad)
    marks = torch.tensor([bool(each[_comparing.MARK]) for each in examples])
    return {
        **batch(ids, labels, pad=pad),
        **{f"KL_{name}": tensor for name, tensor in others.items()},
        "label": marks,
    }


def _start(labels: list[int]) -> int:
    return next(place for place, label in enumerate(labels) if label != IGNORED)


def build(method: Method) -> Learning:
    return _Kto(method.beta)
