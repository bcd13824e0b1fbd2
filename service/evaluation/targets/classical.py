"""A classical model as the target of an evaluation, as it would be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evals.target_kinds import ClassicalTarget
from evals.trial import Case, Output
from infra import classical
from infra.errors import InvalidRequest
from service.limits import in_thread
from service.models import batch_predicting, batch_scoring

if TYPE_CHECKING:
    from service.wiring import Components


class Predictions:
    def __init__(self, kind: ClassicalTarget, parts: Components) -> None:
        name = kind.model if kind.version is None else f"{kind.model}@{kind.version}"
        self._loaded = batch_predicting.opened(parts, name)
        joins = self._loaded.reader.joins
        views = [each.version.reference for each in joins.views] if joins else []
        self.parents: Sequence[tuple[str, str]] = [
            ("model", str(self._loaded.reference)),
            *(("features", str(each)) for each in views),
        ]
        self.identity: Mapping[str, Any] = {
            **kind.model_dump(mode="json"),
            # What an alias stands for may change, and so may what a view holds.
            "digest": self._loaded.reference.digest,
            "views": self._loaded.joined_digests,
        }

    async def __call__(self, case: Case, *, seed: int) -> Output:
        del seed
        if not isinstance(case.input, Mapping):
            raise InvalidRequest(
                f"The input of case {case.id!r} is no mapping of features; name the columns that "
                "the model takes as `fields.input`"
            )
        row = dict(case.input)
        joins = self._loaded.reader.joins
        if joins is not None and row.get(joins.time) in (None, ""):
            # A request without one is of this moment; a case is of another, and has its label.
            why = batch_scoring.as_of(self._loaded, joins)
            raise InvalidRequest(f"Case {case.id!r} has no time in {joins.time!r}, {why}")
        return await in_thread(lambda: self._predict(row))

    async def close(self) -> None:
        pass

    def _predict(self, row: dict[str, Any]) -> Output:
        loaded = self._loaded
        table = loaded.reader.of_rows([row])
        values = loaded.runtime.run(table.columns)
        raw = {"warnings": [[each.column, each.kind] for each in table.warnings]}
        if loaded.model.classes is None:
            return Output(prediction=float(values[0]), raw=raw)
        names = [_name(each) for each in loaded.model.classes]
        chosen = int(classical.decide(values, loaded.model)[0])
        shares = dict(zip(names, map(float, values[0]), strict=True))
        return Output(prediction=shares, decision=names[chosen], raw=raw)


def build(kind: ClassicalTarget, parts: Components) -> Predictions:
    return Predictions(kind, parts)


def _name(label: Any) -> str:
    """Return a class as metrics read references: Python's words for them."""
    return str(label) if isinstance(label, bool) else classical.text_of(label)
