"""The report of a sweep: one HTML file with plots, without scripts, that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lxml import etree

from evals.reports.elements import Element, clean, document, element
from infra.tracking.points import Bucket
from service.cli import figures
from service.cli.figures import Chart, Line

if TYPE_CHECKING:
    from training.spec import FineTuning
    from training.sweeps.study import Trial

MOST_CURVES = 8
"""Of trials, the best: more cannot be told apart."""
MOST_ROWS = 500
WIDTH, HEIGHT, EDGE = 370, 210, 44
COLOURS = {"complete": "#0072b2", "pruned": "#e69f00", "failed": "#d55e00", "running": "#999"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #f5f7f9; margin: 0; }
main { width: min(1080px, 100% - 40px); margin: 24px auto 64px; }
h1 { font-size: 28px; margin: 0 0 6px; } h2 { font-size: 19px; margin: 32px 0 10px; }
section { background: #fff; border: 1px solid #dfe3e8; border-radius: 6px; padding: 14px;
  overflow-x: auto; } .grid { display: flex; flex-wrap: wrap; gap: 12px; }
table { border-collapse: collapse; font-size: 14px; width: 100%; }
th, td { text-align: left; padding: 4px 12px; border-top: 1px solid #dfe3e8;
  overflow-wrap: anywhere; } tr:first-child > * { border-top: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; } .best { font-weight: 700; }
code { overflow-wrap: anywhere; } svg { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True, slots=True)
class _Spot:
    across: float
    """From 0 to 1."""
    value: float
    trial: Trial


def write(
    spec: FineTuning, trials: Sequence[Trial], best: Trial | None, *, lock: str = ""
) -> bytes:
    """Return the page in UTF-8.

    Args:
        spec: with its sweep.
        trials: all of them, by number.
        best: of those that ran to their end.
        lock: the path of the lock that trains the best again.
    """
    assert spec.sweep is not None
    metric, curves = spec.sweep.metric, _curves(spec, trials)
    return document(
        f"Sweep {spec.name}",
        _STYLE,
        element(
            "main",
            element("h1", f"Sweep {spec.name}"),
            element("p", _summary(spec, trials, best)),
            *(_best(best, metric, lock) if best is not None else ()),
            *_section("Trials", _drawn(_history(spec, trials))),
            *(_section("While they ran", _drawn(curves)) if curves is not None else ()),
            element("h2", "By parameter"),
            element(
                "section",
                *(_scatter(key, metric, trials) for key in spec.sweep.parameters),
                class_="grid",
            ),
            *_section("All trials", *_table(spec, trials, best)),
        ),
    )


def _section(title: str, *children: Element) -> tuple[Element, Element]:
    return element("h2", title), element("section", *children)


def _drawn(chart: Chart) -> Element:
    return etree.fromstring(clean(figures.draw([chart])))


def _summary(spec: FineTuning, trials: Sequence[Trial], best: Trial | None) -> str:
    assert spec.sweep is not None
    counts = {state: sum(each.state == state for each in trials) for state in COLOURS}
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    aim = {"minimize": "least", "maximize": "most"}[spec.sweep.direction]
    found = "none yet" if best is None else f"{best.value:.6g} by trial {best.number}"
    return (
        f"{len(trials)} trials ({words}), sampler {spec.sweep.sampler}, pruner "
        f"{spec.sweep.pruner}. The {aim} {spec.sweep.metric}: {found}."
    )


def _best(best: Trial, metric: str, lock: str) -> tuple[Element, Element]:
    measured = best.notes.get("metrics", {})
    others = {name: measured[name] for name in sorted(measured) if name != metric}
    found = {**best.values, metric: best.value, **others}
    rows = (
        element("tr", element("th", name, scope="row"), element("td", shown(value)))
        for name, value in found.items()
    )
    again = element("p", element("code", f"ragstone train rerun {lock}")) if lock else None
    return element("h2", "The best"), element("section", element("table", *rows), again)


def _history(spec: FineTuning, trials: Sequence[Trial]) -> Chart:
    """Each trial that ran to its end, and the best so far."""
    assert spec.sweep is not None
    done = [each for each in trials if each.state == "complete" and each.value is not None]
    values = [each.value or 0.0 for each in done]
    least = min if spec.sweep.direction == "minimize" else max
    found = list(accumulate(values, least))
    numbers = [each.number for each in done]
    lines = [
        Line("each", _buckets(zip(numbers, values, strict=True))),
        Line("best so far", _buckets(zip(numbers, found, strict=True))),
    ]
    return Chart(f"{spec.sweep.metric} by trial", lines)


def _curves(spec: FineTuning, trials: Sequence[Trial]) -> Chart | None:
    assert spec.sweep is not None
    sign = 1 if spec.sweep.direction == "minimize" else -1
    followed = [each for each in trials if len(each.seen) > 1]
    if not followed:
        return None
    ranked = sorted(followed, key=lambda each: sign * each.seen[max(each.seen)])[:MOST_CURVES]
    lines = [
        Line(f"trial {each.number}, {each.state}", _buckets(sorted(each.seen.items())))
        for each in ranked
    ]
    return Chart(f"{spec.sweep.metric} by percent of the run", lines)


def _buckets(points: Any) -> list[Bucket]:
    return [Bucket(step, step, 0.0, 1, 0, value, value, value) for step, value in points]


def _scatter(key: str, metric: str, trials: Sequence[Trial]) -> Element:
    """Return one value's plot: across its size, up what came out."""
    spots, ends = _spots(key, trials)
    values = [spot.value for spot in spots]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    title, bottom = f"{metric} by {key}", HEIGHT - 30
    drawn = [
        element("text", title, x=EDGE, y=16, font_weight="bold"),
        element("path", d=f"M{EDGE} 26V{bottom}H{WIDTH - 12}", fill="none", stroke="#aaa"),
        element("text", f"{high:.3g}", x=EDGE - 4, y=34, text_anchor="end"),
        element("text", f"{low:.3g}", x=EDGE - 4, y=bottom, text_anchor="end"),
    ]
    for place, label in ends:
        anchor = {0.0: "start", 1.0: "end"}.get(place, "middle")
        drawn.append(element("text", label, x=_x(place), y=HEIGHT - 12, text_anchor=anchor))
    for spot in spots:
        y = 34 + (high - spot.value) / (high - low) * (HEIGHT - 72)
        what = f"trial {spot.trial.number}: {shown(spot.trial.values[key])}, {spot.value:.6g}"
        colour = COLOURS[spot.trial.state]
        drawn.append(
            element(
                "circle", element("title", what), cx=_x(spot.across), cy=y, r=4, fill=colour,
                opacity=0.8,
            )
        )  # fmt: skip
    return element(
        "svg", *drawn, width=WIDTH, height=HEIGHT, viewBox=f"0 0 {WIDTH} {HEIGHT}",
        font_family="sans-serif", font_size=11, role="img", aria_label=title,
    )  # fmt: skip


def _x(across: float) -> float:
    return EDGE + 8 + across * (WIDTH - EDGE - 32)


def _spots(key: str, trials: Sequence[Trial]) -> tuple[list[_Spot], list[tuple[float, str]]]:
    """Return where trials stand, and what is written below the axis."""
    plotted = [
        (each, last)
        for each in trials
        if key in each.values and (last := _last(each)) is not None and math.isfinite(last)
    ]
    sizes = [each.values[key] for each, _ in plotted]
    is_number = all(isinstance(size, int | float) and not isinstance(size, bool) for size in sizes)
    if not is_number or len(set(map(shown, sizes))) < 2:
        names = list(dict.fromkeys(map(shown, sizes)))
        places = {name: at / max(1, len(names) - 1) for at, name in enumerate(names)}
        spots = [_Spot(places[shown(each.values[key])], last, each) for each, last in plotted]
        return spots, [(place, name) for name, place in places.items()]
    low, high = min(sizes), max(sizes)
    # Two orders of magnitude apart, small values would all stand on one spot.
    scale = math.log if low > 0 and high / low >= 100 else float
    begin, end = scale(low), scale(high)
    spots = [
        _Spot((scale(each.values[key]) - begin) / (end - begin), last, each)
        for each, last in plotted
    ]
    return spots, [(0.0, shown(low)), (1.0, shown(high))]


def _last(trial: Trial) -> float | None:
    if trial.value is not None:
        return trial.value
    return trial.seen[max(trial.seen)] if trial.seen else None


def _table(spec: FineTuning, trials: Sequence[Trial], best: Trial | None) -> Iterator[Element]:
    assert spec.sweep is not None
    keys = list(spec.sweep.parameters)
    heads = ["trial", "state", spec.sweep.metric, *keys, "seconds", "why"]
    rows = [element("tr", *(element("th", head) for head in heads))]
    for trial in trials[:MOST_ROWS]:
        last = _last(trial)
        cells = [
            str(trial.number),
            trial.state,
            "" if last is None else f"{last:.6g}",
            *(shown(trial.values.get(key)) for key in keys),
            "" if trial.seconds is None else f"{trial.seconds:.1f}",
            str(trial.notes.get("reason", "")),
        ]
        is_best = best is not None and trial.number == best.number
        mark = {"class_": "best"} if is_best else {}
        rows.append(element("tr", *(element("td", cell) for cell in cells), **mark))
    yield element("table", *rows)
    if len(trials) > MOST_ROWS:
        yield element("p", f"{len(trials) - MOST_ROWS:,} more are not shown.")


def shown(value: Any) -> str:
    """Return a value of a specification as people read it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
