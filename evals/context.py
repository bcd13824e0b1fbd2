"""What a metric is given beside case and output: seed, memory, a judge, texts, an embedder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from evals.judges.question import Ask
from evals.memory import Memory
from evals.trial import Output
from infra.contracts import Vectors

ReadText: TypeAlias = Callable[[str, int, int, int], str | None]
"""`(document_id, version, start, end)` to the stored text there, or None when it is gone."""
Embed: TypeAlias = Callable[[Sequence[str]], Vectors]
"""Texts to unit vectors; blocks."""


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to every score; what this process cannot give is None."""

    seed: int = 0
    """Of the repeat; a judge that samples uses it."""
    memory: Memory = field(default_factory=Memory)
    """Through which every call of a judge goes."""
    ask: Ask | None = None
    """Asks the server of a judge what is not remembered."""
    read_text: ReadText | None = None
    embed: Embed | None = None
    baseline: Mapping[str, Output] = field(default_factory=dict)
    """What the evaluation that is compared with had as output, by case; empty if there is none."""
