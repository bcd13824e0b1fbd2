"""From what a specification names to what is on this machine: base, rows, template, batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.datasets.datasets import KIND as DATASET
from infra.errors import InvalidRequest
from training import base_model, chat_templates
from training.base_model import BaseModel
from training.batching import Batches, Indivisible, derive
from training.encoding import Encoder
from training.places import Places
from training.row_source import Rows, open_rows
from training.spec import FineTuning
from training.specification.data import Source
from training.tokenized import Tokenized, mixed, tokenize


@dataclass(frozen=True, slots=True)
class Resolved:
    """All that a run is made of, found and pinned."""

    base: BaseModel
    tokenizer: Any
    """With the template that is trained with."""
    train: Tokenized
    held_out: Tokenized | None
    batches: Batches
    digests: dict[str, str]
    """Of base, template and rows, by the keys of the specification."""
    parents: tuple[tuple[str, str], ...]
    """`(role, reference)` of those that are artifacts."""


def resolve(spec: FineTuning, places: Places, *, data_ranks: int) -> Resolved:
    """Find and read everything but the weights.

    Raises:
        NotFound: something is not here.
        InvalidRequest: something cannot be what it is named as.
    """
    base = base_model.find_base(
        spec.base, folder=places.folder, store=places.store, checkout=places.checkout
    )
    tokenizer = base.tokenizer
    template = (
        chat_templates.for_training(tokenizer)
        if spec.base.template is None
        else chat_templates.read_file(places.folder / spec.base.template, tokenizer)
    )
    encoder = Encoder(tokenizer, template, spec.data.supervise)
    sources = {
        key: open_rows(source, folder=places.folder, datasets=places.datasets)
        for key, source in _sources(spec)
    }
    _check_digests(spec, sources)
    read = {key: tokenize(rows, encoder, spec.data) for key, rows in sources.items()}
    replays = [
        (read[f"data.replay.{number}"], replay.ratio)
        for number, replay in enumerate(spec.data.replay)
    ]
    train = mixed(read["data.train"], replays, seed=spec.seed)
    digests = {key: rows.digest for key, rows in sources.items()}
    if template is not None:
        digests["base.template"] = template.digest
    return Resolved(
        base,
        tokenizer,
        train,
        read.get("data.eval"),
        _batches(spec, train, data_ranks),
        {"base.model": base.digest or "", **digests},
        tuple(_parents(base, sources)),
    )


def _sources(spec: FineTuning) -> Iterator[tuple[str, Source]]:
    yield "data.train", spec.data.train
    if spec.data.eval is not None:
        yield "data.eval", spec.data.eval
    for number, replay in enumerate(spec.data.replay):
        yield f"data.replay.{number}", replay


def _check_digests(spec: FineTuning, sources: dict[str, Rows]) -> None:
    for key, source in _sources(spec):
        if source.digest is not None and source.digest != sources[key].digest:
            raise InvalidRequest(
                f"{key}: {source.rows!r} is {sources[key].digest}, not {source.digest}"
            )


def _batches(spec: FineTuning, train: Tokenized, data_ranks: int) -> Batches:
    try:
        return derive(
            spec.schedule,
            data_ranks=data_ranks,
            sequences=len(train.ids),
            mean_tokens=train.mean_tokens,
        )
    except Indivisible as error:
        raise InvalidRequest(f"schedule.rows_per_step: {error}") from None


def _parents(base: BaseModel, sources: dict[str, Rows]) -> Iterator[tuple[str, str]]:
    if base.name.startswith(f"{base_model.KIND}/"):
        yield "base", f"{base.name.partition('@')[0]}@{base.digest}"
    for key, rows in sources.items():
        if rows.source.startswith(f"{DATASET}/"):
            yield key.split(".")[1], rows.source
