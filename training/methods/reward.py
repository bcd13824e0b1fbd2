"""A model of rewards, https://arxiv.org/abs/2203.02155: one number that the better answer has more.

The loss of a pair is -log sigmoid(r(better) - r(worse)). The head that gives r begins as zeros, so
that before training all rewards are 0 and the loss is ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from infra.plugins import require
from training.methods import Learning, Start, _comparing
from training.methods._batches import padded
from training.spec import FineTuning
from training.specification.method import Method
from training.tokenized import Tokenized


class _Reward:
    left = _comparing.LEFT
    heart_rate = _comparing.HEART_RATE
    fewest_rows = 1
    is_mean_of_tokens = False

    def starts_at(self, vocabulary: int) -> Start:
        del vocabulary
        off = _comparing.START_TOLERANCE
        return Start(math.log(2) - off, math.log(2) + off)

    def ready(self, model: Any) -> None:
        """Leave it as it is: it has no logits of words."""

    def loss(self, model: Any, rows: Tokenized) -> Any:
        torch = require("torch", extra="finetune")
        pad = model.config.get_text_config().pad_token_id or 0
        rewards = model(
            input_ids=padded(rows.ids, pad).to(model.device),
            attention_mask=padded([[1] * len(row) for row in rows.ids], 0).to(model.device),
        ).logits.float()[:, 0]
        return -torch.nn.functional.logsigmoid(rewards[0::2] - rewards[1::2]).mean()

    def weight(self, rows: Tokenized) -> int:
        return rows.rows

    def trainer(self) -> Any:
        return _comparing.as_prepared(require("trl", extra="finetune").RewardTrainer)

    def configuration(self) -> Any:
        return require("trl", extra="finetune").RewardConfig

    def arguments(self, spec: FineTuning) -> Mapping[str, Any]:
        del spec
        return {"max_length": None, "remove_unused_columns": False}

    def dataset(self, rows: Tokenized, *, seed: int) -> Any:
        del seed
        return _comparing.dataset(rows)

    def collator(self, tokenizer: Any, *, max_length: int) -> Any:
        del max_length
        return partial(_collate, pad=_comparing.padding_of(tokenizer))

    def built(self, trainer: Any) -> None:
        """Leave it as it is: nothing is held against the base."""


def _collate(examples: list[dict[str, Any]], *, pad: int) -> dict[str, Any]:
    made = _comparing.collate_pairs(examples, pad=pad)
    del made["completion_mask"]  # the whole text is judged
    return made


def build(method: Method) -> Learning:
    del method
    return _Reward()
