"""A command that decides: its exit codes 1 and 2 mean gates alone, whatever else goes wrong."""

from __future__ import annotations

import traceback
from typing import Any, cast

import typer
from typer.core import TyperCommand

from infra.errors import RagstoneError
from service.cli.output import note

NO_VERDICT = 3
INTERRUPTED = 130
"""128 + SIGINT, what shells expect."""
ASKED_TO_GO = 143
"""128 + SIGTERM, what shells and schedulers expect."""
_USAGE = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""What any wrong command line raises; typer has no name of its own for it."""
_MEANT = (typer.Exit, typer.Abort, _USAGE)
"""What ends a command on purpose."""


class Deciding(TyperCommand):
    """Has 1 and 2 mean gates alone: whatever keeps a verdict from being found exits with 3.

    A pipeline that lets 2 pass, for inconclusive, would let a misspelt option pass otherwise.
    """

    def make_context(self, *given: Any, **options: Any) -> Any:
        try:
            return super().make_context(*given, **options)
        except _USAGE as error:
            vars(error)["exit_code"] = NO_VERDICT
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (RagstoneError, OSError) as error:
            note(f"ragstone: {getattr(error, 'message', error)}")
            raise typer.Exit(NO_VERDICT) from None
        except KeyboardInterrupt:
            note("\nragstone: stopped; what was finished is kept, and --resume goes on from there")
            raise typer.Exit(INTERRUPTED) from None
        except _MEANT:
            raise
        except Exception as error:  # noqa: BLE001  Python would exit with 1, which is a failed gate
            note(traceback.format_exc())
            note(f"ragstone: an error that nobody foresaw: {type(error).__name__}: {error}")
            raise typer.Exit(NO_VERDICT) from None
