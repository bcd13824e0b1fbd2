"""The command `ragstone`: its verbs, its exit codes, and errors in one line."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from infra.errors import RagstoneError
from service.cli import (
    adapters,
    artifacts,
    ask,
    budgets,
    collections,
    datasets,
    demo,
    doctor,
    drift,
    engine,
    evals,
    expectations,
    feedback,
    ingest,
    init,
    interactions,
    jobs,
    keys,
    launch,
    models,
    pipeline,
    prompts,
    runs,
    search,
    serve,
    sync,
    train,
    usage,
    watch,
    worker,
)
from service.cli.output import note, printable

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, what shells expect
STOPPED = "\nragstone: stopped; what was committed stays; run again to go on"


class _Verbs(TyperGroup):
    """Turns what went wrong into one line and an exit code, for every verb."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RagstoneError as error:
            note(f"ragstone: {error.message}")
        except UnicodeEncodeError as error:
            note(f"ragstone: {ascii(error.object)[:80]} is not text in UTF-8")
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f" {str(error.filename)!r}" if error.filename else ""
            note(f"ragstone: {error.strerror or error}{where}")
        except KeyboardInterrupt:
            note(STOPPED)
            raise typer.Exit(INTERRUPTED) from None
        raise typer.Exit(FAILED)


# Without markup the help is plain text and rich stays unimported, which halves the start.
app = typer.Typer(
    cls=_Verbs, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A file name or a document may hold what the terminal's encoding has no letter for.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        app(prog_name="ragstone")
    except KeyboardInterrupt:  # while the verbs are still put together
        note(STOPPED)
        sys.exit(INTERRUPTED)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ragstone {printable(version('ragstone'))}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Ask questions of your own documents; every citation is checked against their text.

    Settings come from ragstone.toml in this folder and from RAGSTONE_* variables.
    """


app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("ingest")(ingest.ingest)
app.add_typer(sync.app, name="sync")
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.add_typer(engine.app, name="engine")
app.add_typer(train.app, name="train")
app.command("launch")(launch.launch)
app.add_typer(models.app, name="models")
app.add_typer(collections.app, name="collections")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(adapters.app, name="adapters")
app.add_typer(datasets.app, name="datasets")
app.add_typer(jobs.app, name="jobs")
app.add_typer(runs.app, name="runs")
app.add_typer(pipeline.app, name="pipeline")
app.add_typer(expectations.app, name="expectations")
app.add_typer(evals.app, name="eval")
app.add_typer(interactions.app, name="interactions")
app.command("feedback")(feedback.feedback)
app.command("watch")(watch.watch)
app.add_typer(drift.app, name="drift")
app.add_typer(prompts.app, name="prompts")
app.add_typer(keys.app, name="keys")
app.add_typer(budgets.app, name="budgets")
app.command("usage")(usage.usage)
app.command("doctor")(doctor.doctor)
