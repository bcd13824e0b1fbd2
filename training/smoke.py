"""Smoke checks: minutes on the real device that tell whether hours there are worth it."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.plugins import require
from training import adapted_model, endings, exhaustion, methods, peak_memory, trainer
from training.exhaustion import OutOfMemory
from training.lock import Lock
from training.memory import CONTEXT_BYTES
from training.methods import Learning
from training.resolving import Resolved
from training.sentinel import Aborted, Sentinel
from training.spec import FineTuning
from training.tokenized import Tokenized

if TYPE_CHECKING:
    from training.callbacks import Watch

ADAPTER = "default"
GIB = 2**30
ROWS = 8
OVERFIT_STEPS = 60
OVERFIT_FASTER = 5.0
"""Times the learning rate of the run, for one batch is to be learned by heart."""
OVERFIT_FASTEST = 1e-2
"""Unless the run itself is faster: beyond it, steps overshoot."""
ENDINGS_EVERY_STEPS = 5
"""How often answers are decoded once the loss is low, until all of them end."""
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
    ends: frozenset[int] = frozenset()
    """Tokens at which generation stops."""

    @property
    def rows_at_once(self) -> int:
        """As many of the batch as the plan puts on the device, or fewer, so that they divide it."""
        planned = int((self.lock.batches or {}).get("rows_per_device", 1))
        return max(self.learning.fewest_rows, math.gcd(planned, ROWS))

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
    bench = Bench(spec, few, resolved.tokenizer, lock, device, fresh, resolved.base.end_ids)
    checks = (initial_loss, only_adapter, memory, accumulation, overfit, resume)
    return [_found(each, bench) for each in checks]


def _found(check: Callable[[Bench], Result], bench: Bench) -> Result:
    try:
        with exhaustion.told():
            return check(bench)
    except (Aborted, OutOfMemory) as error:
        return Result(check.__name__, False, error.message)
    finally:
        adapted_model.let_go()


def initial_loss(bench: Bench) -> Result:
    """The loss before training is that of a model which has learned nothing yet."""
    torch = require("torch", extra="finetune")
    model = _ready(bench).eval()
    with torch.no_grad():
        loss = _loss(model, bench)
    start = bench.learning.starts_at(model.config.get_text_config().vocab_size)
    said = f"{loss:.4g}, between {start.low:.4g} and {start.high:.4g}"
    return Result("initial_loss", start.low < loss <= start.high, said)


def only_adapter(bench: Bench) -> Result:
    """After a step the base is what it was, and some of the adapter is not."""
    model = _ready(bench).train()
    before = {name: _digest(each) for name, each in model.named_parameters()}
    _step(model, _optimizer(model, bench.spec.schedule.learning_rate), bench)
    moved = [name for name, each in model.named_parameters() if _digest(each) != before[name]]
    # Whatever may be trained: peft writes the name of the adapter into the names of its weights.
    trained = {name for name in before if ADAPTER in name.split(".")}
    strays = sorted(set(moved) - trained)
    said = f"{len(moved)} of {len(trained)} adapter tensors moved"
    if strays:
        said = f"{len(strays)} tensors of the base moved, such as {strays[0]!r}"
    return Result("only_adapter", bool(moved) and not strays, said)


def memory(bench: Bench) -> Result:
    """A step of as many rows, as long as they may be, fits; how near it comes to the estimate."""
    planned, found = (bench.lock.memory or {}).get("total", 0), peak(bench)
    if bench.device != "cpu":
        planned -= round(CONTEXT_BYTES)  # which is not PyTorch's to count
    said = f"{found / GIB:.3g} GiB at the peak, {found / max(planned, 1):.2f} of the estimate"
    return Result("memory", True, said)


def peak(bench: Bench) -> int:
    """Return the bytes that the run's own step takes at its peak."""
    count = int((bench.lock.batches or {}).get("rows_per_device", 1))
    long = _stretched(bench.rows, bench.spec.data.max_length).sample(count, seed=0)
    model = bench.fresh()
    with tempfile.TemporaryDirectory() as scratch, peak_memory.measured(model) as found:
        whole = replace(bench, rows=long, fresh=lambda: model)
        _train(whole, Path(scratch), rows=count, steps=1)
    return found.bytes


def accumulation(bench: Bench) -> Result:
    """Batches of few rows, several for each step, give the loss and gradient of all at once.

    These are the sums of what each row gives by itself, which takes no room for all of them.
    Dropout is off: the two ways would draw otherwise.
    """
    torch = require("torch", extra="finetune")
    quiet = replace(bench, fresh=lambda: _without_dropout(bench.fresh()))
    model = _ready(quiet).train()
    loss = _loss(model, quiet, learns=True)
    norm = float(torch.nn.utils.get_total_norm([each.grad for each in _trained(model)]))
    del model
    share = math.gcd(bench.rows_at_once, ROWS // 2)
    with tempfile.TemporaryDirectory() as scratch:
        several = _train(quiet, Path(scratch), rows=share, steps=1, packing=False)
    off = max(abs(several.losses[1] / loss - 1), abs(several.grad_norms[1] / max(norm, 1e-12) - 1))
    most = ACCUMULATION_TOLERANCE[bench.spec.base.dtype]
    return Result("accumulation", off <= most, f"off by {off:.2g}, at most {most:g}")


def overfit(bench: Bench) -> Result:
    """One batch can be learned by heart, with the ends of its answers where they are imitated.

    So labels, loss and adapter belong together, and so do the template and what ends a turn.
    """
    model = _ready(bench).train()
    learning, rate = bench.learning, bench.spec.schedule.learning_rate
    faster = learning.heart_rate or min(OVERFIT_FASTER * rate, OVERFIT_FASTEST)
    optimizer = _optimizer(model, max(rate, faster))
    imitates = bench.spec.method.type == "sft"
    asked = endings.prompts(bench.rows, bench.ends) if imitates else []
    first = last = _step(model, optimizer, bench)
    ended = 0
    for step in range(1, OVERFIT_STEPS):
        last = _step(model, optimizer, bench)
        is_learned = last <= 0.5 * learning.left * first
        if is_learned and step % ENDINGS_EVERY_STEPS == 0 or step == OVERFIT_STEPS - 1:
            ended = endings.count_ended(model, asked, bench.ends)
            if is_learned and ended == len(asked):
                break
    said = f"loss {first:.4g} -> {last:.4g}"
    if imitates:
        said += f", {ended} of {len(asked)} answers come to their end"
    return Result("overfit", last <= learning.left * first and ended == len(asked), said)


def resume(bench: Bench) -> Result:
    """Taken up from a checkpoint, the next step has the loss that it had without a break."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        expected = _train(bench, folder, rows=bench.rows_at_once, steps=3).losses[3]
        shutil.rmtree(folder / "checkpoint-3")
        again = _train(bench, folder, rows=bench.rows_at_once, steps=3).losses
    most = RESUME_TOLERANCE[bench.spec.base.dtype]
    off = abs(again[3] - expected) if list(again) == [3] else math.inf
    return Result("resume", off <= most, f"the loss is off by {off:.2g}, at most {most:g}")


def failed(results: list[Result]) -> list[Result]:
    """Return those that did not pass."""
    return [each for each in results if not each.passed]


def _train(
    bench: Bench, folder: Path, *, rows: int, steps: int, packing: bool | None = None
) -> Watch:
    """Run the trainer of the run itself for a few steps of all rows, so many at once."""
    from training.callbacks import Watch

    asked = bench.spec.schedule
    changes: dict[str, Any] = {
        "saving": asked.saving.model_copy(update={"every_steps": 1, "keep": steps}),
        "scheduler": "constant",
        "packing": asked.packing if packing is None else packing,
    }
    schedule = asked.model_copy(update=changes)
    spec = bench.spec.model_copy(update={"schedule": schedule})
    batches = {
        **(bench.lock.batches or {}),
        "rows_per_device": rows,
        "accumulation": bench.rows.rows // rows,
        "steps": steps,
    }
    material = trainer.Material(
        spec, bench.fresh(), bench.tokenizer, bench.rows, None, replace(bench.lock, batches=batches)
    )
    watch = Watch(Sentinel(spec.schedule.abort), lambda _: None, on_sigterm=False)
    built = trainer.build(material, folder, callbacks=[watch.as_callback()], device=bench.device)
    trainer.run(built, folder, watch=watch, note=lambda _: None)
    return watch


def _ready(bench: Bench) -> Any:
    """Return a fresh model that takes no more memory than in the run.

    Losses are computed in tiles, and activations are made twice, as planned.
    """
    model = bench.fresh()
    bench.learning.ready(model)
    if bench.lock.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def _loss(model: Any, bench: Bench, *, learns: bool = False) -> float:
    """Return the mean loss of the batch, a row at a time."""
    torch = require("torch", extra="finetune")
    dtype, learning = bench.spec.base.dtype, bench.learning
    autocast = torch.autocast(model.device.type, getattr(torch, dtype), enabled=dtype != "float32")
    whole, total = learning.weight(bench.rows), 0.0
    for row in (bench.rows.at([place]) for place in range(bench.rows.rows)):
        with autocast:
            loss = learning.loss(model, row) * (learning.weight(row) / whole)
        if learns:
            loss.backward()
        total += float(loss.detach())
    return total


def _trained(model: Any) -> list[Any]:
    return [each for each in model.parameters() if each.requires_grad]


def _optimizer(model: Any, rate: float) -> Any:
    torch = require("torch", extra="finetune")
    return torch.optim.AdamW(_trained(model), lr=rate)


def _step(model: Any, optimizer: Any, bench: Bench) -> float:
    optimizer.zero_grad()
    loss = _loss(model, bench, learns=True)
    optimizer.step()
    return loss


def _digest(weight: Any) -> bytes:
    """Return a digest of a weight: a copy of each would take the room of the model again."""
    torch = require("torch", extra="finetune")
    values = weight.detach().flatten().contiguous().view(torch.uint8).cpu().numpy()
    return hashlib.sha256(values).digest()


def _without_dropout(model: Any) -> Any:
    torch = require("torch", extra="finetune")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def _stretched(rows: Tokenized, length: int) -> Tokenized:
    """Return rows that are said over and over until they are as long as rows may be."""

    def fill(row: list[int]) -> list[int]:
        return (row * (length // len(row) + 1))[:length]

    return replace(rows, ids=list(map(fill, rows.ids)), labels=list(map(fill, rows.labels)))
