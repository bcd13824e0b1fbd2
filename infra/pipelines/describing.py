"""Records columns and statistics of the tables that a step leaves, as putting a dataset does."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.artifacts.tree import Limits, scan
from infra.pipelines.definition import Output


def describe(place: Path, output: Output) -> Mapping[str, Any]:
    """Return the metadata of an output; nothing for what is no table.

    Raises:
        InvalidRequest: a file is damaged, or its rows do not go together.
        MissingDependency: it is said to be a table, and pyarrow is not installed.
    """
    wanted = output.tabular
    if wanted is None:
        wanted = output.artifact.startswith("dataset/") and _is_installed("pyarrow")
    if not wanted:
        return {}
    from infra.datasets.csv_files import Dialect
    from infra.datasets.datasets import survey
    from infra.datasets.description import KEY

    layout = _layout(place)
    if layout is None:
        return {}
    folder = place if place.is_dir() else place.parent
    return {KEY: survey(folder, layout, Dialect()).as_dict()}


def _layout(place: Path) -> Any:
    """Return how the files of one format lie; `None` where there is not one, and one alone."""
    from infra.datasets.files import format_of
    from infra.datasets.sources import Layout, split_of

    paths = [file.path for file in scan(place, Limits())]
    formats = {form for form in map(format_of, paths) if form is not None}
    if len(formats) != 1:
        return None
    named: dict[str, list[str]] = {}
    for path in paths:
        if format_of(path) is not None:
            named.setdefault(split_of(path), []).append(path)
    return Layout(formats.pop(), {name: tuple(found) for name, found in sorted(named.items())})


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
