"""`ragstone expectations`: check data against a suite, suggest one, show what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import InvalidRequest, RagstoneError
from service.cli.output import Json, note, print_json, print_table, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    import polars as pl

    from infra.expectations import Report, Result, Suite
    from service.wiring import Components

FAILED = 1
"""Exit code of data that fails a required check."""

app = typer.Typer(
    help="Check data against a suite, suggest a suite, show the last results.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SuitePath = Annotated[
    Path, typer.Argument(metavar="SUITE", help="YAML, or JSON of Great Expectations.")
]
Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A file, or a dataset such as dataset/faq@v3."),
]
Split = Annotated[str | None, typer.Option(help="One split of a dataset; all of them by default.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write to a new file, not to the terminal.")
]


@app.command("run")
def run(
    suite: SuitePath,
    data: Data,
    split: Split = None,
    samples: Annotated[int, typer.Option(min=0, max=100, help="Failing rows to keep of each.")] = 5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do not record the result of a dataset.")
    ] = False,
    json: Json = False,
) -> None:
    """Check data; the result of a dataset is recorded for training to ask for.

    Exits with 1 if a required check fails.
    """
    from datetime import UTC, datetime

    from infra.expectations import check, read_suite, record

    chosen = read_suite(suite)
    _note_untranslated(chosen)
    with opened() as parts, waiting("checking"):
        frame, digest = _table(parts, data, split)
        report = check(chosen, frame, now=datetime.now(UTC), samples=samples)
        # The verdict on one split says nothing of the others.
        recorded = digest is not None and split is None and not dry_run
        if digest is not None and recorded:
            record(parts.database, digest, report)
    if json:
        print_json({**report.as_dict(), "data": data, "digest": digest, "recorded": recorded})
    else:
        _print(report)
    if not report.passed:
        raise typer.Exit(FAILED)


@app.command("suggest")
def suggest(
    data: Data,
    split: Split = None,
    name: Annotated[str, typer.Option(help="What the suite is called.")] = "suggested",
    from_profile: Annotated[
        bool, typer.Option("--from-profile", help="Read the stored profile, not the data.")
    ] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Propose a suite that the data passes now; strike what holds by chance."""
    from infra.expectations import suggest as propose

    with opened() as parts, waiting("looking at the data"):
        if from_profile:
            from infra.datasets.datasets import Datasets

            found = propose(Datasets(parts.artifacts).profile(data, split=split), name=name)
        else:
            found = propose(_table(parts, data, split)[0], name=name)
    _write(found, output, json)


@app.command("validate")
def validate(suite: SuitePath, json: Json = False) -> None:
    """See that a suite can be read; say what cannot be checked of one of Great Expectations."""
    from infra.expectations import read_suite

    found = read_suite(suite)
    if json:
        print_json(
            {
                "name": found.name,
                "digest": found.digest,
                "checks": len(found.checks),
                "untranslated": found.untranslated,
            }
        )
        return
    _note_untranslated(found)
    say(f"{found.name}: {len(found.checks)} checks, {found.digest}")


@app.command("convert")
def convert(suite: SuitePath, output: Output = None, json: Json = False) -> None:
    """Write a suite of Great Expectations as YAML, with what has no counterpart named."""
    from infra.expectations import read_suite

    found = read_suite(suite)
    _note_untranslated(found)
    _write(found, output, json)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a suite, which editors complete and check YAML with."""
    from infra.expectations import Suite

    print_json(Suite.model_json_schema())


@app.command("show")
def show(
    dataset: Annotated[str, typer.Argument(help="Such as dataset/faq@v3.")],
    suite: Annotated[
        str | None, typer.Option(help="Name of a suite; every one by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the last result of each suite for a dataset."""
    from infra.expectations import every

    with opened() as parts:
        found = parts.artifacts.find(_full(dataset))
        results = [
            item for item in every(parts.database, found.digest) if suite in {None, item.suite}
        ]
    if json:
        print_json([item.report.as_dict() for item in results])
    elif not results:
        note(f"{found} was never checked; run: ragstone expectations run SUITE {found}")
    for item in results if not json else ():
        say(f"{item.suite}, checked {item.checked_at:%Y-%m-%d %H:%M} UTC")
        _print(item.report)


def _table(parts: Components, data: str, split: str | None) -> tuple[pl.LazyFrame, str | None]:
    """Return a table, and the digest of the dataset it is, if it is one."""
    path = Path(data)
    if path.is_file():
        from infra.expectations.files import open_table

        if split is not None:
            raise typer.BadParameter("a file has no splits", param_hint="--split")
        return open_table(path), None
    from infra.datasets.datasets import Datasets

    try:
        found = parts.artifacts.find(_full(data))
    except RagstoneError as error:
        raise InvalidRequest(f"No file {data!r}, and no dataset: {error.message}") from None
    return Datasets(parts.artifacts).frame(str(found), split=split).lazy(), found.digest


def _full(reference: str) -> str:
    """Return a dataset's reference with its kind, which may be left out."""
    return reference if "/" in reference else f"dataset/{reference}"


def _write(suite: Suite, output: Path | None, json: bool) -> None:
    text = suite.to_yaml()
    if output is not None:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
        note(f"Wrote {len(suite.checks)} checks to {str(output)!r}")
    elif json:
        print_json(suite.model_dump(mode="json"))
    else:
        typer.echo(text, nl=False)


def _note_untranslated(suite: Suite) -> None:
    for text in suite.untranslated:
        note(f"not checked: {text}")


def _print(report: Report) -> None:
    columns = ("verdict", "check", "found")
    print_table(columns, [[_verdict(item), item.name, item.message] for item in report.results])
    for item in report.results:
        for line in _lines(item):
            say(f"  {line}", style="dim")
    failed, warned = len(report.failures), len(report.warnings)
    passed = len(report.results) - failed - warned
    say(
        f"{report.suite} on {report.rows} rows: {passed} passed, {failed} failed, {warned} warned",
        style="bold",
    )


def _verdict(item: Result) -> str:
    if item.passed:
        return "ok"
    return "fail" if item.severity == "required" else "warn"


def _lines(item: Result) -> list[str]:
    """Say what the failing rows of one check are."""
    lines = []
    for sample in item.samples:
        values = ", ".join(f"{name}={value!r}" for name, value in sample.values.items())
        reason = f" ({sample.reason})" if sample.reason else ""
        lines.append(f"{item.name}, row {sample.row}: {values}{reason}")
    return lines
