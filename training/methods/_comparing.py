"""What methods that compare answers share: rows go to trl as they were checked, token by token."""

from __future__ import annotations

from typing import Any

from infra.plugins import require
from training.methods._batches import batch
from training.tokenized import Tokenized

START_TOLERANCE = 0.02
"""By which a first loss may be off: twice rounding in half precision."""
HEART_RATE = 1e-3
"""At which a batch is learned by heart: rates that suit preferences take hundreds of steps."""
LEFT = 0.5
REFERENCE = "ref"
"""The copy of the adapter that trl makes."""
IDS, LABELS, MARK = "ids", "labels", "mark"


def as_prepared(trainer: Any) -> Any:
    """Return a class of trl's that takes rows as they are: they were tokenised and checked here."""

    class AsPrepared(trainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    return AsPrepared


def dataset(rows: Tokenized) -> Any:
    """Return rows with the tokens of all their sequences."""
    datasets = require("datasets", extra="finetune")
    columns: dict[str, list[Any]] = {IDS: [], LABELS: []}
    for first in range(0, len(rows.ids), rows.each):
        columns[IDS].append(rows.ids[first : first + rows.each])
        columns[LABELS].append(rows.labels[first : first + rows.each])
    if rows.marks:
        columns[MARK] = list(rows.marks)
    return datasets.Dataset.from_dict(columns)


def collate_pairs(examples: list[dict[str, Any]], *, pad: int) -> dict[str, Any]:
    """Return a batch of pairs: first all the better answers, then all the worse."""
    ids = [each[IDS][side] for side in (0, 1) for each in examples]
    labels = [each[LABELS][side] for side in (0, 1) for each in examples]
    return batch(ids, labels, pad=pad)


def drop_reference(trainer: Any) -> None:
    """Have the base itself be the reference, not a frozen copy of the adapter.

    The copy would be saved with every checkpoint. Whether the base says the same as a new adapter
    does is what the first of the smoke checks looks at.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if REFERENCE in model.peft_config:
        model.delete_adapter(REFERENCE)


def padding_of(tokenizer: Any) -> int:
    """Return the token that rows are padded with; masks tell it from text."""
    pad = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if pad is None else pad)
