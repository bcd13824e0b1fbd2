"""The page of a drift check: one HTML file with a figure for each feature, that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from evals.reports.elements import Element, clean, document, element, number, short
from monitoring.columns import Column
from monitoring.comparison import FeatureFinding, Report
from monitoring.windows import Window

BINS = 24
MOST_LABELS = 12
MOST_EXAMPLES = 5
MOST_FEATURES = 100
_WIDTH, _TALL, _FLOOR = 420.0, 120.0, 100.0
_TEXT = 400
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:24px auto;padding:0 20px;"
    "color:#1c2430;background:#fff}h2{font-size:18px;margin:32px 0 4px}.drift{color:#c22f3d}"
    ".then{fill:#9aa5b3}.now{fill:#2f5fb3;fill-opacity:.6}text{font-size:11px;fill:#5d6875}"
    "td,th{padding:2px 12px 2px 0;text-align:left;vertical-align:top}small{color:#5d6875}"
)
Bars: TypeAlias = tuple[list[str], list[float], list[float]]
"""Labels, the shares of the reference and the shares of the window."""


def write(
    name: str, report: Report, reference: Window, window: Window, *, at: datetime, texts: Window
) -> bytes:
    """Return the page in UTF-8.

    Args:
        name: of the monitor.
        report: what was found.
        reference: what it was compared with.
        window: what was compared.
        at: when.
        texts: the same rows as the window's, with all columns, for the examples.
    """
    is_corrected = report.correction != "none"
    correction = f"corrected by {report.correction}" if is_corrected else "of each test by itself"
    order = sorted(report.findings, key=lambda each: each.order, reverse=True)[:MOST_FEATURES]
    parts = [part for each in order for part in _feature(each, reference, window, texts)]
    return document(
        f"Drift of {name}",
        _STYLE,
        element("h1", f"{name}: {report.verdict}"),
        element(
            "p",
            f"{at:%Y-%m-%d %H:%M %Z}. {report.window_rows:,} rows beside "
            f"{report.reference_rows:,} of the reference; level {number(report.level)}, "
            f"{correction}. Grey is the reference, blue the window.",
        ),
        *parts,
    )


def _feature(
    found: FeatureFinding, reference: Window, window: Window, texts: Window
) -> Iterator[Element]:
    finding = found.finding
    title = f"{found.feature} [{found.slice}]" if found.slice else found.feature
    kind = "drift" if finding.is_drift else "other"
    yield element("h2", title, " ", element("span", finding.verdict, class_=kind))
    yield element("p", finding.explanation)
    yield element(
        "p",
        element(
            "small",
            f"{finding.detector}; effect {number(finding.effect)} {finding.effect_unit}, least "
            f"{number(finding.least_effect)}; p {number(finding.p_adjusted)}",
        ),
    )
    if found.slice or found.feature not in reference.names or found.feature not in window.names:
        return
    before, now = reference.column(found.feature), window.column(found.feature)
    bars = _bars(before, now)
    if bars is not None:
        yield _figure(bars, title)
    if finding.is_drift:
        rows = finding.examples or _moved(before, now)
        if len(rows):
            yield _examples(rows[:MOST_EXAMPLES], texts)


def _moved(before: Column, now: Column) -> Sequence[int]:
    """Return the rows farthest from the reference's median, or of the category that grew most."""
    there = np.flatnonzero(~now.is_missing())
    if before.kind == now.kind == "numbers" and len(before.present):
        far = np.abs(now.data[there] - np.median(before.present))
        return [int(row) for row in there[np.argsort(-far, kind="stable")][:MOST_EXAMPLES]]
    if before.kind == now.kind == "categories":
        labels, then, since = _categories(before, now)
        grown = labels[int(np.argmax(np.subtract(since, then)))]
        same = there[[now.labels[code] == grown for code in now.data[there]]]
        return [int(row) for row in same[:MOST_EXAMPLES]]
    return []


def _bars(before: Column, now: Column) -> Bars | None:
    if before.kind == now.kind == "categories":
        return _categories(before, now)
    if before.kind != "numbers" or now.kind != "numbers":
        return None
    values = np.concatenate([before.present, now.present]).astype(np.float64)
    if not values.size:
        return None
    low, high = (float(each) for each in np.quantile(values, [0.005, 0.995]))
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    labels = [f"{a:.4g} to {b:.4g}" for a, b in zip(edges, edges[1:], strict=False)]
    then, since = (
        np.histogram(np.clip(each.present, edges[0], edges[-1]), edges)[0]
        / max(1, len(each.present))
        for each in (before, now)
    )
    return labels, [float(each) for each in then], [float(each) for each in since]


def _categories(before: Column, now: Column) -> Bars:
    shares: list[dict[str, float]] = []
    for column in (before, now):
        counts = np.bincount(column.present, minlength=len(column.labels))
        total = max(1, int(counts.sum()))
        shares.append(
            {name: float(n) / total for name, n in zip(column.labels, counts, strict=False)}
        )
    names = sorted({*shares[0], *shares[1]}, key=lambda name: -max(s.get(name, 0) for s in shares))
    kept = names[:MOST_LABELS]
    return kept, [shares[0].get(n, 0.0) for n in kept], [shares[1].get(n, 0.0) for n in kept]


def _figure(bars: Bars, title: str) -> Element:
    labels, before, now = bars
    most = max([*before, *now, 1e-9])
    width = _WIDTH / max(1, len(labels))
    drawn = []
    for place, label in enumerate(labels):
        for kind, share in (("then", before[place]), ("now", now[place])):
            tall = share / most * _FLOOR
            said = element("title", f"{short(label, 80)}: {share:.1%} ({kind})")
            at = {"x": place * width, "y": _FLOOR - tall, "width": width - 1, "height": tall}
            drawn.append(element("rect", said, class_=kind, **at))
    first, last = short(labels[0], 40), short(labels[-1], 40)
    drawn.append(element("text", first, x=0.0, y=_FLOOR + 14))
    drawn.append(element("text", last, x=_WIDTH, y=_FLOOR + 14, text_anchor="end"))
    box = f"0 0 {_WIDTH:g} {_TALL:g}"
    return element(
        "svg", *drawn, viewBox=box, width=_WIDTH, height=_TALL, role="img", aria_label=title
    )


def _examples(rows: Sequence[int], texts: Window) -> Element:
    """Return the rows that moved most, with all that is kept of them."""
    some = texts.take(np.asarray(rows, dtype=np.int64))
    columns = [(name, _plain(some.read(name))) for name in texts.names]
    shown = [(name, values) for name, values in columns if any(v is not None for v in values)]
    lines = [
        element("tr", element("th", name), *(element("td", _said(each)) for each in values))
        for name, values in shown
    ]
    return element("details", element("summary", "Rows that moved most"), element("table", *lines))


def _plain(values: Any) -> list[Any]:
    return list(values.to_pylist() if hasattr(values, "to_pylist") else values)


def _said(value: Any) -> str:
    return "" if value is None else clean(short(str(value), _TEXT))
