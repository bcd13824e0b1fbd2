"""How late evidently and NannyML alarm at their defaults, on the same streams as our detectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import drift_streams
from benchmarks.drift_streams import CHANGE, SHIFTS, WINDOW, Floats
from benchmarks.options import Options
from benchmarks.processes import PeerProcess
from benchmarks.table import Row, Spread

STREAMS = 20
METHODS = {"evidently": "evidently preset", "nannyml": "nannyml jensen_shannon"}
"""What each does where nothing is chosen."""
Alarms = Sequence[Sequence[bool]]
"""By window, then by stream."""


def rows(name: str, peer: PeerProcess, options: Options) -> Iterator[Row]:
    """Cut streams in windows of 200 rows, all compared with the values before the stream.

    A peer that alarms before the change has found nothing: its delay is that of its first alarm
    after the change all the same, and how many alarmed before stands beside it.
    """
    count = 3 if options.quick else STREAMS
    for shape in drift_streams.SHAPES:
        for size in SHIFTS[-1:] if options.quick else SHIFTS:
            options.say(f"{name}: delay, {shape}, {size} standard deviations")
            planted = list(drift_streams.streams(shape, size, count))
            reference = np.stack([each.reference for each in planted], axis=1)
            values = np.stack([each.values for each in planted], axis=1)
            yield _delay(f"{shape} {size} sd: delay", name, _ask(peer, options, reference, values))
    if options.data is None:
        return
    for stream in drift_streams.real(options.data):
        options.say(f"{name}: {stream.name}")
        values = stream.values[: 20 * WINDOW] if options.quick else stream.values
        alarms = _ask(peer, options, stream.reference[:, None], values[:, None])
        ends = [WINDOW * (at + 1) for at, (flag,) in enumerate(alarms) if flag]
        changes = ", ".join(f"{each:,}" for each in stream.changes) or "none"
        yield Row(
            f"{stream.name}: windows with an alarm",
            None,
            peer=Spread((float(len(ends)),)),
            peer_name=name,
            note=f"of {len(alarms)}, first at {ends[0] if ends else 'none'}; changes at {changes}",
        )


def _delay(metric: str, name: str, alarms: Alarms) -> Row:
    flags = np.asarray(alarms, dtype=bool)
    before, after = np.split(flags, [CHANGE // WINDOW])
    first = np.where(after.any(axis=0), after.argmax(axis=0) + 1.0, np.inf) * WINDOW
    middle = float(np.median(first))
    early, missed = int(before.any(axis=0).sum()), int(np.isinf(first).sum())
    return Row(
        metric,
        None,
        unit="rows",
        peer=Spread((middle,)) if np.isfinite(middle) else None,
        peer_name=name,
        note=f"{missed} of {first.size} missed, {early} alarmed before, "
        f"in {before.mean():.3f} of windows",
    )


def _ask(peer: PeerProcess, options: Options, reference: Floats, values: Floats) -> Alarms:
    paths = []
    for side, table in (("reference", reference), ("values", values)):
        paths.append(str(options.folder / f"stream-{side}.npy"))
        np.save(paths[-1], table)
    asked: dict[str, Any] = {"do": "windows", "rows": WINDOW, "files": paths}
    found: Alarms = peer.ask({**asked, "method": METHODS[peer.name]})["alarms"]
    return found
