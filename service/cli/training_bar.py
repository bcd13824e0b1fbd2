"""The progress bar of a training: steps, loss, tokens a second, the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.cli.output import console

if TYPE_CHECKING:
    from training.callbacks import Progress


@contextmanager
def bar(*, has_tokens: bool = True) -> Iterator[Callable[[Progress], None]]:
    """Draw steps, loss, speed and the time that is left, if someone is watching.

    Where nobody counts tokens, there is no speed.
    """
    from rich import progress

    columns = [
        progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        progress.BarColumn(bar_width=30),
        progress.TextColumn("loss {task.fields[loss]:.4g}"),
        progress.TextColumn("{task.fields[left]} left"),
    ]
    if has_tokens:
        columns.insert(3, progress.TextColumn("{task.fields[speed]:,.0f} tokens/s"))
    is_watched = sys.stderr.isatty()
    with progress.Progress(
        *columns, console=console(sys.stderr), transient=True, disable=not is_watched
    ) as bar:
        task = bar.add_task("", total=None, loss=0.0, speed=0.0, left="", visible=False)

        def tell(told: Progress) -> None:
            bar.update(
                task,
                total=told.steps,
                completed=told.step,
                visible=True,
                loss=told.loss,
                speed=told.tokens_per_second,
                left=_clock(told.seconds_left),
            )

        yield tell


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
