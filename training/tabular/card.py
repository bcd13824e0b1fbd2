"""The model card: what a model is for, what it was made from, what it was measured to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.classical import ModelFile
from training.tabular.importance import Importance
from training.tabular.specification import Classical

MAX_IMPORTANT = 15
MAX_CATEGORIES = 6


def write(
    spec: Classical,
    model: ModelFile,
    evaluation: Mapping[str, Any],
    *,
    important: Sequence[Importance],
    warnings: Sequence[str],
) -> str:
    """Return the card in Markdown."""
    chosen, parity = evaluation["chosen"], evaluation["parity"]
    parts = [
        f"# {_plain(spec.name)}",
        f"A {spec.task} of `{_plain(spec.data.target)}` by {chosen['estimator']}"
        + (f" with {_pairs(chosen['parameters'])}" if chosen["parameters"] else "")
        + ".",
        _section("Data", _facts(evaluation["data"])),
        _section("Measured on rows held out", _scores(evaluation)),
        _section("How it was chosen", _trials(evaluation)),
        _section("Columns", _columns(model)),
        _section("What it rests on", _important(important, evaluation["metric"])),
    ]
    if model.views:
        parts.append(_section("Joined from views", _joined(model, evaluation["joined"])))
    if model.thresholds is not None:
        parts.append(_section("Decision", _pairs(model.thresholds)))
    if evaluation.get("diagnosis"):
        parts.append(
            _section("Where its error comes from", str(evaluation["diagnosis"]["summary"]))
        )
    served = f"The model is served as {model.format}."
    if parity is not None:
        served += (
            f" Its graph and its pipeline were asked of {parity['rows']:,} rows: "
            f"{parity['other_labels']} other classes, at most {parity['difference']:.2g} apart."
        )
    parts.append(_section("How it runs", served))
    if warnings:
        parts.append(_section("Look at this", "\n".join(f"- {_plain(each)}" for each in warnings)))
    made = ", ".join(f"{name} {version}" for name, version in model.libraries.items())
    parts.append(_section("Made with", f"{made}; seed {model.seed}."))
    return "\n\n".join(parts) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _joined(model: ModelFile, counted: Sequence[Mapping[str, Any]]) -> str:
    missing: dict[str, int] = {}
    for each in counted:
        missing[each["view"]] = missing.get(each["view"], 0) + sum(each["missed"].values())
    rows = [
        "| view | by | columns | lag, s | time to live, s | rows without values |",
        "|---" * 6 + "|",
    ]
    for view in model.views:
        ttl = "-" if view.ttl_seconds is None else f"{view.ttl_seconds:g}"
        names = ", ".join(f"`{_plain(each)}`" for each in view.features)
        rows.append(
            f"| {_plain(view.version)} | {_plain(view.asked_key)} | {names} | "
            f"{view.lag_seconds:g} | {ttl} | {missing.get(view.version, 0):,} |"
        )
    return "\n".join([*rows, "", f"As of `{_plain(str(model.time))}` of each row."])


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [f"| {_plain(name)} | {_plain(str(value))} |" for name, value in facts.items()]
    return "\n".join(["| what | is |", "|---|---|", *rows])


def _scores(evaluation: Mapping[str, Any]) -> str:
    sides = ("test", "train", "constant")
    rows = ["| figure | held out | trained on | a constant, held out |", "|---|---|---|---|"]
    for name in evaluation["test"]:
        values = (f"{evaluation[side][name]:.4g}" for side in sides)
        rows.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(rows)


def _trials(evaluation: Mapping[str, Any]) -> str:
    metric = evaluation["metric"]
    rows = [f"| tried | {metric} in the folds | standard error |", "|---|---|---|"]
    for each in evaluation["trials"]:
        name = f"{each['estimator']} {_pairs(each['parameters'])}".strip()
        rows.append(f"| {_plain(name)} | {each['score']:.4g} | {each['spread']:.2g} |")
    if evaluation.get("nested"):
        whole = sum(evaluation["nested"]) / len(evaluation["nested"])
        rows.append(f"\nThe choosing itself, in folds that it did not see: {whole:.4g}.")
    return "\n".join(rows)


def _columns(model: ModelFile) -> str:
    rows = ["| column | type | may be missing | seen in training |", "|---|---|---|---|"]
    for each in model.inputs:
        seen = ""
        if each.categories is not None:
            seen = ", ".join(str(value) for value in each.categories[:MAX_CATEGORIES])
            more = len(each.categories) - MAX_CATEGORIES
            seen += f" and {more} more" if more > 0 else ""
        elif each.low is not None:
            seen = f"{each.low:g} to {each.high:g}"
        missing = "yes" if each.nullable else "no"
        rows.append(f"| {_plain(each.name)} | {each.type} | {missing} | {_plain(seen)} |")
    return "\n".join(rows)


def _important(important: Sequence[Importance], metric: str) -> str:
    rows = [f"| column shuffled | {metric} lost | give or take |", "|---|---|---|"]
    rows += [
        f"| {_plain(each.column)} | {each.loss:.4g} | {each.spread:.2g} |"
        for each in important[:MAX_IMPORTANT]
    ]
    return "\n".join(rows)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{_plain(name)} {value:.4g}" if isinstance(value, float) else f"{_plain(name)} {value}"
        for name, value in values.items()
    )


def _plain(text: str) -> str:
    """Return text on one line that ends no cell of a table."""
    return text.replace("\n", " ").replace("|", "\\|")
