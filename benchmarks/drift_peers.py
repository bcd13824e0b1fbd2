"""evidently and NannyML at their defaults, beside our test: windows without drift and with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

import numpy as np

from benchmarks import drift_peer_delays, environments, processes
from benchmarks.drift_streams import SHIFTS, WINDOW, Floats
from benchmarks.options import Options
from benchmarks.processes import PeerFailed, PeerProcess
from benchmarks.table import Row, Spread
from monitoring.columns import Column
from monitoring.detector import TwoSampleDetector, open_detector

PEERS = ("evidently", "nannyml")
REFERENCE = 10_000
WINDOWS = 200
"""Of each size, without drift: a peer takes seconds for each 50."""
SIZES = (50, 100, 200, 500, 1_000)
FEATURES = 50


def rows(options: Options) -> Iterator[Row]:
    """Ask the peers, at their defaults, of windows without drift and of planted shifts."""
    for name in PEERS:
        python = processes.find(name, options) if options.peers else None
        if python is None:
            note = environments.NOT_INSTALLED if options.peers else "left out"
            yield Row(f"no drift, {name}", None, peer_name=name, note=note)
            continue
        options.say(f"{name}: windows without drift")
        with processes.running(name, python, options) as peer:
            try:
                yield from _peer_rows(name, peer, options)
                if name == "evidently":
                    yield _embeddings(peer, options)
                yield from drift_peer_delays.rows(name, peer, options)
            except PeerFailed as error:
                yield Row(f"no drift, {name}", None, peer_name=name, note=error.message)


def _peer_rows(name: str, peer: PeerProcess, options: Options) -> Iterator[Row]:
    rounds = 1 if options.quick else WINDOWS // FEATURES
    for method in peer.ask({"do": "methods"})["methods"]:
        for size in SIZES[:2] if options.quick else SIZES:
            alarms = [
                flag
                for seed in range(rounds)
                for flag in _ask(peer, options, method, _tables(seed, size, 0.0))
            ]
            ours = _our_rate(size, rounds)
            yield Row(
                f"no drift, {size} rows per window, 1 feature: {method}",
                Spread((ours,)),
                peer=Spread((float(np.mean(alarms)),)),
                peer_name=name,
                note=f"{len(alarms):,} windows; ours kolmogorov_smirnov",
            )
        for shift in SHIFTS:
            alarms = _ask(peer, options, method, _tables(99, WINDOW, shift))
            yield Row(
                f"shift of {shift} sd found in {WINDOW} rows: {method}",
                Spread((_our_rate(WINDOW, 1, shift),)),
                peer=Spread((float(np.mean(alarms)),)),
                peer_name=name,
            )


def _embeddings(peer: PeerProcess, options: Options) -> Row:
    """Two samples of one distribution of vectors: a kernel test beside a kernel test."""
    windows = 3 if options.quick else 60
    ours, theirs = [], []
    for seed in range(windows):
        rng = np.random.default_rng(seed)
        pair = rng.normal(size=(2, WINDOW, 32))
        paths = [options.folder / f"vectors-{side}.npy" for side in range(2)]
        for path, side in zip(paths, pair, strict=True):
            np.save(path, side)
        request = {"do": "embeddings", "files": [str(path) for path in paths]}
        theirs.append(peer.ask(request)["alarms"][0])
        detector = cast("TwoSampleDetector", open_detector("mmd"))
        ours.append(detector.compare(Column.of(pair[0]), Column.of(pair[1])).is_drift)
    return Row(
        f"no drift, vectors of 32 dimensions, {WINDOW} rows: mmd(bootstrap=True)",
        Spread((float(np.mean(ours)),)),
        peer=Spread((float(np.mean(theirs)),)),
        peer_name="evidently",
        note=f"{windows} windows; ours mmd",
    )


Tables: TypeAlias = Callable[[], tuple[Floats, Floats]]


def _tables(seed: int, size: int, shift: float) -> Tables:
    def make() -> tuple[Floats, Floats]:
        rng = np.random.default_rng(seed)
        reference = rng.normal(size=(REFERENCE, FEATURES))
        return reference, rng.normal(loc=shift, size=(size, FEATURES))

    return make


def _ask(peer: PeerProcess, options: Options, method: str, tables: Tables) -> list[bool]:
    paths = []
    for name, table in zip(("reference", "current"), tables(), strict=True):
        paths.append(options.folder / f"peer-{name}.npy")
        np.save(paths[-1], table)
    request = {"do": "compare", "method": method, "files": [str(path) for path in paths]}
    found: list[bool] = peer.ask(request)["alarms"]
    return found


def _our_rate(size: int, rounds: int, shift: float = 0.0) -> float:
    detector = cast("TwoSampleDetector", open_detector("kolmogorov_smirnov"))
    alarms = []
    for seed in range(rounds):
        reference, current = _tables(seed if rounds > 1 else 99, size, shift)()
        for feature in range(FEATURES):
            pair = Column.of(reference[:, feature]), Column.of(current[:, feature])
            alarms.append(detector.compare(*pair).is_drift)
    return float(np.mean(alarms))
