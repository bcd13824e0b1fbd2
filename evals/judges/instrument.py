"""A judge as a measuring device: the rubric, the model, and how it is asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from evals.judges.prompt import VERSION
from evals.judges.rubric import Rubric


@dataclass(frozen=True, slots=True)
class Instrument:
    """What must be the same for an agreement with people to say anything of a score."""

    rubric: Rubric
    model: str
    temperature: float = 0.0
    samples: int = 1
    prompt: int = VERSION
    """The version of what stands around the rubric."""

    @property
    def digest(self) -> str:
        text = orjson.dumps(self.as_dict(), option=orjson.OPT_SORT_KEYS)
        return f"sha256:{hashlib.sha256(text).hexdigest()}"

    @property
    def card(self) -> str:
        """The name of its card among the artifacts, without the kind."""
        return f"{self.rubric.name}-{self.digest.removeprefix('sha256:')[:16]}"

    def command(self, rubric: str) -> str:
        """Return the command line that measures it; `rubric` is what its suite calls the rubric."""
        words = f"ragstone eval judge agree LABELS --rubric {rubric} --model {self.model}"
        if self.temperature:
            words += f" --with temperature={self.temperature:g}"
        return words if self.samples == 1 else f"{words} --with samples={self.samples}"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: the rubric by its digest."""
        return {
            "rubric": self.rubric.digest,
            "model": self.model,
            "temperature": float(self.temperature),
            "samples": self.samples,
            "prompt": self.prompt,
        }
