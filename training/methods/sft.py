"""Supervised fine-tuning: the tokens of what the assistant says become likelier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from infra.plugins import require
from training.encoding import IGNORED
from training.methods import Learning, Start
from training.methods._batches import log_probabilities, tile_losses
from training.spec import FineTuning
from training.specification.method import Method
from training.tokenized import Tokenized

MOST_INITIAL_LOSS = 1.2
"""Times ln(vocabulary), what a model loses that knows nothing: more means wrong labels or weights.
"""


class _Sft:
    left = 0.2
    heart_rate = None
    fewest_rows = 1
    is_mean_of_tokens = True

    def starts_at(self, vocabulary: int) -> Start:
        return Start(0.0, MOST_INITIAL_LOSS * math.log(vocabulary))

    def ready(self, model: Any) -> None:
        tile_losses(model)

    def loss(self, model: Any, rows: Tokenized) -> Any:
        return -log_probabilities(model, rows.ids, rows.labels).sum() / self.weight(rows)

    def weight(self, rows: Tokenized) -> int:
        return sum(label != IGNORED for labels in rows.labels for label in labels[1:])

    def trainer(self) -> Any:
        return require("trl", extra="finetune").SFTTrainer

    def configuration(self) -> Any:
        return require("trl", extra="finetune").SFTConfig

    def arguments(self, spec: FineTuning) -> Mapping[str, Any]:
        packing = spec.schedule.packing
        return {
            "packing": packing,
            "max_length": spec.data.max_length if packing else None,
            "loss_type": "nll",
        }

    def dataset(self, rows: Tokenized, *, seed: int) -> Any:
        del seed
        return rows.dataset()

    def collator(self, tokenizer: Any, *, max_length: int) -> Any:
        del tokenizer, max_length

    def built(self, trainer: Any) -> None:
        """Leave it as it is."""


def build(method: Method) -> Learning:
    del method
    return _Sft()
