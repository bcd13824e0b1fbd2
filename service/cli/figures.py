"""Writes metrics as an SVG picture, or as an HTML page that holds it; nothing is loaded by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import InvalidRequest

if TYPE_CHECKING:
    from infra.tracking.points import Bucket

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800")
"""Okabe and Ito's, which most people can tell apart."""
WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 20, 34, 34
TICKS = 5
LEGEND_LINE = 18
Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    buckets: Sequence[Bucket]


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric, of one run or several."""

    title: str
    lines: Sequence[Line]

    @property
    def height(self) -> int:
        return HEIGHT + (LEGEND_LINE * len(self.lines) if len(self.lines) > 1 else 0)


def write(path: Path, charts: Sequence[Chart]) -> None:
    """Write a picture; its form is the file's ending.

    Raises:
        InvalidRequest: the file's name ends in neither `.svg` nor `.html`.
    """
    suffix = path.suffix.lower()
    if suffix not in {".svg", ".html"}:
        raise InvalidRequest(
            f"{path.name!r} ends in neither .svg nor .html; write --plot runs.svg", parameter="plot"
        )
    picture = draw(charts)
    if suffix == ".html":
        picture = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Runs</title>'
            f"<body>{picture}</body></html>"
        )
    path.write_text(f"{picture}\n", encoding="utf-8")


def draw(charts: Sequence[Chart]) -> str:
    """Return an SVG document with the charts below each other."""
    total = sum(chart.height for chart in charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" '
        f'viewBox="0 0 {WIDTH} {total}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    top = 0
    for chart in charts:
        parts += [f'<g transform="translate(0 {top})">', *_chart(chart), "</g>"]
        top += chart.height
    return "\n".join([*parts, "</svg>"])


def _chart(chart: Chart) -> Iterator[str]:
    yield _text(LEFT, 20, chart.title, anchor="start", weight="bold")
    shown = [bucket for line in chart.lines for bucket in line.buckets]
    values = [
        value
        for bucket in shown
        for value in (bucket.low, bucket.high, bucket.last)
        if math.isfinite(value)
    ]
    if not values:
        yield _text(WIDTH / 2, HEIGHT / 2, "no finite values")
        return
    steps = _spread(min(b.first_step for b in shown), max(b.last_step for b in shown))
    heights = _spread(min(values), max(values))

    def place(step: float, value: float) -> Place:
        across = (step / 2 - steps[0] / 2) / (steps[1] / 2 - steps[0] / 2)
        up = (value / 2 - heights[0] / 2) / (heights[1] / 2 - heights[0] / 2)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (
            HEIGHT - TOP - BOTTOM
        )

    yield from _axes(steps, heights, place)
    for number, line in enumerate(chart.lines):
        colour = COLOURS[number % len(COLOURS)]
        yield from _line(line, place, colour)
        if len(chart.lines) > 1:
            height = HEIGHT + LEGEND_LINE * number
            yield f'<rect x="{LEFT}" y="{height}" width="12" height="4" fill="{colour}"/>'
            yield _text(LEFT + 20, height + 6, line.label, anchor="start")


def _axes(steps: Place, heights: Place, place: Callable[[float, float], Place]) -> Iterator[str]:
    for number in range(TICKS):
        share = number / (TICKS - 1)
        value = heights[0] * (1 - share) + heights[1] * share
        step = steps[0] * (1 - share) + steps[1] * share
        _, y = place(steps[0], value)
        x, _ = place(step, heights[0])
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        yield _text(LEFT - 6, y + 4, f"{value:.4g}", anchor="end")
        yield _text(x, HEIGHT - BOTTOM + 18, f"{step:.10g}")


def _line(line: Line, place: Callable[[float, float], Place], colour: str) -> Iterator[str]:
    """Draw the last values, over a band from the lowest to the highest; NaN leaves a gap."""
    for is_drawn, group in groupby(line.buckets, lambda bucket: math.isfinite(bucket.last)):
        if not is_drawn:
            continue
        stretch = list(group)
        course = [place(bucket.last_step, bucket.last) for bucket in stretch]
        upper = [place(bucket.last_step, _finite(bucket.high, bucket.last)) for bucket in stretch]
        lower = [place(bucket.last_step, _finite(bucket.low, bucket.last)) for bucket in stretch]
        if upper != lower:
            yield (
                f'<path d="{_path([*upper, *reversed(lower)])}Z" fill="{colour}" opacity="0.2"/>'
            )
        if len(course) == 1:
            yield f'<circle cx="{course[0][0]:.1f}" cy="{course[0][1]:.1f}" r="3" fill="{colour}"/>'
        else:
            yield f'<path d="{_path(course)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _path(places: Sequence[Place]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _finite(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise


def _spread(low: float, high: float) -> Place:
    """Return the two, apart from each other."""
    if low / 2 < high / 2:  # not so for the two smallest numbers there are
        return low, high
    distance = abs(low) * 0.1 or 1.0
    return low - distance, low + distance


def _text(x: float, y: float, text: str, *, anchor: str = "middle", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
