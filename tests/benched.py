"""One batch of a specification's rows, as smoke checks take it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.settings import load_settings
from service.models import tuning
from service.wiring import Components
from training import adapted_model, planning, resolving
from training.bench import ROWS, Bench
from training.spec import read


@contextmanager
def bench_of(path: Path) -> Iterator[Bench]:
    """Plan a specification and return what its checks look at."""
    folder, spec = path.parent, read(path)
    parts = Components(load_settings(data_folder=folder / "data"))
    places = tuning.places(parts, folder)
    planned = planning.plan(spec, places)
    planned.require_sound()
    found = resolving.resolve(spec, places, planned.lock)

    def fresh() -> Any:
        scores, folder = spec.method.type == "reward", found.base.folder
        base = adapted_model.load_base(spec.base, folder, device="cpu", scores=scores)
        return adapted_model.attach(base, spec.method, seed=spec.seed)

    rows = found.train.sample(ROWS, seed=1)
    yield Bench(spec, rows, found.tokenizer, planned.lock, "cpu", fresh, found.base.end_ids)
    parts.close()
