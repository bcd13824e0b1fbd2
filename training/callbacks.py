"""What the trainer calls at each step: rules are held, progress is told, checkpoints are sealed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infra.plugins import require
from training import checkpoints, ranks
from training.sentinel import Sentinel

SAME_EVERY_STEPS = 200
"""How often all processes are asked whether they hold the same adapter, after the first step."""

UNTOLD = ("runtime", "_per_second", "num_tokens")
"""Ends of names of what says nothing of the model."""

EVENTS = (
    "on_train_begin", "on_step_end", "on_log", "on_evaluate", "on_save", "on_train_end",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    """Of real text, over all devices, since the training began here."""
    seconds_left: float
    metrics: dict[str, float]
    """What the trainer told of this step."""
    tokens: float = 0.0
    """Of real text, over all devices, in all steps since the training began here."""
    seconds: float = 0.0
    """That these steps took, without evaluations and checkpoints between them."""


class Pace:
    """How long steps take, without what is done between them.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._since = clock()

    def begin(self) -> None:
        """Begin a step now; what came since the last one is not counted."""
        self._since = self._clock()

    def end(self) -> None:
        """End a step, after which the next one begins."""
        before, self._since = self._since, self._clock()
        self.seconds += self._since - before


class Watch:
    """Watches one training.

    Args:
        sentinel: ends it when a rule is broken.
        tell: is told of each step, in the first process only.
        evaluated: is told what was measured on the rows that are held out, and after which step.
        on_sigterm: whether the request to go makes a checkpoint first.
        gradients_may_overflow: as with float16, whose scaler then skips the step.
        counters: processes that count the same tokens.
    """

    def __init__(
        self,
        sentinel: Sentinel,
        tell: Callable[[Progress], None],
        *,
        evaluated: Callable[[int, dict[str, float]], None] = lambda *_: None,
        on_sigterm: bool = True,
        gradients_may_overflow: bool = False,
        counters: int = 1,
    ) -> None:
        self.losses: dict[int, float] = {}
        """By the step."""
        self.grad_norms: dict[int, float] = {}
        self.metrics: dict[str, float] = {}
        """Of the last step."""
        self.was_asked_to_go = False
        self.tokens = 0.0
        self.seconds = 0.0
        self.pace = Pace()
        """Of the steps so far."""
        self._sentinel = sentinel
        self._tell = tell
        self._evaluated = evaluated
        self._on_sigterm = on_sigterm
        self._gradients_may_overflow = gradients_may_overflow
        self._counters = counters
        self._asked = threading.Event()
        self._handler: Any = None
        self._began = 0.0
        self._first_step = 0
        self._tokens_before: float | None = None

    def as_callback(self) -> Any:
        """Return what transformers' trainer takes."""
        callback = require("transformers", extra="finetune").TrainerCallback()
        for event in EVENTS:
            setattr(callback, event, getattr(self, event))
        return callback

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        self._began, self._first_step = time.monotonic(), state.global_step
        self.pace.begin()
        if self._on_sigterm and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, state, control
        self.seconds = time.monotonic() - self._began
        self.release()

    def release(self) -> None:
        """Give the signal back to whoever had it."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del args
        # Each process is asked to go at a moment of its own; all must stop after the same step.
        if ranks.any_of(self._asked.is_set()):
            self.was_asked_to_go = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True
        is_first_here = state.global_step == self._first_step + 1
        if is_first_here or state.global_step % SAME_EVERY_STEPS == 0:
            ranks.check_same_adapter(given["model"], step=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        del args, control
        if "eval_loss" in logs and state.is_world_process_zero:
            self._evaluated(state.global_step, measured(logs))
        if "loss" not in logs:
            return
        step, loss = state.global_step, float(logs["loss"])
        self.metrics = _numbers(logs)
        self.losses[step] = loss
        norm = logs.get("grad_norm")
        if norm is not None:
            self.grad_norms[step] = float(norm)
        looked_at = None if norm is None or self._gradients_may_overflow else float(norm)
        # All have the same figures, and clocks of their own.
        ranks.told_by_first(partial(self._sentinel.look, step, loss=loss, grad_norm=looked_at))
        self._count(float(logs.get("num_tokens", 0.0)) / self._counters)
        passed = max(time.monotonic() - self._began, 1e-9)
        done = step - self._first_step
        if state.is_world_process_zero:
            left = passed / max(1, done) * (state.max_steps - step)
            speed = self.tokens / passed
            took = (self.tokens, self.pace.seconds)
            self._tell(Progress(step, state.max_steps, loss, speed, left, self.metrics, *took))

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, state, control
        self.pace.begin()

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del control
        ranks.check_same_adapter(given["model"], step=state.global_step)
        if state.is_world_process_zero:
            checkpoints.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.pace.begin()

    def _count(self, total: float) -> None:
        if self._tokens_before is None and self._first_step > 0:
            self._tokens_before = total  # with those of this step, which nobody tells apart
            self.pace.begin()
            return
        self.pace.end()
        self.tokens = total - (self._tokens_before or 0.0)


def measured(logs: Any) -> dict[str, float]:
    """Return what an evaluation found, such as `eval_loss`, without what it took."""
    found = _numbers(logs)
    return {
        name: value
        for name, value in found.items()
        if name.startswith("eval_") and not name.endswith(UNTOLD)
    }


def _numbers(logs: Any) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
