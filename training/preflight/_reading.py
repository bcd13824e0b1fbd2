"""The one pass over all rows: read, understood, tokenised, and shown to every check."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

from training.encoding import Encoded, Encoder
from training.examples import Sequence, Shape, Wrong, sequences, shape_of
from training.lengths import Lengths, Measured
from training.preflight import Batch, Read, Taker
from training.row_source import Row, Rows, Unreadable
from training.spec import FineTuning

AHEAD = 2
"""Batches that are prepared while another one is looked at."""
Prepared = tuple[list[Read], list[tuple[int, str]]]
"""Of a batch: rows that can be trained on, and the others with what is wrong."""


@dataclass(slots=True)
class _Gathered:
    """Of one batch, on its way."""

    faults: list[tuple[int, str]]
    understood: list[tuple[int, list[Sequence]]]


def first_shape(rows: Rows, method: str) -> Shape | None:
    """Return what the first good row of a source is; `None` if its first batch has none."""
    return shape_in(next(rows.batches(), []), method)


def read_source(
    key: str, rows: Rows, spec: FineTuning, encoder: Encoder | None, takers: Iterable[Taker]
) -> Lengths:
    """Show every row of a source to every check, and to whoever else takes them; return lengths.

    Without an encoder, as where there is no tokenizer, rows are read and not tokenised.
    """
    data = spec.data
    measured = Measured(max_length=data.max_length, drops_longer=data.overflow == "drop")
    for read, faults in _ahead(_preparing(rows, spec, encoder)):
        measured.faulty += len(faults)
        for row in read if encoder is not None else ():
            lengths = [len(each.ids) for each in row.encoded]
            learned = [_learned(each, data.max_length) for each in row.encoded]
            measured.add(
                row.number,
                max(lengths),
                min(learned),
                beside=sum(min(each, data.max_length) for each in sorted(lengths)[:-1]),
                learned_beside=sum(sorted(learned)[1:]),
            )
        shown = Batch(key, read, faults)
        for taker in takers:
            taker.take(shown)
    return measured.result()


def _ahead(works: Iterator[Callable[[], Prepared]]) -> Iterator[Prepared]:
    """Prepare the next batches while one is looked at, and return them in their order.

    The tokenizer uses all cores and needs no interpreter: while it is at one batch, texts are
    rendered for another, and the checks look at a third.
    """
    with ThreadPoolExecutor(AHEAD) as threads:
        coming = deque(threads.submit(work) for work in islice(works, AHEAD))
        while coming:
            prepared = coming.popleft().result()
            coming.extend(threads.submit(work) for work in islice(works, 1))
            yield prepared


def _preparing(
    rows: Rows, spec: FineTuning, encoder: Encoder | None
) -> Iterator[Callable[[], Prepared]]:
    shape: Shape | None = None
    before = 0
    for batch in rows.batches():
        if shape is None:
            shape = shape_in(batch, spec.method.type)
        yield partial(_prepare, batch, before, shape, method=spec.method.type, encoder=encoder)
        before += len(batch)


def _prepare(
    batch: list[Row], before: int, shape: Shape | None, *, method: str, encoder: Encoder | None
) -> Prepared:
    gathered = _understand(batch, before, shape, method)
    return _encode(gathered, encoder), gathered.faults


def shape_in(batch: list[Row], method: str) -> Shape | None:
    """Return what the first good row of a batch is; all rows of a source are taken for the same."""
    for row in batch:
        if not isinstance(row, Unreadable):
            try:
                return shape_of(row, method)
            except Wrong:
                continue
    return None


def _understand(batch: list[Row], before: int, shape: Shape | None, method: str) -> _Gathered:
    gathered = _Gathered([], [])
    for number, row in enumerate(batch, start=before + 1):
        if isinstance(row, Unreadable):
            gathered.faults.append((number, row.why))
            continue
        try:
            # All rows of a source are of one shape, that of its first good row.
            found = shape or shape_of(row, method)
            gathered.understood.append((number, sequences(row, found)))
        except Wrong as wrong:
            gathered.faults.append((number, str(wrong)))
    return gathered


def _encode(gathered: _Gathered, encoder: Encoder | None) -> list[Read]:
    if encoder is None:
        return [Read(number, found, ()) for number, found in gathered.understood]
    flat = [each for _, found in gathered.understood for each in found]
    encoded = iter(encoder.encode(flat))
    read = []
    for number, found in gathered.understood:
        made = [next(encoded) for _ in found]
        wrong = [each for each in made if isinstance(each, Wrong)]
        if wrong:
            gathered.faults.append((number, str(wrong[0])))
        else:
            read.append(Read(number, found, [each for each in made if isinstance(each, Encoded)]))
    return read


def _learned(encoded: Encoded, max_length: int) -> int:
    if len(encoded.ids) <= max_length:
        return encoded.supervised
    return encoded.cut(max_length).supervised
