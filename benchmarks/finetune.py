"""A fine-tuning beside plain TRL with the same settings: speed, MFU, memory, the same losses."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.options import Options
from benchmarks.preflight import VOCABULARY, write_base, write_rows
from benchmarks.table import Bar, Row, Spread
from infra.errors import InvalidRequest
from infra.plugins import require
from training import (
    adapted_model,
    bench,
    peak_memory,
    planning,
    resolving,
    smoke,
    spec,
    trainer,
    usage,
)
from training.accelerators import GIB, device_here, tflops_of
from training.callbacks import Watch
from training.lock import Lock
from training.memory import CONTEXT_BYTES
from training.places import Places
from training.resolving import Resolved
from training.sentinel import Sentinel

BAR = Bar(0.97, at_least=True)
STEPS = 20
QUICK_ROUNDS, QUICK_STEPS = 1, 4
ROWS = 256
SEED = 7
SAME_LOSS = {"float32": 1e-4, "bfloat16": 2e-2}
"""By which mean losses may differ; sums on GPUs come in another order each time."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model with random weights, and the rows that it learns."""

    sizes: dict[str, Any]
    dtype: str
    rows_per_step: int
    answer_words: int
    max_length: int


SHAPES = {
    "tiny": Shape(
        {
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 8192,
        },
        "float32", rows_per_step=4, answer_words=40, max_length=128,
    ),
    "small": Shape(
        {
            "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        },
        "float32", rows_per_step=8, answer_words=120, max_length=256,
    ),
    "1b": Shape(
        {
            "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
            "tie_word_embeddings": True,
        },
        "bfloat16", rows_per_step=32, answer_words=1600, max_length=2048,
    ),
    "8b": Shape(
        {
            "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        },
        "bfloat16", rows_per_step=16, answer_words=1600, max_length=2048,
    ),
}  # fmt: skip
"""The larger ones as the published configurations of Llama 3.2 1B and Llama 3.1 8B have them."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One training."""

    tokens: float
    seconds: float
    loss: float
    """On average over all steps."""

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Case:
    """One shape on one device, with what is to be trained on it."""

    name: str
    asked: spec.FineTuning
    resolved: Resolved
    lock: Lock
    device: str

    def material(self, *, steps: int | None = None) -> trainer.Material:
        """Load the base anew and give it an adapter, for as many steps as planned or fewer."""
        adapted_model.let_go()
        base = adapted_model.load_base(
            self.asked.base, self.resolved.base.folder, device=self.device
        )
        model = adapted_model.attach(base, self.asked.method, seed=self.asked.seed)
        batches = {**(self.lock.batches or {}), **({"steps": steps} if steps else {})}
        rows, tokenizer = self.resolved.train, self.resolved.tokenizer
        lock = replace(self.lock, batches=batches)
        return trainer.Material(self.asked, model, tokenizer, rows, None, lock)


Train = Callable[[trainer.Material, Path, str], Timed]


def run(options: Options) -> list[Row]:
    """Measure the shape that is asked for; else a small one, or the large ones on a GPU."""
    if options.shape is not None and options.shape not in SHAPES:
        raise InvalidRequest(f"No shape {options.shape!r}; there are {', '.join(SHAPES)}")
    device = adapted_model.device_of("auto")
    names = ["tiny" if options.quick else "small"] if device == "cpu" else ["1b", "8b"]
    rows = []
    for name in names if options.shape is None else [options.shape]:
        steps = QUICK_STEPS if options.quick else STEPS
        case = _case(name, options.folder / name, device=device, steps=steps)
        rows += [*_speed(case, options, steps), *_memory(case, options)]
    return rows


def _speed(case: Case, options: Options, steps: int) -> list[Row]:
    """Train the same adapter on the same rows, in turns, so that a busy machine is fair to both."""
    ours, plain = [], []
    rounds = QUICK_ROUNDS if options.quick else options.repeats
    most = SAME_LOSS[case.asked.base.dtype]
    for number in range(rounds):
        options.say(f"{case.name}: round {number + 1} of {rounds}")
        folder = options.folder / case.name / f"round-{number}"
        ours.append(_ours(case.material(), folder / "ours", case.device))
        plain.append(_plain(case.material(), folder / "plain", case.device))
        if ours[-1].tokens != plain[-1].tokens or abs(ours[-1].loss - plain[-1].loss) > most:
            raise AssertionError(f"not the same training: {ours[-1]!r} and {plain[-1]!r}")
    speeds, theirs = [tuple(each.speed for each in timed) for timed in (ours, plain)]
    shares = tuple(mine / other for mine, other in zip(speeds, theirs, strict=True))
    note = f"{steps} steps of {case.asked.schedule.rows_per_step} rows; the same mean loss"
    bar = None if options.quick else BAR
    return [
        Row(f"{case.name}: tokens a second", Spread(speeds), Spread(theirs), "TRL", unit="1/s"),
        Row(
            f"{case.name}: our share of TRL's",
            Spread(shares),
            bar=bar,
            note=f"{note} to {most:g}",
        ),
        _utilisation(case, speeds, theirs),
    ]


def _utilisation(case: Case, ours: tuple[float, ...], theirs: tuple[float, ...]) -> Row:
    name, tflops = f"{case.name}: MFU", tflops_of(case.asked.runtime, device_here())
    if tflops is None:
        return Row(name, None, note="no data sheet says what this device can do")
    each = usage.operations(case.resolved.base.shape, case.asked.method.type) / (tflops * 1e10)
    mine, others = (Spread(tuple(speed * each for speed in some)) for some in (ours, theirs))
    return Row(name, mine, others, "TRL", unit="%")


def _memory(case: Case, options: Options) -> list[Row]:
    """Measure memory in short trainings of its own: on processors, following it takes time."""
    options.say(f"{case.name}: memory")
    mine, theirs = (_peak(case, train, options.folder / case.name) for train in (_ours, _plain))
    tried = bench.Bench(
        case.asked,
        case.resolved.train.sample(bench.ROWS, seed=SEED),
        case.resolved.tokenizer,
        case.lock,
        case.device,
        lambda: case.material().model,
    )
    planned = (case.lock.memory or {}).get("total", 0)
    planned -= 0 if case.device == "cpu" else round(CONTEXT_BYTES)  # which is not PyTorch's
    share = Spread((smoke.peak(tried) / max(planned, 1),))
    note = f"of rows of {case.asked.data.max_length} tokens; within 0.15 of 1 is asked for"
    peaks = Spread((mine / GIB,)), Spread((theirs / GIB,))
    return [
        Row(f"{case.name}: memory at the peak", *peaks, "TRL", unit="GiB"),
        Row(f"{case.name}: memory, measured of the estimate", share, note=note),
    ]


def _peak(case: Case, train: Train, folder: Path) -> int:
    material = case.material(steps=1)
    with peak_memory.measured(material.model) as found:
        train(material, folder / f"peak{train.__name__}", case.device)
    return found.bytes


def _ours(material: trainer.Material, folder: Path, device: str) -> Timed:
    watch = Watch(Sentinel(material.spec.schedule.abort), lambda _: None, on_sigterm=False)
    built = trainer.build(material, folder, callbacks=[watch.as_callback()], device=device)
    started = time.perf_counter()
    trainer.run(built, folder, watch=watch, note=lambda _: None)
    seconds = time.perf_counter() - started
    return Timed(watch.tokens, seconds, fmean(watch.losses.values()))


def _plain(material: trainer.Material, folder: Path, device: str) -> Timed:
    """Return what TRL takes without any callback of ours, telling of itself as it does."""
    trl = require("trl", extra="finetune")
    settings = trainer.arguments(material, folder, device=device)
    # Its tokens are told with the loss alone, so the last step has to be one that is told.
    told = math.gcd(10, settings["max_steps"])
    settings |= {"logging_steps": told, "logging_nan_inf_filter": True}
    built = trl.SFTTrainer(
        model=material.model,
        args=trl.SFTConfig(**settings),
        train_dataset=material.train.dataset(),
        processing_class=material.tokenizer,
    )
    built.remove_callback(require("transformers", extra="finetune").PrinterCallback)
    started = time.perf_counter()
    loss = built.train().training_loss
    seconds = time.perf_counter() - started
    last = next(each for each in built.state.log_history[::-1] if "loss" in each)
    return Timed(last["num_tokens"], seconds, loss)


def _case(name: str, folder: Path, *, device: str, steps: int) -> Case:
    config = describe(SHAPES[name], folder)
    _write_weights(SHAPES[name], config, folder, device=device)
    asked = spec.parse(specification(SHAPES[name], steps=steps, device=device))
    places = Places(folder, None, None, Path)
    planned = planning.plan(asked, places)
    planned.require_sound()
    return Case(name, asked, resolving.resolve(asked, places, planned.lock), planned.lock, device)


def describe(shape: Shape, folder: Path) -> Any:
    """Write what a plan reads: a model without its weights, and rows of made-up words."""
    transformers = require("transformers", extra="finetune")
    chance = random.Random(SEED)
    words = ["".join(chance.choices("abcdefghij", k=5)) for _ in range(2_000)]
    folder.mkdir()
    write_base(folder / "base", words)
    config = transformers.LlamaConfig(**shape.sizes, max_position_embeddings=2048)
    config.save_pretrained(folder / "base")
    path = folder / "train.jsonl"
    write_rows(path, words, chance, count=ROWS, answer_words=shape.answer_words)
    return config


def _write_weights(shape: Shape, config: Any, folder: Path, *, device: str) -> None:
    """Make random weights where there is an accelerator for it: nothing is fetched."""
    transformers = require("transformers", extra="finetune")
    torch = require("torch", extra="finetune")
    torch.manual_seed(SEED)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, shape.dtype)
        )
    model.save_pretrained(folder / "base")


def specification(shape: Shape, *, steps: int, device: str) -> dict[str, Any]:
    """Return what is asked for, as YAML would say it."""
    return {
        "name": "benchmark",
        "base": {"model": "base", "dtype": shape.dtype},
        "data": {"train": {"rows": "train.jsonl"}, "max_length": shape.max_length},
        "schedule": {
            "rows_per_step": shape.rows_per_step,
            "steps": steps,
            "saving": {"every_steps": steps},
        },
        "runtime": {"device": device.partition(":")[0]},
    }
