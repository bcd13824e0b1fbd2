"""From a plan to what is trained on: the base, the tokenizer, the rows as tokens and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.datasets.datasets import KIND as DATASET
from training import chat_templates, locking, parity
from training.base_model import KIND, BaseModel, find_base
from training.encoding import Encoder
from training.lock import Lock
from training.parity import Samples
from training.places import Places
from training.planning import sources_of
from training.row_source import Rows, open_rows
from training.spec import FineTuning
from training.tokenized import Tokenized, mixed, tokenize


@dataclass(frozen=True, slots=True)
class Resolved:
    """All that a run is made of."""

    base: BaseModel
    tokenizer: Any
    train: Tokenized
    held_out: Tokenized | None
    parents: tuple[tuple[str, str], ...]
    """`(role, reference)` of those that are artifacts."""


def resolve(
    spec: FineTuning, places: Places, lock: Lock, read: Mapping[str, Tokenized] | None = None
) -> Resolved:
    """Read everything but the weights, as it was planned.

    Args:
        spec: what is asked for.
        places: where named things are.
        lock: what was planned.
        read: rows that this process has read already, while it planned.

    Raises:
        NotFound: something is not here any more.
        InvalidRequest: it has changed since it was planned.
    """
    base = find_base(spec.base, folder=places.folder, store=places.store, checkout=places.checkout)
    encoder = encoder_of(spec, places, base)
    sources = {
        key: open_rows(source, folder=places.folder, datasets=places.datasets)
        for key, source in sources_of(spec)
    }
    found = {key: rows.digest for key, rows in sources.items()}
    if base.digest is not None:
        found["base.model"] = base.digest
    locking.check_same({key: lock.digests.get(key, "") for key in found}, found)
    known = read or {}
    tokenized = {
        key: known[key]
        if key in known
        else tokenize(rows, encoder, spec.data, method=spec.method.type)
        for key, rows in sources.items()
    }
    replays = [
        (tokenized[f"data.replay.{number}"], replay.ratio)
        for number, replay in enumerate(spec.data.replay)
    ]
    return Resolved(
        base,
        base.tokenizer,
        mixed(tokenized["data.train"], replays, seed=spec.seed),
        tokenized.get("data.eval"),
        tuple(_parents(base, sources)),
    )


def first_rows(spec: FineTuning, places: Places, base: BaseModel) -> list[list[int]]:
    """Return the tokens of the first rows that are held out or, without such, that are learned.

    Raises as `resolve` does.
    """
    source = spec.data.eval or spec.data.train
    rows = open_rows(source, folder=places.folder, datasets=places.datasets)
    encoder, method = encoder_of(spec, places, base), spec.method.type
    return tokenize(rows, encoder, spec.data, method=method, batches=1).ids


def samples(spec: FineTuning, places: Places, base: BaseModel) -> Samples:
    """Return the first rows held out, and the first learned. Raises as `resolve` does."""
    compared = first_rows(spec, places, base)
    if spec.data.eval is None:
        return Samples(compared[: parity.ROWS], compared[parity.ROWS :])
    plain = spec.model_copy(update={"data": spec.data.model_copy(update={"eval": None})})
    return Samples(compared, first_rows(plain, places, base))


def encoder_of(spec: FineTuning, places: Places, base: BaseModel) -> Encoder:
    """Return what turns the rows of a specification into tokens."""
    tokenizer = base.tokenizer
    template = (
        chat_templates.for_training(tokenizer)
        if spec.base.template is None
        else chat_templates.read_file(places.folder / spec.base.template, tokenizer)
    )
    return Encoder(tokenizer, template, spec.data.supervise)


def _parents(base: BaseModel, sources: dict[str, Rows]) -> Iterator[tuple[str, str]]:
    if base.name.startswith(f"{KIND}/"):
        yield "base", f"{base.name.partition('@')[0]}@{base.digest}"
    for key, rows in sources.items():
        if rows.source.startswith(f"{DATASET}/"):
            yield key.split(".")[1], rows.source
