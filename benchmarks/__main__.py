"""`python -m benchmarks NAME`: runs one benchmark and prints its table."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from benchmarks import machine, table
from benchmarks.options import Options

ROOT = Path(__file__).parent.parent
PIPE_COLUMNS = 150


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that `arguments` name; without a known name, list those there are."""
    console = _console()
    options = _parser().parse_args(arguments)
    options.name = options.name.replace("-", "_")
    known = available()
    if options.name not in known:
        if options.name:
            console.print(f"No benchmark {options.name!r}; there are:")
        for name, line in known.items():
            console.print(f"  [bold]{name:<12}[/bold] {line}")
        return 2 if options.name else 0
    # The figures come out first: the scratch folder may hold files that take minutes to remove.
    with tempfile.TemporaryDirectory(prefix="ragstone-benchmark-") as folder:
        rows = load(options.name)(_options(options, Path(folder), console))
        _show(options, rows, console)
    return 0


def available() -> dict[str, str]:
    """Names of the benchmarks with their first lines: the modules here that define `run`.

    They are read, not imported, so that listing them is instant.
    """
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def load(name: str) -> Callable[[Options], list[table.Row]]:
    """Return the `run` function of benchmark `name`."""
    module = importlib.import_module(f"benchmarks.{name}")
    return cast("Callable[[Options], list[table.Row]]", module.run)


def _show(options: argparse.Namespace, rows: list[table.Row], console: Console) -> None:
    description = machine.describe()
    table.render(console, options.name, rows, caption=_caption(description, quick=options.quick))
    if options.json:
        at = datetime.now(UTC)
        table.write_json(
            options.json, table.to_json(options.name, rows, machine=description, at=at)
        )


def _console() -> Console:
    console = Console()
    # A pipe or a log has no width of its own, and 80 columns would break every row.
    return console if console.is_terminal else Console(width=PIPE_COLUMNS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="which benchmark; none lists them")
    parser.add_argument("--quick", action="store_true", help="a slice that runs in seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each measurement")
    parser.add_argument("--part", type=_part, default=1.0, help="of the corpus of `ingest`, 0 to 1")
    parser.add_argument("--embedder", default="onnx")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--url", help="gateway: a real model server instead of the null backend")
    parser.add_argument("--model", help="gateway: what that server calls its model")
    parser.add_argument("--shape", help="finetune: tiny, small, 1b or 8b; by default by device")
    parser.add_argument("--requests", type=int, help="gateway: requests of the soak")
    parser.add_argument("--no-peers", action="store_true", help="measure ourselves alone")
    parser.add_argument(
        "--install-peers", action="store_true", help="make the peers' environments in .venvs/"
    )
    return parser


def _part(text: str) -> float:
    part = float(text)
    if not 0 < part <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no part: give a number above 0, at most 1")
    return part


def _options(parsed: argparse.Namespace, folder: Path, console: Console) -> Options:
    data = Path(os.environ.get("RAGSTONE_TEST_DATA", ROOT.parent / "shared" / "data"))
    return Options(
        folder=folder,
        quick=parsed.quick,
        part=parsed.part,
        repeats=min(parsed.repeats, 2) if parsed.quick else parsed.repeats,
        install_peers=parsed.install_peers,
        peers=not parsed.no_peers,
        embedder=parsed.embedder,
        data=data if data.is_dir() else None,
        threads=parsed.threads,
        url=parsed.url,
        model=parsed.model,
        shape=parsed.shape,
        requests=parsed.requests,
        say=lambda line: console.print(f"[dim]{line}[/dim]"),
    )


def _caption(description: dict[str, Any], *, quick: bool) -> str:
    devices = "".join(f"{name}, " for name in description["devices"])
    caption = (
        f"median (min..max); {devices}{description['cores']} cores, {description['cpu']}, "
        f"{description['memory_gib']} GiB, load {description['load_average']}"
    )
    return f"{caption}; quick: shows that it runs, not how fast" if quick else caption


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
