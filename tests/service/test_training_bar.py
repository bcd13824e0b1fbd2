"""The progress bar of a training, as it is drawn on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from service.cli.training_bar import bar
from training.callbacks import Progress


class Screen(io.StringIO):
    def __init__(self, *, is_watched: bool) -> None:
        super().__init__()
        self._is_watched = is_watched

    def isatty(self) -> bool:
        return self._is_watched


def drawn(monkeypatch: pytest.MonkeyPatch, *, is_watched: bool) -> str:
    screen = Screen(is_watched=is_watched)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with bar() as draw:
        draw(Progress(3, 10, 0.5, 1234.0, 75.0, {}))
    return screen.getvalue()


def test_who_watches_sees_steps_loss_speed_and_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = drawn(monkeypatch, is_watched=True)
    for words in ("step 3/10", "loss 0.5", "1,234 tokens/s", "1:15 left"):
        assert words in shown
    assert drawn(monkeypatch, is_watched=False) == ""
