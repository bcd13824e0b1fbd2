"""`ragstone train plan` and `schema`: a fine-tuning is checked whole, and nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.output import Json, note, print_json, print_table, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from training.planning import Plan
    from training.problems import Problem
    from training.spec import FineTuning

FAILED = 1
GIB = 2**30


def plan(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The specification, in YAML.")],
    lock: Annotated[
        Path | None, typer.Option(help="Write the lock here, if there is no problem.")
    ] = None,
    json: Json = False,
) -> None:
    """Find and check all that a fine-tuning needs, and say what it comes to; nothing is trained.

    Every problem is told in a line with its key or row, and then the command fails.
    """
    from training.problems import Refused
    from training.spec import load
    from training.understanding import CERTAIN, NAMELESS, understood

    asked, wrong = understood(load(spec), source=repr(str(spec)))
    found = None if asked is None else _plan(asked, spec)
    problems = wrong
    if found is not None:
        problems += tuple(each for each in found.problems if not wrong or each.check in CERTAIN)
    if json:
        _print_json(problems, None if wrong else found)
    elif problems:
        name = spec.name if asked is None or asked.name == NAMELESS else asked.name
        raise Refused(name, problems)
    elif found is not None:
        for words in found.notes:
            note(f"not checked: {words}")
        _print(found)
    if lock is not None and found is not None:
        _write(found, lock)


def schema(
    of: Annotated[
        Literal["fine-tuning", "retraining", "embedder", "reranker"],
        typer.Option(help="What it is of."),
    ] = "fine-tuning",
) -> None:
    """Print the JSON Schema of specifications, for editors and forms."""
    from training import continual, spec
    from training.retrieval_models import specification

    match of:
        case "fine-tuning":
            print_json(spec.schema())
        case "retraining":
            print_json(continual.schema())
        case "embedder" | "reranker":
            print_json(specification.schema(of))


def _plan(asked: FineTuning, path: Path) -> Plan:
    from service.models import tuning
    from training import planning

    with opened() as parts, waiting("reading rows"):
        return planning.plan(
            asked,
            tuning.places(parts, path.absolute().parent),
            path=str(path),
        )


def _print_json(problems: Sequence[Problem], found: Plan | None) -> None:
    """Print the problems, and the lock of what can be one."""
    told = [{"check": each.check, "where": each.where, "what": each.what} for each in problems]
    lock = None if found is None else found.lock
    print_json(
        {
            "problems": told,
            "notes": () if found is None else found.notes,
            "digest": None if lock is None else lock.digest,
            "lock": None if lock is None else lock.as_json(),
        }
    )
    if told:
        raise typer.Exit(FAILED)


def _print(found: Plan) -> None:
    lock = found.lock
    rows: list[tuple[str, object]] = [(key, digest) for key, digest in lock.digests.items()]
    for key, lengths in lock.lengths.items():
        rows.append((f"{key} rows", f"{lengths['kept']:,} of {lengths['rows']:,}"))
        quantiles = ", ".join(f"{name} {value:,}" for name, value in lengths["quantiles"].items())
        rows.append((f"{key} tokens", f"{lengths['tokens']:,}; of a row {quantiles}"))
        rows.append((f"{key} learned", f"{lengths['supervised'] / max(1, lengths['tokens']):.0%}"))
    rows += [(name, value) for name, value in (lock.topology or {}).items() if value != 1]
    rows += [(name.replace("_", " "), value) for name, value in (lock.batches or {}).items()]
    rows.append(("gradient checkpointing", "yes" if lock.gradient_checkpointing else "no"))
    if lock.memory is not None:
        held = ", ".join(f"{name} {size / GIB:.2f}" for name, size in lock.memory.items())
        rows.append(("memory of a process, GiB", held))
    if lock.compressed is not None:
        before, after, at_work = (
            f"{lock.compressed[name] / GIB:.3g}" for name in ("before", "after", "at_work")
        )
        scheme = lock.spec["compress"]["scheme"]
        rows.append((f"weights in {scheme}, GiB", f"{before} -> {after}"))
        rows.append((f"memory to store them in {scheme}, GiB", at_work))
    if lock.hours is not None:
        rows.append(("hours", f"{lock.hours:.2f}"))
    if lock.cost is not None:
        rows.append(("cost", f"{lock.cost:.2f}"))
    rows.append(("lock", lock.digest))
    print_table(("what", "comes to"), rows)
    from training.planning import command_line

    say(command_line(_passing_on(lock.launch)))


def _passing_on(launch: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command that a launcher runs with the settings that variables hold here."""
    from service.work.launching import own_variables

    if "--" not in launch:
        return launch
    end = launch.index("--")
    given = {each.partition("=")[0] for each in launch[:end]}
    own = [word for name in own_variables() if name not in given for word in ("--secret", name)]
    return (*launch[:end], *own, *launch[end:])


def _write(found: Plan, path: Path) -> None:
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    path.write_bytes(orjson.dumps(found.lock.as_json(), option=options) + b"\n")
