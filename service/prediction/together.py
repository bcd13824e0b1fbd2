"""What a model says of single rows of several requests: their answers, and their interactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from infra import classical
from monitoring.interaction_queue import Taken
from service.prediction.loading import Loaded
from service.prediction.noted import Noted, Turn
from service.prediction.quick import Row
from service.prediction.recording import Kept, Origin


@dataclass(frozen=True, eq=False)
class Together:
    """Rows that were run together, one of each request; told as if each had been run alone."""

    ids: Sequence[str]
    """Of the predictions."""
    loaded: Loaded
    rows: Sequence[Row]
    values: NDArray[Any]
    """Probabilities, (rows, classes), or values of a regression, (rows,)."""
    tag: str
    """`live`, or the version or alias that was asked for."""

    @cached_property
    def chosen(self) -> list[int] | None:
        """Of each row the class that is chosen, by its place; None of a regression."""
        model = self.loaded.model
        return None if model.classes is None else classical.decide(self.values, model).tolist()

    @cached_property
    def labels(self) -> list[Any]:
        """What is predicted."""
        labels = self.loaded.labels
        found: list[Any] = (self.values if labels is None else labels[self.chosen]).tolist()
        return found

    def bodies(self) -> Iterator[bytes]:
        """Yield the answers by the Open Inference Protocol, byte for byte as one alone has it."""
        loaded = self.loaded
        # orjson takes rows only as they lie in memory; some models answer column by column.
        numbers = np.ascontiguousarray(self.values).reshape(len(self.ids), -1)
        texts = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
        begin = orjson.dumps({"model_name": loaded.name, "model_version": loaded.version})[:-1]
        begin += b',"parameters":{"prediction_id":"'
        last = b'"datatype":"%b","shape":[1,%d],"data":[' % (
            loaded.number_type.encode(),
            numbers.shape[1],
        )
        if loaded.labels is None:
            middle = b'"},"outputs":[{"name":"prediction",' + last
            for id, text in zip(self.ids, texts, strict=True):
                yield b"%b%b%b%b]}]}" % (begin, id.encode(), middle, text)
            return
        middle = b'"},"outputs":[{"name":"label","datatype":"%b","shape":[1],"data":['
        middle %= loaded.label_type.encode()
        last = b']},{"name":"probabilities",' + last
        for id, label, text in zip(self.ids, self.labels, texts, strict=True):
            told = orjson.dumps(label)
            yield b"%b%b%b%b%b%b]}]}" % (begin, id.encode(), middle, told, last, text)

    def record(
        self,
        add: Callable[[Taken], None],
        *,
        origin: Origin,
        request_ids: Sequence[str],
        seconds: Sequence[float],
        kept: Kept,
    ) -> None:
        """Note each row; it becomes what `recording.record` makes of the rows of a request."""
        turn = Turn(
            origin.at,
            f"model/{self.loaded.name}",
            self.loaded.served,
            self.tag,
            origin.caller.tenant,
            origin.caller.key_id,
            self.loaded.class_names,
            kept != "nothing",
        )
        nothing: Sequence[Any] = [None] * len(self.ids)
        labels, chosen, probabilities = nothing, nothing, nothing
        if turn.has_content:
            labels = self.labels
            if self.chosen is not None:
                chosen, probabilities = self.chosen, self.values.tolist()
        rows = self.rows if kept == "inputs" else nothing
        columns = (self.ids, request_ids, seconds, labels, chosen, probabilities, rows)
        for told in zip(*columns, strict=True):
            add(Noted(turn, *told))
