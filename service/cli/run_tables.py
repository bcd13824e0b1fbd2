"""Prints a run for a person to read."""

from __future__ import annotations

from typing import Any

from service.cli.output import print_table, say

LABEL = 18
_FACTS = ("id", "kind", "state", "exit_reason", "parent", "started_at", "finished_at", "command")


def print_run(row: dict[str, Any]) -> None:
    """Print what `description.describe_fully` says of a run."""
    from infra.tracking.parameters import flatten

    say(row["name"], style="bold")
    for key in _FACTS:
        if row[key] is not None:
            value = " ".join(row[key]) if key == "command" else row[key]
            _fact(key.replace("_", " ").removesuffix(" at"), value)
    changed = " with changes that were not committed" if row["git_dirty"] else ""
    if row["git_revision"]:
        _fact("git revision", f"{row['git_revision']}{changed}")
    _fact("ran on", _machine(row["environment"]))
    if row["dropped_points"]:
        _fact("points dropped", row["dropped_points"])
    for mirror in row["mirrors"]:
        _fact(f"mirror {mirror['mirror']}", mirror["error"] or mirror["state"])
    _print_pairs("Parameters", flatten(row["parameters"]))
    _print_pairs("Tags", row["tags"])
    if row["artifacts"]:
        _title("Artifacts")
        columns = ("direction", "role", "reference", "digest")
        print_table(columns, [[link[name] for name in columns] for link in row["artifacts"]])
    if row["metrics"]:
        _title("Metrics")
        facts = ("last", "last_step", "low", "low_step", "high", "high_step", "count")
        names = ("metric", "last", "step", "lowest", "at step", "highest", "at step", "points")
        rows = [
            [name, *(cell(each[fact]) for fact in facts)] for name, each in row["metrics"].items()
        ]
        print_table(names, rows, numbers=names[1:])
    if "packages_list" in row:
        _title("Packages")
        for line in row["packages_list"]:
            say(line)


def cell(value: object) -> str:
    """Return a value as a person reads it in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _machine(environment: dict[str, Any]) -> str:
    gpus = [gpu.get("name", "") for gpu in environment.get("gpus") or ()]
    known = (environment.get(name) for name in ("host", "platform", "python"))
    parts = [str(each) for each in known if each]
    return ", ".join([*parts, *gpus])


def _print_pairs(title: str, pairs: dict[str, Any]) -> None:
    if pairs:
        _title(title)
        for name, value in pairs.items():
            say(f"  {name:<{LABEL}}  {cell(value)}")


def _title(text: str) -> None:
    say()
    say(text, style="bold")


def _fact(label: str, value: object) -> None:
    say(f"{label:<{LABEL}}{value}")
