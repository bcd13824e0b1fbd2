"""Smoke checks: minutes on the real device that tell whether hours there are worth it."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.plugins import require
from training import adapted_model, methods, trainer
from training.lock import Lock
from training.methods import Learning
from training.resolving import Resolved
from training.sentinel import Aborted, Sentinel
from training.spec import FineTuning
from training.tokenized import Tokenized

if TYPE_CHECKING:
    from training.callbacks import Watch

ADAPTER = "default"
ROWS = 8
OVERFIT_STEPS = 60
OVERFIT_FASTER = 5.0
"""Times the learning rate of the run, for one batch is to be learned by heart."""
OVERFIT_FASTEST = 1e-2
"""Unless the run itself is faster: beyond it, steps overshoot."""
ACCUMULATION_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}
RESUME_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 1e-2}


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found."""

    name: str
    passed: bool
    said: str
    """The figures it decided by."""


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

    @property
    def learning(self) -> Learning:
        return methods.learning(self.spec.method)


def check(spec: FineTuning, resolved: Resolved, lock: Lock, *, device: str) -> list[Result]:
    """Return what every check finds, in the order of their cost."""

    def fresh() -> Any:
        base = adapted_model.load_base(
            spec.base, resolved.base.folder, device=device, scores=spec.method.type == "reward"
        )
        return adapted_model.attach(base, spec.method, seed=spec.seed)

    few = resolved.train.sample(ROWS, seed=spec.seed)
    bench = Bench(spec, few, resolved.tokenizer, lock, device, fresh)
    checks = (initial_loss, only_adapter, accumulation, overfit, resume)
    return [_found(each, bench) for each in checks]


def _found(check: Callable[[Bench], Result], bench: Bench) -> Result:
    try:
        return check(bench)
    except Aborted as error:
        return Result(check.__name__, False, error.message)


def initial_loss(bench: Bench) -> Result:
    """The loss before training is that of a model which has learned nothing yet."""
    torch = require("torch", extra="finetune")
    model = bench.fresh().eval()
    with torch.no_grad():
        loss = float(bench.learning.loss(model, bench.rows))
    start = bench.learning.starts_at(model.config.get_text_config().vocab_size)
    said = f"{loss:.4g}, between {start.low:.4g} and {start.high:.4g}"
    return Result("initial_loss", start.low < loss <= start.high, said)


def only_adapter(bench: Bench) -> Result:
    """After a step the base is what it was, and some of the adapter is not."""
    model = bench.fresh().train()
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    _step(model, _optimizer(model, bench.spec.schedule.learning_rate), bench)
    moved = [
        name for name, each in model.named_parameters() if not bool((each == before[name]).all())
    ]
    # Whatever may be trained: peft writes the name of the adapter into the names of its weights.
    trained = {name for name in before if ADAPTER in name.split(".")}
    strays = sorted(set(moved) - trained)
    said = f"{len(moved)} of {len(trained)} adapter tensors moved"
    if strays:
        said = f"{len(strays)} tensors of the base moved, such as {strays[0]!r}"
    return Result("only_adapter", bool(moved) and not strays, said)


def accumulation(bench: Bench) -> Result:
    """Batches of half the size, two for each step, give the loss and gradient of whole ones."""
    with tempfile.TemporaryDirectory() as scratch:
        whole = _train(bench, Path(scratch) / "whole", rows=ROWS, steps=1)
        halves = _train(bench, Path(scratch) / "halves", rows=ROWS // 2, steps=1)
    off = max(
        abs(halves.losses[1] / whole.losses[1] - 1),
        abs(halves.grad_norms[1] / max(whole.grad_norms[1], 1e-12) - 1),
    )
    most = ACCUMULATION_TOLERANCE[bench.spec.base.dtype]
    return Result("accumulation", off <= most, f"off by {off:.2g}, at most {most:g}")


def overfit(bench: Bench) -> Result:
    """One batch can be learned by heart, so that labels, loss and adapter belong together."""
    model = bench.fresh().train()
    learning, rate = bench.learning, bench.spec.schedule.learning_rate
    faster = learning.heart_rate or min(OVERFIT_FASTER * rate, OVERFIT_FASTEST)
    optimizer = _optimizer(model, max(rate, faster))
    first = last = _step(model, optimizer, bench)
    for _ in range(OVERFIT_STEPS - 1):
        last = _step(model, optimizer, bench)
        if last <= 0.5 * learning.left * first:
            break
    return Result("overfit", last <= learning.left * first, f"loss {first:.4g} -> {last:.4g}")


def resume(bench: Bench) -> Result:
    """Taken up from a checkpoint, the next step has the loss that it had without a break."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        expected = _train(bench, folder, rows=ROWS, steps=3).losses[3]
        shutil.rmtree(folder / "checkpoint-3")
        again = _train(bench, folder, rows=ROWS, steps=3).losses
    most = RESUME_TOLERANCE[bench.spec.base.dtype]
    off = abs(again[3] - expected) if list(again) == [3] else math.inf
    return Result("resume", off <= most, f"the loss is off by {off:.2g}, at most {most:g}")


def failed(results: list[Result]) -> list[Result]:
    """Return those that did not pass."""
    return [each for each in results if not each.passed]


def _train(bench: Bench, folder: Path, *, rows: int, steps: int) -> Watch:
    """Run the trainer of the run itself for a few steps of all rows."""
    from training.callbacks import Watch

    saving = bench.spec.schedule.saving.model_copy(update={"every_steps": 1, "keep": steps})
    schedule = bench.spec.schedule.model_copy(update={"saving": saving, "scheduler": "constant"})
    spec = bench.spec.model_copy(update={"schedule": schedule})
    batches = {
        **(bench.lock.batches or {}),
        "rows_per_device": rows,
        "accumulation": ROWS // rows,
        "steps": steps,
    }
    material = trainer.Material(
        spec, bench.fresh(), bench.tokenizer, bench.rows, None, replace(bench.lock, batches=batches)
    )
    watch = Watch(Sentinel(spec.schedule.abort), lambda _: None, on_sigterm=False)
    built = trainer.build(material, folder, callbacks=[watch.as_callback()], device=bench.device)
    trainer.run(built, folder, watch=watch, note=lambda _: None)
    return watch


def _optimizer(model: Any, rate: float) -> Any:
    torch = require("torch", extra="finetune")
    weights = [each for each in model.parameters() if each.requires_grad]
    return torch.optim.AdamW(weights, lr=rate)


def _step(model: Any, optimizer: Any, bench: Bench) -> float:
    optimizer.zero_grad()
    loss = bench.learning.loss(model, bench.rows)
    loss.backward()
    optimizer.step()
    return float(loss.detach())
