"""The loss of rows held out: the mean over their tokens, in whatever batches rows are read."""

from __future__ import annotations

from typing import Any

from infra.plugins import require
from training.batching import Batches
from training.encoding import IGNORED
from training.methods import Learning
from training.tokenized import Tokenized


def weighing(trainer: Any) -> Any:
    """Return a class of trl's that weighs the mean loss of a batch by the tokens it is of.

    By itself it takes the plain mean of batches of as many rows, which depends on which rows are
    together, and with that on the number of processes.
    """

    class Weighing(trainer):  # type: ignore[misc]  # mypy skips trl
        share_of_a_token = 1.0

        def prediction_step(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
            loss, *rest = super().prediction_step(model, inputs, *given, **named)
            tokens = (inputs["labels"][:, 1:] != IGNORED).sum().to(loss.device)
            return (loss * tokens * self.share_of_a_token, *rest)

    return Weighing


def weigh(built: Any, *, data_ranks: int, tokens: int) -> None:
    """Have a trainer of that class take the mean over so many tokens, which carry a loss.

    Batches are filled with rows that carry none. Loaders of several processes would fill the last
    ones with rows of the first, which would then count twice.
    """
    at_once = built.args.per_device_eval_batch_size
    built.eval_dataset = _filled(built.eval_dataset, rows=at_once * data_ranks)
    number = len(built.eval_dataset) // at_once
    built.share_of_a_token = number / tokens


def rows_at_once(
    learning: Learning, batches: Batches, asked: Tokenized | None, *, context: int
) -> int:
    """Return how many rows a device is asked at once.

    Processes that share the sequences they learn from are asked rows whole: fewer of them, so that
    these have no more tokens than the stretches, which memory was estimated for.

    Where the loss is a mean over rows and several processes cannot fill their batches with them,
    that is one: rows that are asked twice are left out then, and in a larger batch are not.
    """
    together = batches.rows_per_device * batches.data_ranks
    is_even = asked is None or batches.data_ranks == 1 or asked.rows % together == 0
    if is_even or learning.is_mean_of_tokens or learning.fewest_rows > 1:
        return max(1, batches.rows_per_device // context)
    return 1


def _filled(dataset: Any, *, rows: int) -> Any:
    missing = -len(dataset) % rows
    if not missing:
        return dataset
    datasets = require("datasets", extra="finetune")
    blank = {**dataset[0], "labels": [IGNORED] * len(dataset[0]["labels"])}
    columns = {name: [value] * missing for name, value in blank.items()}
    more = datasets.Dataset.from_dict(columns, features=dataset.features)
    return datasets.concatenate_datasets([dataset, more])
