"""A whole model in another format, if the program that will run it says the same of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training import adapted_model, parity
from training.base_model import BaseModel
from training.exporters import open_exporter
from training.parity import Bounds, Parity, Row
from training.specification.base import Base


def export(
    whole: BaseModel, name: str, rows: Sequence[Row], *, into: Path, cache: bool = True
) -> Parity:
    """Write a model in a format, open it again by what runs that, and compare both.

    It is written in float32, on the CPU: other programs form sums of less precision otherwise.

    Args:
        whole: with all its weights, such as a merged one.
        name: of the format.
        rows: of tokens, that both are asked.
        into: a folder that does not exist.
        cache: whether it keeps the keys and values of tokens, to go on from them.

    Raises:
        InvalidRequest: there is no such format, or the model cannot be written so.
        MissingDependency: what it takes is not installed.
        Unlike: a logit differs, or a row is gone on with otherwise.
    """
    exporter = open_exporter(name)
    asked = Base(model=whole.name, dtype="float32", attention="sdpa")
    model = adapted_model.load_base(asked, whole.folder, device="cpu").eval()
    before = parity.ask(parity.of_model(model), rows)
    into.mkdir(parents=True)
    exporter.write(model, into, cache=cache)
    whole.tokenizer.save_pretrained(into)
    del model
    adapted_model.let_go()
    found = parity.compare(before, parity.ask(exporter.open(into), rows))
    bounds = Bounds(exporter.max_difference, same_greedy=1.0)
    return found.check(bounds, what=f"The model in {name}")
