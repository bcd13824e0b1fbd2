"""Preflight: plug-ins that look for one kind of mistake each, before a device is used.

A plug-in is a file with `build(facts) -> Check`. All of them see each batch of rows once, in one
pass over the sources, those of `eval` first; then each tells every problem it has found. The laws,
run over each by `tests/contracts/test_preflight.py`: a sound specification has no problem, and a
problem names a key or rows. The smallest is:

>>> class Check:
...     def take(self, batch):
...         pass
...     def problems(self):
...         return []
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

from infra.plugins import available, load
from training import row_text
from training.accelerators import Machine
from training.adapter_size import AdapterSize
from training.base_model import BaseModel
from training.batching import Batches
from training.chat_templates import ChatTemplate
from training.encoding import Encoded
from training.examples import Sequence as Example
from training.lengths import Lengths
from training.memory import Memory
from training.problems import Problem
from training.spec import FineTuning
from training.topology import Topology


@dataclass(frozen=True, slots=True)
class Served:
    """What the settings say of the server that is to host the adapter."""

    max_rank: int | None
    """`None`: it takes no adapters."""
    digest: str | None = None
    """Of its model."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known before any row is read; `None` for what could not be found out."""

    spec: FineTuning
    base: BaseModel | None
    training_template: ChatTemplate | None
    serving_template: ChatTemplate | None
    machine: Machine | None
    served: Served | None = None
    adapter: AdapterSize | None = None


@dataclass(frozen=True)
class Read:
    """A row that can be trained on."""

    number: int
    """Of the row in its source, counted from 1."""
    sequences: Sequence[Example]
    encoded: Sequence[Encoded]

    @cached_property
    def said(self) -> str:
        """Its texts, as they are compared."""
        return row_text.said(self.sequences)

    @cached_property
    def said_digest(self) -> bytes:
        """What stands for these texts."""
        return row_text.digest(self.said)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of one source."""

    key: str
    """Of the source: `data.train`, `data.eval`, `data.replay.0`."""
    rows: Sequence[Read]
    faults: Sequence[tuple[int, str]] = ()
    """Rows that cannot be read, and why."""

    @property
    def is_trained(self) -> bool:
        return self.key != "data.eval"


@dataclass(frozen=True, slots=True)
class Derived:
    """What follows from the rows."""

    lengths: Mapping[str, Lengths]
    topology: Topology | None = None
    batches: Batches | None = None
    memory: Memory | None = None
    hours: float | None = None
    cost: float | None = None


class Taker(Protocol):
    """Is shown every row."""

    def take(self, batch: Batch, /) -> None: ...


class Check(Taker, Protocol):
    """Looks for one kind of mistake."""

    def problems(self, derived: Derived, /) -> Iterable[Problem]:
        """Return all that was found, once every batch was seen."""
        ...


class Silent:
    """A check that looks at no row and finds nothing: what others begin from."""

    def take(self, batch: Batch, /) -> None:
        """Pass over a batch."""

    def problems(self, _: Derived, /) -> Iterable[Problem]:
        """Return no problem."""
        return ()


def checks(facts: Facts) -> dict[str, Check]:
    """Return every check of this folder, by name."""
    found: dict[str, Any] = {
        name: load("training.preflight", name)(facts) for name in available("training.preflight")
    }
    return cast("dict[str, Check]", found)


__all__ = [
    "Batch",
    "Check",
    "Derived",
    "Facts",
    "Read",
    "Served",
    "Silent",
    "Taker",
    "checks",
]
