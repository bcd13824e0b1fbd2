"""How far a base, with one adapter after the other, is from the right answer of each row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest
from infra.plugins import require
from training import adapted_model, resolving
from training.base_model import find_base
from training.encoding import IGNORED, Encoded, Encoder
from training.examples import Wrong, sequences, shape_of
from training.places import Places
from training.spec import FineTuning

BOUNDS = (0.0, 1.0)
Losses = NDArray[np.float64]
Row = Mapping[str, Any]


def losses(
    spec: FineTuning,
    places: Places,
    adapters: Sequence[Path | None],
    suites: Mapping[str, Sequence[Row]],
) -> list[dict[str, Losses]]:
    """Return, for each adapter, the loss of every row of every suite, (rows,), from 0 to 1.

    It is 1 less the probability that the right answer's tokens have, their geometric mean: of a row
    it says the same as the usual loss, and has bounds, so that a few hundred rows can show that
    nothing was lost. Only the answers count, as the specification supervises them. Rows are cut at
    its longest.

    Args:
        spec: of the base, its template and what is supervised.
        places: where the base is.
        adapters: their folders; None is the base as it is.
        suites: by name, rows of messages.

    Raises:
        InvalidRequest: a row cannot be read, or has nothing that is supervised; or the weights.
    """
    base = find_base(spec.base, folder=places.folder, store=places.store, checkout=places.checkout)
    encoder = resolving.encoder_of(spec, places, base)
    encoded = {name: list(_encoded(name, rows, encoder, spec)) for name, rows in suites.items()}
    device = adapted_model.device_of(spec.runtime.device)
    return [_asked(spec, base.folder, folder, encoded, device=device) for folder in adapters]


def _encoded(
    name: str, rows: Sequence[Row], encoder: Encoder, spec: FineTuning
) -> Iterator[Encoded]:
    for number, row in enumerate(rows, start=1):
        try:
            (found,) = encoder.encode(sequences(row, shape_of(row, "sft")))
        except Wrong as wrong:
            found = wrong
        if isinstance(found, Wrong):
            raise InvalidRequest(f"{name}: row {number} cannot be asked: {found}")
        cut = found.cut(spec.data.max_length)
        if not cut.supervised:
            raise InvalidRequest(f"{name}: nothing in row {number} is an answer within the length")
        yield cut


def _asked(
    spec: FineTuning,
    base: Path,
    adapter: Path | None,
    suites: Mapping[str, Sequence[Encoded]],
    *,
    device: str,
) -> dict[str, Losses]:
    peft = require("peft", extra="finetune")
    model = adapted_model.load_base(spec.base, base, device=device)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter)
    found = {
        name: np.array([_loss(model, row) for row in rows], dtype=np.float64)
        for name, rows in suites.items()
    }
    del model
    adapted_model.let_go()
    return found


def _loss(model: Any, row: Encoded) -> float:
    torch = require("torch", extra="finetune")
    (logits,) = adapted_model.logits(model, [row.ids])
    loss = torch.nn.functional.cross_entropy(
        logits[:-1], torch.tensor(row.labels[1:]), ignore_index=IGNORED
    )
    return 1 - math.exp(-float(loss))
