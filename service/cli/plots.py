"""Draws metrics in the terminal: dots of braille for one line, letters for several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.cli.figures import Line

LETTERS = "abcdefghijklmnopqrst"
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character by row and column."""
_MARGIN = 11


def draw(lines: Sequence[Line], *, width: int = 80, height: int = 12) -> list[str]:
    """Return a plot as rows of text; of every stretch, the lowest and highest value are drawn."""
    spots = [_spots(line) for line in lines]
    every = [spot for each in spots for spot in each]
    if not every:
        return ["(no finite values)"]
    steps = [step for step, _ in every]
    values = [value for _, value in every]
    columns = max(width - _MARGIN - 1, 8)
    if len(lines) == 1:
        place = _placing(steps, values, columns=2 * columns, rows=4 * height)
        cells = _braille(spots[0], place, columns=columns, rows=height)
    else:
        place = _placing(steps, values, columns=columns, rows=height)
        cells = _letters(spots, place, columns=columns, rows=height)
    labels = {0: _short(max(values)), height - 1: _short(min(values))}
    drawn = [
        f"{labels.get(number, ''):>{_MARGIN - 2}} \N{BOX DRAWINGS LIGHT VERTICAL}{row}".rstrip()
        for number, row in enumerate(cells)
    ]
    first, last = str(min(steps)), str(max(steps))
    between = max(columns - len(first) - len(last), 1)
    drawn.append(f"{' ' * _MARGIN}{first}{' ' * between}{last}")
    if len(lines) > 1:
        drawn += [f"{' ' * _MARGIN}{LETTERS[i]}  {line.label}" for i, line in enumerate(lines)]
    return drawn


def _spots(line: Line) -> list[tuple[int, float]]:
    return [
        (bucket.last_step, value)
        for bucket in line.buckets
        for value in (bucket.low, bucket.high, bucket.last)
        if math.isfinite(value)
    ]


def _placing(
    steps: Sequence[int], values: Sequence[float], *, columns: int, rows: int
) -> Callable[[int, float], tuple[int, int]]:
    left, right = min(steps), max(steps)
    bottom, top = min(values), max(values)
    # Halved, so that the distance of two numbers that are both very large is one.
    reach = top / 2 - bottom / 2

    def place(step: int, value: float) -> tuple[int, int]:
        across = (step - left) / (right - left) if right > left else 0.0
        up = (value / 2 - bottom / 2) / reach if reach else 0.5
        return round(across * (columns - 1)), rows - 1 - round(up * (rows - 1))

    return place


def _braille(
    spots: Sequence[tuple[int, float]],
    place: Callable[[int, float], tuple[int, int]],
    *,
    columns: int,
    rows: int,
) -> list[str]:
    bits = [[0] * columns for _ in range(rows)]
    for spot in spots:
        x, y = place(*spot)
        bits[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return ["".join(chr(_BRAILLE + cell) if cell else " " for cell in row) for row in bits]


def _letters(
    spots: Sequence[Sequence[tuple[int, float]]],
    place: Callable[[int, float], tuple[int, int]],
    *,
    columns: int,
    rows: int,
) -> list[str]:
    cells = [[" "] * columns for _ in range(rows)]
    for letter, each in zip(LETTERS, spots, strict=False):
        for spot in each:
            x, y = place(*spot)
            cells[y][x] = letter if cells[y][x] in {" ", letter} else "*"
    return ["".join(row) for row in cells]


def _short(value: float) -> str:
    return f"{value:.4g}"
