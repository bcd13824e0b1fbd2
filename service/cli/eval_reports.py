"""Writes the reports of an evaluation: HTML, JUnit XML and Markdown, each to its file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import note

if TYPE_CHECKING:
    from evals.evaluation import Evaluation
    from evals.verdicts import Judgement

Html = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a page for people: one file, no network.")
]
Junit = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write JUnit XML: a test per gate and case.")
]
Markdown = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a summary for a pull request.")
]


def write_reports(
    evaluation: Evaluation,
    judgement: Judgement,
    *,
    name: str,
    files: dict[str, Path | None],
    cases: int,
    before: Evaluation | None,
) -> None:
    """Write each report that has a file, by its form, and say where it is.

    With the baseline, `before`, they list the cases that lost most against it.
    """
    from evals.reports import junit, markdown, page

    forms: dict[str, Callable[[], bytes]] = {
        "html": lambda: page.write(evaluation, judgement, name=name, cases=cases, before=before),
        "junit": lambda: junit.write(evaluation, judgement),
        "markdown": lambda: markdown.write(
            evaluation, judgement, name=name, before=before
        ).encode(),
    }
    for form, path in _chosen(files):
        content = forms[form]()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        note(f"wrote {path}")


def _chosen(files: dict[str, Path | None]) -> Iterator[tuple[str, Path]]:
    for form, path in files.items():
        if path is not None:
            yield form, path
