"""Drift detectors: false alarms without drift, delay with it, 1M x 50 rows, beside two peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks import drift_peers, drift_streams
from benchmarks.drift_peers import FEATURES, SIZES
from benchmarks.drift_streams import CHANGE, HORIZON, SHIFTS, WINDOW, Floats, Stream
from benchmarks.options import Options
from benchmarks.processes import PeerFailed
from benchmarks.table import Bar, Row, Spread
from infra.plugins import available, require
from monitoring.columns import Column
from monitoring.detector import (
    TwoSampleDetector,
    is_sequential,
    open_detector,
)
from monitoring.findings import Finding

LEVEL = 0.05
_SPENT = {
    "seconds": ("time", "s", 30.0),
    "processor": ("processor time", "s", None),
    "mib": ("peak memory", "MiB", 1_024.0),
}
KINDS = {"numbers": "normal", "categories": "30 categories", "vectors": "32 dimensions"}


def run(options: Options) -> list[Row]:
    streams = 20 if options.quick else 1_000
    return [
        *_speed(options),
        *_false_alarms(streams, options),
        *_budgets(streams, options),
        *_delays(5 if options.quick else 40, options),
        *_real(options),
        *drift_peers.rows(options),
    ]


def draw(kind: str, rng: np.random.Generator, rows: int) -> Any:
    """Return values of one kind, the same distribution every time."""
    if kind == "vectors":
        return rng.normal(size=(rows, 32))
    if kind == "categories":
        weights = 1 / np.arange(1, 31)
        return [f"category {n}" for n in rng.choice(30, size=rows, p=weights / weights.sum())]
    return rng.normal(size=rows)


def _two_sample() -> Iterator[tuple[str, str]]:
    for name in available("monitoring.drift"):
        detector = open_detector(name)
        if not is_sequential(detector):
            for kind in sorted(detector.reads):
                if kind == "vectors" or name not in {"mmd", "classifier_two_sample"}:
                    yield name, kind


def _false_alarms(streams: int, options: Options) -> Iterator[Row]:
    """Without drift: the share of windows with p <= level, which the effect does not excuse."""
    for name, kind in _two_sample():
        options.say(f"{name}: {streams} streams of {kind} without drift")
        sure, alarms = 0, 0
        for seed in range(streams):
            rng = np.random.default_rng(seed)
            size = SIZES[seed % len(SIZES)]
            rows = 500 if kind == "vectors" else 2_000
            reference, current = (
                Column.of(draw(kind, rng, each)) for each in (rows, min(size, rows))
            )
            detector = cast("TwoSampleDetector", open_detector(name, _parameters(name, seed)))
            found = detector.compare(reference, current)
            sure += (found.p_value or 1.0) <= LEVEL
            alarms += found.is_drift
        yield Row(
            f"no drift, {name}, {KINDS[kind]}: p <= 0.05",
            Spread((sure / streams,)),
            bar=Bar(_limit(streams), at_least=False),
            note=f"drift, with the effect: {alarms / streams:.3f}",
        )


def _parameters(name: str, seed: int) -> dict[str, Any]:
    return {"seed": seed, **({"draws": 199} if name in {"mmd", "classifier_two_sample"} else {})}


def _limit(streams: int) -> float:
    """Return the largest share that a true rate of `LEVEL` exceeds once in 10,000 times."""
    binomial = require("scipy.stats", extra="monitoring").binom
    return float(binomial.ppf(1 - 1e-4, streams, LEVEL)) / streams


def _sequential() -> list[str]:
    return [n for n in available("monitoring.drift") if is_sequential(open_detector(n))]


def _budgets(streams: int, options: Options) -> Iterator[Row]:
    for name in _sequential():
        options.say(f"{name}: {streams} streams of {HORIZON} values without drift")
        alarms = 0
        for seed in range(streams):
            rng = np.random.default_rng(seed)
            stream = Stream("", rng.normal(size=2_000), rng.normal(size=HORIZON))
            alarms += first_alarm(name, stream, seed=seed) is not None
        yield Row(
            f"no drift, {name}: streams of {HORIZON:,} values with an alarm",
            Spread((alarms / streams,)),
            bar=Bar(_limit(streams), at_least=False),
        )


def first_alarm(name: str, stream: Stream, *, seed: int = 0) -> int | None:
    """Return after how many values of a stream a detector alarms; windows end every 200 rows."""
    detector = open_detector(name, {"seed": seed, **_sized(name)})
    reference = Column.of(stream.reference)
    if is_sequential(detector):
        watch = detector.watch(reference)
        if isinstance(watch, Finding):
            raise ValueError(watch.explanation)
        return watch.update(Column.of(stream.values)).alarm_at
    compare = cast("TwoSampleDetector", detector).compare
    for end in range(WINDOW, stream.values.size + 1, WINDOW):
        if compare(reference, Column.of(stream.values[end - WINDOW : end])).is_drift:
            return end
    return None


def _sized(name: str) -> dict[str, Any]:
    """Give every detector the same budget: one false alarm in 20 horizons."""
    if name in _sequential():
        return {"horizon": HORIZON}
    return {"level": LEVEL * WINDOW / HORIZON}


def _delays(repeats: int, options: Options) -> Iterator[Row]:
    """From row 2,000 on the mean moves; an alarm before is false, none until the end is a miss."""
    names = ["kolmogorov_smirnov", "wasserstein", "psi", *_sequential()]
    for shape in drift_streams.SHAPES:
        for size in SHIFTS:
            options.say(f"delay: {shape}, {size} standard deviations")
            for name in names:
                streams = drift_streams.streams(shape, size, repeats)
                found = [
                    first_alarm(name, stream, seed=seed) for seed, stream in enumerate(streams)
                ]
                yield _delay_row(f"{shape} {size} sd: delay of {name}", found, CHANGE)


def _delay_row(metric: str, found: Sequence[int | None], at: int) -> Row:
    delays = [each - at for each in found if each is not None and each > at]
    early = sum(each is not None and each <= at for each in found)
    missed = sum(each is None for each in found)
    note = f"{missed} of {len(found)} missed, {early} false"
    # One that is missed comes later than all: the median counts it.
    delays += [10**9] * missed
    middle = float(np.median(delays)) if delays else float("inf")
    ours = Spread((middle,)) if middle < 10**8 else None
    return Row(metric, ours, unit="rows", note=note)


def _real(options: Options) -> Iterator[Row]:
    if options.data is None:
        yield Row("real streams", None, note="absent; RAGSTONE_TEST_DATA names their folder")
        return
    for stream in drift_streams.real(options.data):
        options.say(f"real stream: {stream.name}")
        for name in ("chi_squared" if _is_binary(stream) else "kolmogorov_smirnov", *_sequential()):
            alarms = list(_all_alarms(name, stream))
            yield Row(
                f"{stream.name}: alarms of {name}",
                Spread((float(len(alarms)),)),
                note=f"at {_shown(alarms)}; changes at {_shown(stream.changes)}",
            )


def _is_binary(stream: Stream) -> bool:
    return bool(np.isin(stream.values, (0.0, 1.0)).all())


def _all_alarms(name: str, stream: Stream) -> Iterator[int]:
    """Yield the places of all alarms; after one, the 2,000 values that follow are the reference."""
    reference, values, done = stream.reference, stream.values, 0
    kind = "categories" if name == "chi_squared" else None
    while values.size > WINDOW:
        if kind:
            at = _first_of_categories(reference, values)
        else:
            at = first_alarm(name, Stream("", reference, values))
        if at is None:
            return
        yield done + at
        reference, values = values[at : at + 2_000], values[at + 2_000 :]
        done += at + 2_000


def _first_of_categories(reference: Floats, values: Floats) -> int | None:
    parameters = {"level": LEVEL * WINDOW / HORIZON}
    detector = cast("TwoSampleDetector", open_detector("chi_squared", parameters))
    before = Column.of(reference, "categories")
    for end in range(WINDOW, values.size + 1, WINDOW):
        now = Column.of(values[end - WINDOW : end], "categories")
        if detector.compare(before, now).is_drift:
            return end
    return None


def _shown(places: Sequence[int]) -> str:
    shown = ", ".join(f"{place:,}" for place in places[:6])
    return (shown + (", ..." if len(places) > 6 else "")) or "none"


def _speed(options: Options) -> Iterator[Row]:
    """Compare two tables of Parquet in a process of its own, whose memory is counted."""
    rows = 20_000 if options.quick else 1_000_000
    options.say(f"writing 2 tables of {rows:,} x {FEATURES}")
    files = [options.folder / f"{name}.parquet" for name in ("reference", "window")]
    for seed, file in enumerate(files):
        _write(file, rows, seed)
    samples: dict[str, list[float]] = {"seconds": [], "processor": [], "mib": []}
    for _ in range(1 if options.quick else min(options.repeats, 3)):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.drift", *map(str, files)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent.parent,
        )
        if done.returncode:
            raise PeerFailed(f"the check of {rows:,} rows failed: {done.stderr[-500:]}")
        for name, value in json.loads(done.stdout).items():
            samples[name].append(value)
    for name, (what, unit, limit) in _SPENT.items():
        bar = Bar(limit, at_least=False) if limit and not options.quick else None
        metric = f"check of {rows:,} x {FEATURES} rows: {what}"
        yield Row(metric, Spread(tuple(samples[name])), unit=unit, bar=bar)


def _write(file: Path, rows: int, seed: int) -> None:
    """Write 40 columns of numbers and 10 of categories, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    numbers = [f"number_{n}" for n in range(FEATURES * 4 // 5)]
    texts = [f"category_{n}" for n in range(FEATURES - len(numbers))]
    labels = np.array([f"value {n}" for n in range(50)], dtype=object)
    writer = None
    for first in range(0, rows, 100_000):
        size = min(100_000, rows - first)
        columns = {name: pa.array(rng.normal(size=size)) for name in numbers}
        columns |= {name: pa.array(labels[rng.integers(50, size=size)]) for name in texts}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _check(files: Sequence[str]) -> None:
    """Compare two files and print the time and the most memory that it took, as JSON."""
    import resource
    import time

    from monitoring.comparison import compare
    from monitoring.windows import Window

    start = time.perf_counter()
    reference, window = (Window.of_parquet(Path(file)) for file in files)
    report = compare(reference, window)
    seconds = time.perf_counter() - start
    if len(report.findings) != FEATURES or report.verdict != "stable":
        raise SystemExit(f"{len(report.findings)} findings, {report.verdict}")
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = {
        "seconds": seconds,
        "processor": used.ru_utime + used.ru_stime,
        "mib": used.ru_maxrss / 1024,
    }
    sys.stdout.write(json.dumps(spent))


if __name__ == "__main__":
    _check(sys.argv[1:])
