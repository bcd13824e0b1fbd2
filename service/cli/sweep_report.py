"""The report of a sweep: one HTML file with plots, without scripts, that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any

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
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
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


def write(spec: FineTuning, trials: Sequence[Trial], best: Trial | None, *, lock: str = "") -> str:
    """Return the page.

    Args:
        spec: with its sweep.
        trials: all of them, by number.
        best: of those that ran to their end.
        lock: the path of the lock that trains the best again.
    """
    assert spec.sweep is not None
    metric = spec.sweep.metric
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Sweep {escape(spec.name)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>Sweep {escape(spec.name)}</h1>",
        f"<p>{escape(_summary(spec, trials, best))}</p>",
    ]
    if best is not None:
        parts += _best(best, metric, lock)
    parts += ["<h2>Trials</h2><section>", figures.draw([_history(spec, trials)]), "</section>"]
    curves = _curves(spec, trials)
    if curves is not None:
        parts += ["<h2>While they ran</h2><section>", figures.draw([curves]), "</section>"]
    parts += ['<h2>By parameter</h2><section class="grid">']
    parts += [_scatter(key, metric, trials) for key in spec.sweep.parameters]
    parts += ["</section><h2>All trials</h2><section>", *_table(spec, trials, best), "</section>"]
    return "\n".join([*parts, "</main></body></html>", ""])


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


def _best(best: Trial, metric: str, lock: str) -> Iterator[str]:
    yield "<h2>The best</h2><section><table>"
    for key, value in {**best.values, metric: best.value}.items():
        yield f'<tr><th scope="row">{escape(key)}</th><td>{escape(_shown(value))}</td></tr>'
    for name, value in sorted(best.notes.get("metrics", {}).items()):
        if name != metric:
            yield f'<tr><th scope="row">{escape(name)}</th><td>{escape(_shown(value))}</td></tr>'
    yield "</table>"
    if lock:
        yield f"<p><code>ragstone train rerun {escape(lock)}</code></p>"
    yield "</section>"


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


def _scatter(key: str, metric: str, trials: Sequence[Trial]) -> str:
    """Return one value's plot: across its size, up what came out."""
    spots, ends = _spots(key, trials)
    values = [spot.value for spot in spots]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    title = f"{metric} by {key}"
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11" role="img" '
        f'aria-label="{escape(title)}">',
        f'<text x="{EDGE}" y="16" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{EDGE} 26V{HEIGHT - 30}H{WIDTH - 12}" fill="none" stroke="#aaa"/>',
        f'<text x="{EDGE - 4}" y="34" text-anchor="end">{high:.3g}</text>',
        f'<text x="{EDGE - 4}" y="{HEIGHT - 30}" text-anchor="end">{low:.3g}</text>',
    ]
    for place, label in ends:
        x = EDGE + 8 + place * (WIDTH - EDGE - 32)
        anchor = {0.0: "start", 1.0: "end"}.get(place, "middle")
        drawn.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    for spot in spots:
        x = EDGE + 8 + spot.across * (WIDTH - EDGE - 32)
        y = 34 + (high - spot.value) / (high - low) * (HEIGHT - 72)
        what = f"trial {spot.trial.number}: {_shown(spot.trial.values[key])}, {spot.value:.6g}"
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[spot.trial.state]}" '
            f'opacity="0.8"><title>{escape(what)}</title></circle>'
        )
    return "\n".join([*drawn, "</svg>"])


def _spots(key: str, trials: Sequence[Trial]) -> tuple[list[_Spot], list[tuple[float, str]]]:
    """Return where trials stand, and what is written below the axis."""
    shown = [
        (each, last)
        for each in trials
        if key in each.values and (last := _last(each)) is not None and math.isfinite(last)
    ]
    sizes = [each.values[key] for each, _ in shown]
    is_number = all(isinstance(size, int | float) and not isinstance(size, bool) for size in sizes)
    if not is_number or len(set(map(_shown, sizes))) < 2:
        names = list(dict.fromkeys(map(_shown, sizes)))
        places = {name: at / max(1, len(names) - 1) for at, name in enumerate(names)}
        spots = [_Spot(places[_shown(each.values[key])], last, each) for each, last in shown]
        return spots, [(place, name) for name, place in places.items()]
    low, high = min(sizes), max(sizes)
    # Two orders of magnitude apart, small values would all stand on one spot.
    scale = math.log if low > 0 and high / low >= 100 else float
    begin, end = scale(low), scale(high)
    spots = [
        _Spot((scale(each.values[key]) - begin) / (end - begin), last, each) for each, last in shown
    ]
    return spots, [(0.0, _shown(low)), (1.0, _shown(high))]


def _last(trial: Trial) -> float | None:
    if trial.value is not None:
        return trial.value
    return trial.seen[max(trial.seen)] if trial.seen else None


def _table(spec: FineTuning, trials: Sequence[Trial], best: Trial | None) -> Iterator[str]:
    assert spec.sweep is not None
    keys = list(spec.sweep.parameters)
    heads = ["trial", "state", spec.sweep.metric, *keys, "seconds", "why"]
    yield f"<table><tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"
    for trial in trials[:MOST_ROWS]:
        last = _last(trial)
        cells = [
            str(trial.number),
            trial.state,
            "" if last is None else f"{last:.6g}",
            *(_shown(trial.values.get(key)) for key in keys),
            "" if trial.seconds is None else f"{trial.seconds:.1f}",
            str(trial.notes.get("reason", "")),
        ]
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        mark = ' class="best"' if best is not None and trial.number == best.number else ""
        yield f"<tr{mark}>{row}</tr>"
    yield "</table>"
    if len(trials) > MOST_ROWS:
        yield f"<p>{len(trials) - MOST_ROWS:,} more are not shown.</p>"


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
