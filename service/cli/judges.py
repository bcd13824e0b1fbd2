"""`ragstone eval judge`: rubrics, and how far a judge that goes by one agrees with people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from evals.judges.card import Card

app = typer.Typer(
    no_args_is_help=True, help="Judges: their rubrics, and how far they can be trusted."
)
RubricName = Annotated[
    str,
    typer.Argument(metavar="RUBRIC", help="A shipped one such as correctness, or mine@v2."),
]


@app.command("agree")
def agree(
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS",
            help="Rows with question, output and label: a file, or dataset/NAME@v1.",
        ),
    ],
    model: Annotated[str, typer.Option(help="What the judge's server calls it.")],
    rubric: Annotated[
        str, typer.Option(help="A shipped one, a YAML file, or rubric/NAME@v1.")
    ] = "correctness",
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME=VALUE",
            help="A parameter of the judge, such as samples=3 or url=http://127.0.0.1:8000.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Outputs at a time.")] = 4,
    json: Json = False,
) -> None:
    """Hold a judge against people's labels, and keep its card.

    A gate that decides may rest on a judge only if its card says that it agrees: over 100 labels or
    more, the lower end of kappa's 95 % interval is what the suite asks for (0.6) or more.
    """
    import asyncio

    from evals.judges import measuring
    from infra.datasets.datasets import Datasets
    from service.cli.eval_output import bar
    from service.evaluation import judge_cards, rubrics

    folder, source = measuring.file_of(labels, Path.cwd())
    with opened() as parts:
        plan = measuring.plan(
            source,
            {**_parameters(options or []), "model": model, "rubric": _absolute(rubric)},
            sources=rubrics.sources(parts.artifacts, folder),
            datasets=lambda: Datasets(parts.artifacts),
            concurrency=concurrency,
        )
        with bar(plan.trials) as on_trial:
            card, stored = asyncio.run(judge_cards.measure(parts, plan, on_trial=on_trial))
    if json:
        print_json({"card": str(stored), **card.as_dict(), "objection": _objection(card)})
    else:
        _print(card, str(stored))


@app.command("cards")
def cards(json: Json = False) -> None:
    """List the judges that were held against people, with their newest card."""
    from service.evaluation import judge_cards

    with opened() as parts:
        rows = judge_cards.listed(parts.artifacts)
    if json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [[_short(row[name]) for name in row] for row in rows])
    else:
        note("No judge was held against people; run: ragstone eval judge agree LABELS --model NAME")


@app.command("rubrics")
def rubrics_(json: Json = False) -> None:
    """List the rubrics that are shipped, and all versions of those that are stored."""
    from service.evaluation import rubrics

    with opened() as parts:
        rows = rubrics.listed(parts.artifacts)
    if json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [[str(row[name]) for name in row] for row in rows])


@app.command("show")
def show(rubric: RubricName) -> None:
    """Print a rubric; redirect it to a file to start one of your own."""
    from service.evaluation import rubrics

    with opened() as parts:
        typer.echo(rubrics.text(parts.artifacts, rubric), nl=False)


@app.command("put")
def put(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A YAML rubric.")],
    json: Json = False,
) -> None:
    """Check a rubric and store it as the next version of its name."""
    from service.evaluation import rubrics

    with opened() as parts:
        stored = rubrics.put(parts.artifacts, file.read_text(encoding="utf-8"), source=str(file))
        digest = rubrics.read(parts.artifacts, str(stored)).digest
    if json:
        print_json({"reference": str(stored), "digest": digest})
    else:
        say(f"{stored}  {digest}")


def _parameters(given: list[str]) -> dict[str, Any]:
    """Return parameters as YAML reads their values."""
    from infra.expectations import yaml_text

    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{each!r} is no NAME=VALUE", param_hint="--with")
        found[name] = yaml_text.parse(value, source=f"--with {name}")
    return found


def _absolute(rubric: str) -> str:
    """A file is where the command is run, wherever the labels are."""
    return str(Path.cwd() / rubric) if rubric.endswith((".yaml", ".yml")) else rubric


def _objection(card: Card) -> str:
    from evals.suite import Suite

    fields = Suite.model_fields
    return card.objection(
        min_kappa=fields["min_kappa"].default, min_coverage=fields["min_coverage"].default
    )


def _print(card: Card, stored: str) -> None:
    found = card.agreement
    kappa = found.kappa
    print_table(
        ("people", "judge", "times"),
        [[label, said, str(count)] for label, said, count in card.confusion],
        numbers=("times",),
    )
    say()
    say(
        f"kappa {kappa.estimate:.2f}, with 95 % between {kappa.low:.2f} and {kappa.high:.2f} "
        f"(weights: {card.weights}); the same label {found.share:.1%} of {found.items}"
    )
    if card.position_inconsistency is not None:
        say(f"the order of the answers decided in {card.position_inconsistency:.1%}")
    if card.unrated:
        say(f"not rated: {', '.join(f'{count} {state}' for state, count in card.unrated.items())}")
    objection = _objection(card)
    say(f"may not decide a gate: {objection}" if objection else "may decide a gate", style="bold")
    say(f"kept as {stored}")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
