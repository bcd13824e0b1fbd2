"""Direct preference optimisation, https://arxiv.org/abs/2305.18290: the better of two answers.

The loss of a pair is -log sigmoid(beta (d(better) - d(worse))), where d is how much likelier an
answer is with the adapter than without it. Before training d is 0, and the loss is ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from infra.plugins import require
from training.methods import Learning, Start, _comparing
from training.methods._batches import against_base, tile_losses
from training.spec import FineTuning
from training.specification.method import Method
from training.tokenized import Tokenized


class _Dpo:
    left = _comparing.LEFT
    heart_rate = _comparing.HEART_RATE
    fewest_rows = 1
    is_mean_of_tokens = False

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def starts_at(self, vocabulary: int) -> Start:
        del vocabulary
        off = _comparing.START_TOLERANCE
        return Start(math.log(2) - off, math.log(2) + off)

    def ready(self, model: Any) -> None:
        tile_losses(model)

    def loss(self, model: Any, rows: Tokenized) -> Any:
        torch = require("torch", extra="finetune")
        gained = against_base(model, rows.ids, rows.labels)
        margins = self._beta * (gained[0::2] - gained[1::2])
        return -torch.nn.functional.logsigmoid(margins).mean()

    def weight(self, rows: Tokenized) -> int:
        return rows.rows

    def trainer(self) -> Any:
        return _comparing.as_prepared(require("trl", extra="finetune").DPOTrainer)

    def configuration(self) -> Any:
        return require("trl", extra="finetune").DPOConfig

    def arguments(self, spec: FineTuning) -> Mapping[str, Any]:
        del spec
        return {"beta": self._beta, "max_length": None, "remove_unused_columns": False}

    def dataset(self, rows: Tokenized, *, seed: int) -> Any:
        del seed
        return _comparing.dataset(rows)

    def collator(self, tokenizer: Any, *, max_length: int) -> Any:
        del max_length
        return partial(_comparing.collate_pairs, pad=_comparing.padding_of(tokenizer))

    def built(self, trainer: Any) -> None:
        _comparing.drop_reference(trainer)


def build(method: Method) -> Learning:
    return _Dpo(method.beta)
