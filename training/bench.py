"""One batch of a run, and the few steps that its smoke checks make of it."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.plugins import require
from training import adapted_model, methods, trainer
from training.lock import Lock
from training.meshes import Mesh
from training.methods import Learning
from training.resolving import Resolved
from training.sentinel import Sentinel
from training.spec import FineTuning
from training.tokenized import Tokenized

if TYPE_CHECKING:
    from training.callbacks import Watch

ROWS = 8


@dataclass(frozen=True, slots=True)
class Bench:
    """One batch, and models to try it on."""

    spec: FineTuning
    rows: Tokenized
    tokenizer: Any
    lock: Lock
    device: str
    fresh: Callable[[], Any]
    """Loads the base and gives it a new adapter, the same each time."""
    ends: frozenset[int] = frozenset()
    """Tokens at which generation stops."""
    data_ranks: int = 1
    """Processes that try it together, each with rows of its own."""
    scratch: Callable[[], AbstractContextManager[str]] = tempfile.TemporaryDirectory
    """Gives an empty folder, the same in every process."""

    @property
    def rows_at_once(self) -> int:
        """As many of the batch as the plan puts on the device, or fewer, so that they divide it."""
        planned = int((self.lock.batches or {}).get("rows_per_device", 1))
        return max(self.learning.fewest_rows, math.gcd(planned, ROWS))

    @property
    def learning(self) -> Learning:
        return methods.learning(self.spec.method)


def build(
    spec: FineTuning, resolved: Resolved, lock: Lock, *, device: str, mesh: Mesh | None = None
) -> Bench:
    """Return what is tried of a run, by one process or, with the same rows, by each of a mesh."""
    scores, folder = spec.method.type == "reward", resolved.base.folder

    def fresh() -> Any:
        base = adapted_model.load_base(spec.base, folder, device=device, mesh=mesh, scores=scores)
        return adapted_model.attach(base, spec.method, seed=spec.seed)

    few = resolved.train.sample(ROWS, seed=spec.seed)
    return Bench(spec, few, resolved.tokenizer, lock, device, fresh, resolved.base.end_ids)


@dataclass(frozen=True, slots=True)
class Steps:
    """A few steps that were made."""

    watch: Watch
    trainer: Any

    def moments(self) -> dict[str, float]:
        """Return the norm of all that the optimiser keeps of weights, by its name for it."""
        torch = require("torch", extra="finetune")
        squares: dict[str, float] = defaultdict(float)
        for kept in self.trainer.optimizer.state.values():
            for name, value in kept.items():
                if isinstance(value, int | float | torch.Tensor):
                    squares[name] += float(torch.as_tensor(value).float().square().sum())
        return {name: math.sqrt(square) for name, square in squares.items()}


def make_steps(
    bench: Bench,
    folder: Path,
    *,
    rows: int,
    steps: int,
    batches: int = 1,
    packing: bool | None = None,
) -> Steps:
    """Run the trainer of the run itself for a few steps of all rows, so many at once.

    Rows are repeated until each process can have as many as any other, in so many batches at least.
    """
    from training.callbacks import Watch

    asked = bench.spec.schedule
    changes: dict[str, Any] = {
        "saving": asked.saving.model_copy(update={"every_steps": 1, "keep": steps}),
        "scheduler": "constant",
        "packing": asked.packing if packing is None else packing,
    }
    schedule = asked.model_copy(update=changes)
    spec = bench.spec.model_copy(update={"schedule": schedule})
    together = rows * bench.data_ranks
    whole = math.lcm(bench.rows.rows, together * batches)
    planned = {
        **(bench.lock.batches or {}),
        "rows_per_device": rows,
        "accumulation": whole // together,
        "steps": steps,
    }
    lock = replace(bench.lock, batches=planned)
    train = bench.rows.sample(whole, seed=0)
    material = trainer.Material(spec, bench.fresh(), bench.tokenizer, train, None, lock)
    watch = Watch(
        Sentinel(spec.schedule.abort),
        lambda _: None,
        on_sigterm=False,
        gradients_may_overflow=spec.base.dtype == "float16",
    )
    built = trainer.build(material, folder, callbacks=[watch.as_callback()], device=bench.device)
    trainer.run(built, folder, watch=watch, note=lambda _: None)
    return Steps(watch, built)
