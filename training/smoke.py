"""Smoke checks: minutes on the real device that tell whether hours there are worth it."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.plugins import require
from training import adapted_model, endings, exhaustion, peak_memory, ranks
from training.bench import ROWS, Bench, make_steps
from training.exhaustion import OutOfMemory
from training.memory import CONTEXT_BYTES
from training.sentinel import Aborted
from training.tokenized import Tokenized

ADAPTER = "default"
GIB = 2**30
OVERFIT_STEPS = 60
OVERFIT_FASTER = 5.0
"""Times the learning rate of the run, for one batch is to be learned by heart."""
OVERFIT_FASTEST = 1e-2
"""Unless the run itself is faster: beyond it, steps overshoot."""
ENDINGS_EVERY_STEPS = 5
"""How often answers are decoded once the loss is low, until all of them end."""
ACCUMULATION_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}
RESUME_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 1e-2}
ROWS_OF_PACK = 2
"""Of the packs that memory is measured by: a pack of one row needs no mask."""
SCALING_STEPS = 8
"""Of float16, before some of them move a weight: each that overflows only halves the scale."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found."""

    name: str
    passed: bool
    said: str
    """The figures it decided by."""


def check(bench: Bench) -> list[Result]:
    """Return what every check finds in one process."""
    return [_found(each, bench) for each in CHECKS]


def tried(check: Callable[[Bench], Result], bench: Bench) -> Result:
    """Return what a check finds, and let go of its models.

    Raises:
        Aborted: a rule ended it.
        OutOfMemory: the device has not enough memory.
    """
    try:
        with exhaustion.told():
            return check(bench)
    finally:
        adapted_model.let_go()


def _found(check: Callable[[Bench], Result], bench: Bench) -> Result:
    try:
        return tried(check, bench)
    except (Aborted, OutOfMemory) as error:
        return Result(check.__name__, False, error.message)


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
    """After a step of the run's own the base is what it was, and some of the adapter is not."""
    model, rows = bench.fresh(), bench.rows_at_once
    before = _digests(model)
    steps = SCALING_STEPS if bench.spec.base.dtype == "float16" else 1
    with bench.scratch() as scratch:
        make_steps(replace(bench, fresh=lambda: model), Path(scratch), rows=rows, steps=steps)
    moved = [name for name, digest in _digests(model).items() if digest != before[name]]
    # Whatever may be trained: peft writes the name of the adapter into the names of its weights.
    trained = {name for name in before if ADAPTER in name.split(".")}
    strays = sorted(set(moved) - trained)
    said = f"{len(moved)} of {len(trained)} adapter tensors moved"
    if strays:
        said = f"{len(strays)} tensors of the base moved, such as {strays[0]!r}"
    return Result("only_adapter", bool(moved) and not strays, said)


def memory(bench: Bench) -> Result:
    """A step of as many rows, as long as they may be, fits; how near it comes to the estimate.

    Of several processes it is the one that takes most.
    """
    planned, peaks = (bench.lock.memory or {}).get("total", 0), ranks.of_all(peak(bench))
    if bench.device != "cpu":
        planned -= round(CONTEXT_BYTES)  # which is not PyTorch's to count
    found = max(peaks)
    said = f"{found / GIB:.3g} GiB at the peak, {found / max(planned, 1):.2f} of the estimate"
    if len(peaks) > 1:
        said += f", in process {peaks.index(found)} of {len(peaks)}"
    return Result("memory", True, said)


def peak(bench: Bench) -> int:
    """Return the bytes that the run's own steps take at their peak in this process.

    In the second one, what the optimiser keeps of weights is there beside activations.
    """
    count = int((bench.lock.batches or {}).get("rows_per_device", 1))
    each = ROWS_OF_PACK if bench.spec.schedule.packing else 1
    long = _stretched(bench.rows, bench.spec.data.max_length // each).sample(each * count, seed=0)
    *others, last = long.ids
    if others:  # of other lengths, rows need a mask
        *marked, ends = long.labels
        long = replace(long, ids=[*others, last[:-1]], labels=[*marked, ends[:-1]])
    model = bench.fresh()
    with bench.scratch() as scratch, peak_memory.measured(model) as found:
        whole = replace(bench, rows=long, fresh=lambda: model)
        make_steps(whole, Path(scratch), rows=count, steps=2)
    return found.bytes


def accumulation(bench: Bench) -> Result:
    """Batches of few rows, several for each step, give the loss and gradient of all at once.

    These are the sums of what each row gives by itself, which takes no room for all of them. Of
    several processes each makes these sums of all rows, and of the step only its share.
    Dropout is off: the two ways would draw otherwise.
    """
    torch = require("torch", extra="finetune")
    quiet = replace(bench, fresh=lambda: _without_dropout(bench.fresh()))
    model = _ready(quiet).train()
    loss = _loss(model, quiet, learns=True)
    norm = float(torch.nn.utils.get_total_norm([each.grad for each in _trained(model)]))
    del model
    share = math.gcd(bench.rows_at_once, ROWS // 2)
    with bench.scratch() as scratch:
        several = make_steps(
            quiet, Path(scratch), rows=share, steps=1, batches=2, packing=False
        ).watch
    ours, off = several.grad_norms[1], abs(several.losses[1] / loss - 1)
    if math.isfinite(ours) or bench.spec.base.dtype != "float16":  # whose first scales overflow
        off = max(off, abs(ours / max(norm, 1e-12) - 1))
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
    """Taken up from a checkpoint, the next step has the loss that it had without a break.

    It leaves the optimiser with the same moments, too: without them the next loss is the same, and
    all after it are not.
    """
    rows = bench.rows_at_once
    with bench.scratch() as scratch:
        folder = Path(scratch)
        whole = make_steps(bench, folder, rows=rows, steps=3)
        expected, moments = whole.watch.losses[3], whole.moments()
        del whole
        ranks.told_by_first(lambda: shutil.rmtree(folder / "checkpoint-3"))
        again = make_steps(bench, folder, rows=rows, steps=3)
    most = RESUME_TOLERANCE[bench.spec.base.dtype]
    losses = again.watch.losses
    off = abs(losses[3] - expected) if list(losses) == [3] else math.inf
    said = f"the loss is off by {off:.2g}, at most {most:g}"
    if forgotten := _forgotten(moments, again.moments(), bench.spec.base.dtype):
        said = f"the optimiser does not go on with {', '.join(forgotten)}"
    return Result("resume", off <= most and not forgotten, said)


CHECKS = (initial_loss, only_adapter, memory, accumulation, overfit, resume)
"""In the order of their cost."""


def failed(results: list[Result]) -> list[Result]:
    """Return those that did not pass."""
    return [each for each in results if not each.passed]


def _forgotten(before: dict[str, float], now: dict[str, float], dtype: str) -> list[str]:
    """Return the names of moments that are not what they were."""
    most = ACCUMULATION_TOLERANCE[dtype]
    return sorted(
        name
        for name, norm in before.items()
        if not math.isclose(now.get(name, math.inf), norm, rel_tol=most, abs_tol=1e-30)
    )


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


def _digests(model: Any) -> dict[str, bytes]:
    """Return digests of weights, or of this process's parts: copies would take the room again."""
    adapted_model.reshard(model)
    return {name: _digest(peak_memory.own(each)) for name, each in model.named_parameters()}


def _digest(weight: Any) -> bytes:
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
