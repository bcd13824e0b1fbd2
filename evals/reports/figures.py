"""Figures of a report as SVG: estimates between their bounds, and distributions of scores."""

from __future__ import annotations

from collections.abc import Sequence

from evals.reports.contents import Curve, Distribution
from evals.reports.elements import Element, element, number
from evals.statistics.intervals import Interval

WIDTH, HEIGHT = 260.0, 22.0
_EDGE = 6.0
_TALL = 84.0
_POINTS = 130
Scale = tuple[float, float]


def scale(values: Sequence[float]) -> Scale:
    """Return the range that figures side by side share, so that they can be compared by eye."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or abs(low) * 0.1 or 0.5
    return low - room, high + room


def strip(
    interval: Interval | None,
    mean: float | None,
    *,
    within: Scale,
    threshold: float | None = None,
    kind: str = "plain",
) -> Element:
    """Return a line from bound to bound with a dot at the estimate, and a mark at the threshold."""
    middle = HEIGHT / 2
    drawn = [element("line", class_="rail", x1=_EDGE, x2=WIDTH - _EDGE, y1=middle, y2=middle)]
    said = "no estimate"
    if interval is not None:
        left, right = _place(interval.low, within), _place(interval.high, within)
        drawn.append(
            element("line", class_=f"reach {kind}", x1=left, x2=right, y1=middle, y2=middle)
        )
        drawn += [
            element("line", class_=f"end {kind}", x1=x, x2=x, y1=middle - 4, y2=middle + 4)
            for x in (left, right)
        ]
        said = f"{number(interval.estimate)}, {number(interval.low)} to {number(interval.high)}"
    if mean is not None:
        drawn.append(
            element("circle", class_=f"dot {kind}", cx=_place(mean, within), cy=middle, r=4)
        )
    if threshold is not None:
        at = _place(threshold, within)
        drawn.append(element("line", class_="threshold", x1=at, x2=at, y1=1, y2=HEIGHT - 1))
        said += f"; threshold {number(threshold)}"
    return _figure(drawn, WIDTH, HEIGHT, said)


def histogram(found: Distribution) -> Element:
    """Return a bar for each bin, with the two ends of the scores below."""
    most = max(found.counts)
    floor, width = _TALL - 16, (WIDTH - 2 * _EDGE) / len(found.counts)
    span = (found.high - found.low) / len(found.counts)
    drawn = []
    for place, count in enumerate(found.counts):
        if not count:
            continue
        # A bin of one trial must be seen beside one of ten thousand.
        tall = max(2.0, count / most * (floor - 14))
        low, high = found.low + place * span, found.low + (place + 1) * span
        title = element("title", f"{number(low)} to {number(high)}: {count:,}")
        left = _EDGE + place * width
        drawn.append(
            element(
                "rect", title, class_="bar", x=left, y=floor - tall, width=width - 1, height=tall
            )
        )
        if count == most:
            at = min(max(left + width / 2, 24.0), WIDTH - 24)
            drawn.append(_label(at, floor - tall - 3, f"{count:,}", "middle"))
    drawn.append(element("line", class_="rail", x1=_EDGE, x2=WIDTH - _EDGE, y1=floor, y2=floor))
    drawn.append(_label(_EDGE, _TALL - 4, number(found.low), "start"))
    drawn.append(_label(WIDTH - _EDGE, _TALL - 4, number(found.high), "end"))
    said = f"{sum(found.counts):,} scores from {number(found.low)} to {number(found.high)}"
    return _figure(drawn, WIDTH, _TALL, said)


def curve(found: Curve) -> Element:
    """Return the risk over the share of cases that are answered, from none on the left to all."""
    top, floor = 14.0, _TALL - 16
    count, highest = len(found.risks), max(found.risks)
    places = sorted({round(k * (count - 1) / (_POINTS - 1)) for k in range(_POINTS)})
    points = [
        (
            round(_EDGE + (place + 1) / count * (WIDTH - 2 * _EDGE), 2),
            round(floor - (found.risks[place] / highest if highest else 0) * (floor - top), 2),
        )
        for place in places
    ]
    drawn = [
        element("line", class_="rail", x1=_EDGE, x2=WIDTH - _EDGE, y1=floor, y2=floor),
        element("polyline", class_="reach plain", points=" ".join(f"{x},{y}" for x, y in points)),
        _label(_EDGE, top - 3, f"risk, up to {number(highest)}", "start"),
        _label(_EDGE, _TALL - 4, "the surest", "start"),
        _label(WIDTH - _EDGE, _TALL - 4, f"all {count:,}: {number(found.risks[-1])}", "end"),
    ]
    half = number(found.risks[(count - 1) // 2])
    said = f"risk {half} of the surest half of {count:,}, {number(found.risks[-1])} of all"
    return _figure(drawn, WIDTH, _TALL, said)


def _figure(drawn: Sequence[Element], width: float, height: float, said: str) -> Element:
    return element(
        "svg",
        *drawn,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=said,
    )


def _label(x: float, y: float, text: str, anchor: str) -> Element:
    return element("text", text, x=x, y=y, text_anchor=anchor)


def _place(value: float, within: Scale) -> float:
    low, high = within
    share = (value - low) / (high - low)
    return round(_EDGE + min(max(share, 0.0), 1.0) * (WIDTH - 2 * _EDGE), 2)
