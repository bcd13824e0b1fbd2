"""The same output for every case: a floor to compare with, and the null target of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.target_kinds import ConstantTarget
from evals.trial import Case, Output


class Constant:
    parents: Sequence[tuple[str, str]] = ()

    def __init__(self, kind: ConstantTarget) -> None:
        self.identity: Mapping[str, Any] = kind.model_dump(mode="json")
        self._output = Output(kind.text, kind.answerable, prediction=kind.prediction)

    async def __call__(self, case: Case, *, seed: int) -> Output:
        del case, seed
        return self._output

    async def close(self) -> None:
        pass


def build(kind: ConstantTarget, folder: Path) -> Constant:
    del folder
    return Constant(kind)
