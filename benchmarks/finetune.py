"""A fine-tuning beside plain TRL with the same settings: tokens a second, the same losses."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.options import Options
from benchmarks.preflight import VOCABULARY, write_base, write_rows
from benchmarks.table import Bar, Row, Spread
from infra.plugins import require
from training import adapted_model, planning, resolving, spec, trainer
from training.callbacks import Watch
from training.lock import Lock
from training.places import Places
from training.resolving import Resolved
from training.sentinel import Sentinel

BAR = Bar(0.97, at_least=True)
STEPS = 20
QUICK_ROUNDS, QUICK_STEPS = 1, 4
ROWS = 256
SEED = 7
SAME_LOSS = 1e-4


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


def run(options: Options) -> list[Row]:
    """Train the same adapter on the same rows, in turns, so that a busy machine is fair to both."""
    rounds, steps = (QUICK_ROUNDS, QUICK_STEPS) if options.quick else (options.repeats, STEPS)
    _write(options.folder)
    asked = spec.parse(_specification(steps))
    places = Places(options.folder, None, None, Path)
    planned = planning.plan(asked, places)
    planned.require_sound()
    resolved = resolving.resolve(asked, places, planned.lock)
    ours, plain = [], []
    for number in range(rounds):
        options.say(f"round {number + 1} of {rounds}")
        folder = options.folder / f"round-{number}"
        ours.append(_ours(_material(asked, resolved, planned.lock), folder / "ours"))
        plain.append(_plain(_material(asked, resolved, planned.lock), folder / "plain"))
        if not _are_same(ours[-1], plain[-1]):
            raise AssertionError(f"not the same training: {ours[-1]!r} and {plain[-1]!r}")
    speeds, theirs = [tuple(each.speed for each in timed) for timed in (ours, plain)]
    shares = tuple(mine / other for mine, other in zip(speeds, theirs, strict=True))
    return [
        Row("tokens a second", Spread(speeds), Spread(theirs), "TRL", unit="1/s"),
        Row(
            "our share of TRL's",
            Spread(shares),
            bar=None if options.quick else BAR,
            note=f"{steps} steps of 8 rows; the same mean loss to {SAME_LOSS:g}",
        ),
    ]


def _are_same(ours: Timed, plain: Timed) -> bool:
    return ours.tokens == plain.tokens and abs(ours.loss - plain.loss) <= SAME_LOSS


def _ours(material: trainer.Material, folder: Path) -> Timed:
    watch = Watch(Sentinel(material.spec.schedule.abort), lambda _: None, on_sigterm=False)
    built = trainer.build(material, folder, callbacks=[watch.as_callback()], device="cpu")
    started = time.perf_counter()
    trainer.run(built, folder, watch=watch, note=lambda _: None)
    seconds = time.perf_counter() - started
    return Timed(watch.tokens, seconds, fmean(watch.losses.values()))


def _plain(material: trainer.Material, folder: Path) -> Timed:
    """Return what TRL takes without any callback of ours, telling of itself as it does."""
    trl = require("trl", extra="finetune")
    settings = trainer.arguments(material, folder, device="cpu")
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


def _material(asked: spec.FineTuning, found: Resolved, lock: Lock) -> trainer.Material:
    base = adapted_model.load_base(asked.base, found.base.folder, device="cpu")
    model = adapted_model.attach(base, asked.method, seed=asked.seed)
    return trainer.Material(asked, model, found.tokenizer, found.train, None, lock)


def _write(folder: Path) -> None:
    """Write a model of four layers with random weights, and rows of made-up words."""
    transformers = require("transformers", extra="finetune")
    torch = require("torch", extra="finetune")
    chance = random.Random(SEED)
    words = ["".join(chance.choices("abcdefghij", k=5)) for _ in range(2_000)]
    write_base(folder / "base", words)
    config = transformers.LlamaConfig(
        hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(SEED)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "base")
    write_rows(folder / "train.jsonl", words, chance, count=ROWS)


def _specification(steps: int) -> dict[str, Any]:
    return {
        "name": "benchmark",
        "base": {"model": "base", "dtype": "float32"},
        "data": {"train": {"rows": "train.jsonl"}},
        "schedule": {
            "rows_per_step": 8,
            "steps": steps,
            "saving": {"every_steps": steps},
        },
        "runtime": {"device": "cpu"},
    }
