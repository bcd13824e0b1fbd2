"""Outputs that were made before, read from lines of JSON: scored again, nothing is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.target_kinds import RecordedTarget
from evals.targets.function import from_fields
from evals.trial import Case, Output
from infra.datasets import json_lines
from infra.datasets.data_file import DataFile
from infra.errors import InvalidRequest, NotFound


class Recorded:
    parents: Sequence[tuple[str, str]] = ()

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFound("file of outputs", str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.identity: Mapping[str, Any] = {"kind": "recorded", "digest": f"sha256:{digest}"}
        self._outputs: dict[str, Output] = {}
        for chunk in json_lines.chunks(DataFile.at(path, path.name), 1_000):
            for number, row in zip(chunk.lines, chunk.rows, strict=True):
                place = f"{path.name}, line {number}"
                if "id" not in row or str(row["id"]) in self._outputs:
                    raise InvalidRequest(f"{place}: needs an `id` that no other line has")
                fields = {name: value for name, value in row.items() if name != "id"}
                self._outputs[str(row["id"])] = from_fields(fields, place=place)

    async def __call__(self, case: Case, *, seed: int) -> Output:
        del seed
        if case.id not in self._outputs:
            raise NotFound("recorded output", case.id, among=self._outputs)
        return self._outputs[case.id]

    async def close(self) -> None:
        pass


def build(kind: RecordedTarget, folder: Path) -> Recorded:
    return Recorded(folder / kind.file)
