"""`ragstone train`: what fine-tunings come to and would trip over, before they are run."""

from __future__ import annotations

import typer

from service.cli import train_plan

app = typer.Typer(
    help="Fine-tune models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("plan")(train_plan.plan)
app.command("schema")(train_plan.schema)
