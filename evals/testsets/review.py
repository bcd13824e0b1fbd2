"""Review of proposed cases: which a person accepted, rejected or edited, kept in their file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import orjson

from infra.errors import InvalidRequest, NotFound

COLUMN = "review_state"
State: TypeAlias = Literal["proposed", "accepted", "rejected", "edited"]
STATES: tuple[State, ...] = get_args(State)
RUN: tuple[State, ...] = ("accepted", "edited")
"""What a suite runs; whoever edits a case accepts what it has become."""

Row: TypeAlias = dict[str, Any]


def read(path: Path) -> list[Row]:
    """Return the cases of a file of JSON Lines.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: a line is no object, or has no `id`; names it.
    """
    if not path.is_file():
        raise NotFound("file of cases", str(path), among=map(str, path.parent.glob("*.jsonl")))
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"{str(path)!r}, line {number}: {error}") from None
        if not isinstance(row, dict) or "id" not in row:
            raise InvalidRequest(f"{str(path)!r}, line {number}: no object with an 'id'")
        rows.append(row)
    return rows


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the cases beside the file and put them in its place, so that a kill loses neither."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        new.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        new.flush()
        os.fsync(new.fileno())
    # Such a file is its maker's alone; a set of cases is shared like other files.
    mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
    os.chmod(new.name, mode & 0o777)
    os.replace(new.name, path)


def state_of(row: Mapping[str, Any], place: str = "") -> State | None:
    """Return a row's state; None where nobody reviews the file.

    Raises:
        InvalidRequest: it is not one of the four.
    """
    said = row.get(COLUMN)
    if said is None or said in STATES:
        return said
    raise InvalidRequest(
        f"{place or row.get('id')}: {COLUMN} is {said!r}; it is one of {', '.join(STATES)}"
    )


def decide(rows: Sequence[Row], ids: Sequence[str], state: State) -> None:
    """Set the state of some cases.

    Raises:
        NotFound: there is no case of that id; nothing is changed.
    """
    for row in _chosen(rows, ids):
        row[COLUMN] = state


def edit(rows: Sequence[Row], id_: str, changes: Mapping[str, Any]) -> None:
    """Change columns of a case, and say that it was edited. Raises as `decide`.

    Where the answer changes, its place in the document is forgotten.
    """
    (row,) = _chosen(rows, [id_])
    row.update(changes)
    row[COLUMN] = "edited"
    if "answer" in changes:
        for name in ("answer_start", "answer_end"):
            row.pop(name, None)


def merge(kept: Sequence[Row], proposed: Sequence[Row]) -> list[Row]:
    """Return what there is, unchanged, and of the proposed what is not among it, each id once."""
    known = {str(row["id"]) for row in kept}
    new: dict[str, Row] = {}
    for row in proposed:
        if str(row["id"]) not in known:
            new.setdefault(str(row["id"]), row)
    return [*kept, *new.values()]


def _chosen(rows: Sequence[Row], ids: Sequence[str]) -> list[Row]:
    by_id = {str(row["id"]): row for row in rows}
    for each in ids:
        if each not in by_id:
            raise NotFound("case", each, among=by_id)
    return [by_id[each] for each in ids]


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
