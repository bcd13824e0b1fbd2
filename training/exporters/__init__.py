"""Formats that whole models are exported to, for programs other than transformers.

A plug-in is a file with `build() -> Exporter`. The law, run over each by
`tests/contracts/test_exporters.py`: what was written says what the model says, and of a row of any
length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

from infra.plugins import available, load
from training.parity import Logits

PACKAGE = "training.exporters"


class Exporter(Protocol):
    """Writes models in one format, and asks them."""

    max_difference: float
    """Of a logit in float32."""

    def write(self, model: Any, folder: Path, *, cache: bool) -> None:
        """Write a model of transformers, on the CPU in float32, into a folder that is there.

        Args:
            model: whose weights may be prepared for the format.
            folder: where it is written.
            cache: whether it keeps the keys and values of tokens, to go on from them.

        Raises:
            MissingDependency: what it takes is not installed.
            InvalidRequest: the model cannot be written so; says why.
        """
        ...

    def open(self, folder: Path) -> Logits:
        """Return how what was written is asked, by the program that will run it.

        Through its cache if it has one: the last tokens of a row are read one by one.
        """
        ...


def open_exporter(name: str) -> Exporter:
    """Return the exporter of a format; an unknown one is told with those that there are."""
    return cast("Exporter", load(PACKAGE, name)())


def formats() -> list[str]:
    """Return the names of all formats."""
    return list(available(PACKAGE))
