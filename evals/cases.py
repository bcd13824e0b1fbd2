"""Reads the cases of a suite from a file or a dataset, and sorts them into slices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import orjson

from evals.problems import nearest
from evals.suite import SHIPPED, Fields, Slice, Suite
from evals.testsets import review
from evals.trial import Case
from infra.datasets import files, json_lines
from infra.datasets.csv_files import Dialect
from infra.datasets.data_file import DataFile
from infra.errors import InvalidRequest, NotFound

Row: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where it stands, for messages, and its columns."""
_TRUE, _FALSE = (True, 1, "true", "yes", "1"), (False, 0, "false", "no", "0")


class Rows(Protocol):
    """Datasets of the artifact store, as `infra.datasets` has them."""

    def find(self, reference: str) -> Any: ...

    def rows(self, reference: str, *, split: str | None = None) -> Iterable[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Cases:
    """What a suite asks, in the order of its dataset."""

    cases: tuple[Case, ...]
    source: str
    """The file's name, or the version of the dataset."""
    artifact: str | None
    """The reference of the dataset with its digest; None of a file."""

    copies: tuple[Case, ...] = ()
    """The same with perturbed inputs."""
    copies_digest: str = ""
    """Of these, and of the versions of what made them; empty without any."""
    skipped: tuple[tuple[str, str, str], ...] = ()
    """Case, perturbation, and why there is no copy."""
    left_out: int = 0
    """Rows that were proposed and not accepted, or rejected."""

    @property
    def asked(self) -> tuple[Case, ...]:
        """All that a run asks: the cases, then their copies."""
        return (*self.cases, *self.copies)

    @property
    def digest(self) -> str:
        """`sha256:` and the hash of the cases, whatever file they came from; not of slices."""
        return digest_of(self.cases)


def load(suite: Suite, *, folder: Path, datasets: Callable[[], Rows]) -> Cases:
    """Return the cases of a suite.

    Args:
        suite: names the file or dataset.
        folder: of the suite's file; paths are relative to it.
        datasets: opens the artifact store, where it is needed.

    Raises:
        NotFound: there is no such file or dataset.
        InvalidRequest: a row has no input, two have one id, a slice is empty; names the row.
    """
    chosen = suite.dataset
    if chosen.artifact is not None:
        store = datasets()
        found = store.find(chosen.artifact)
        pinned = found.pinned
        rows: Iterator[Row] = (
            (f"row {number} of {found}", row)
            for number, row in enumerate(store.rows(pinned, split=chosen.split), 1)
        )
        source, artifact = str(found), str(pinned)
    else:
        path = folder / str(chosen.file)
        if not path.is_file():
            if folder == SHIPPED:
                raise InvalidRequest(
                    f"The cases of {suite.name!r} do not come with it. If you have the public data "
                    f"that they are made from: ragstone eval prepare {suite.name} --from DATA "
                    f"--to {suite.name}"
                )
            near = [str(each) for each in islice(path.parent.glob("*"), 200)]
            raise NotFound("file of cases", str(path), among=near)
        rows, source, artifact = rows_of(path), path.name, None
    reviewed = _Reviewed(rows, unreviewed=chosen.unreviewed)
    built = _build(islice(reviewed, chosen.limit), chosen.fields, suite.slices)
    if not built and reviewed.left_out:
        raise InvalidRequest(
            f"None of the {reviewed.left_out} cases of {source!r} is accepted; see: ragstone eval "
            "review, or run them with --unreviewed"
        )
    if not built:
        raise InvalidRequest(f"{source!r} has no rows; a suite needs cases")
    _require_members(suite.slices, built, source)
    return Cases(tuple(built), source, artifact, left_out=reviewed.left_out)


def digest_of(cases: Iterable[Case]) -> str:
    """Return `sha256:` and the hash of all of cases but their slices."""
    total = hashlib.sha256()
    for case in cases:
        content = (case.id, case.input, case.expected, case.answerable, case.relevant)
        line = (*content, case.cluster, case.metadata)
        total.update(orjson.dumps(line, option=orjson.OPT_SORT_KEYS, default=str) + b"\n")
    return f"sha256:{total.hexdigest()}"


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of a table, each with where it stands.

    Raises:
        InvalidRequest: the file is no table, or a line of it is damaged; names the line.
    """
    form = files.format_of(path.name)
    file = DataFile.at(path, path.name)
    if form is None:
        raise InvalidRequest(
            f"{str(path)!r} is no table by its name; use .jsonl, .csv, .tsv or .parquet"
        )
    if form == "jsonl":  # read without pyarrow, so that a bare installation can evaluate
        for chunk in json_lines.chunks(file, 1_000):
            for number, line in zip(chunk.lines, chunk.rows, strict=True):
                yield f"{path.name}, line {number}", line
        return
    from infra.datasets import plain

    schema = files.infer(form, [file], Dialect())
    number = 0
    for batch in files.batches(form, file, schema, dialect=Dialect()):
        for row in plain.to_rows(batch):
            number += 1
            yield f"{path.name}, row {number}", row


class _Reviewed:
    """The rows that may run, and how many may not, of those that were read."""

    def __init__(self, rows: Iterable[Row], *, unreviewed: bool) -> None:
        self._rows = rows
        self._states = {None, *review.RUN, *(("proposed",) if unreviewed else ())}
        self.left_out = 0

    def __iter__(self) -> Iterator[Row]:
        for place, row in self._rows:
            if review.state_of(row, place) in self._states:
                yield place, row
            else:
                self.left_out += 1


def _build(rows: Iterable[Row], fields: Fields, slices: Sequence[Slice]) -> list[Case]:
    built: list[Case] = []
    seen: dict[str, str] = {}
    columns: dict[str, None] = {}
    for number, (place, row) in enumerate(rows, 1):
        columns.update(dict.fromkeys(row))
        case = _case(row, fields, place=place, number=number, slices=slices)
        if case.id in seen:
            raise InvalidRequest(
                f"{place}: the id {case.id!r} is that of {seen[case.id]} too; ids tell cases apart"
            )
        seen[case.id] = place
        built.append(case)
    _require_columns(fields, columns)
    return built


def _case(
    row: Mapping[str, Any], fields: Fields, *, place: str, number: int, slices: Sequence[Slice]
) -> Case:
    identifier = row.get(fields.id)
    name = str(number) if identifier is None else str(identifier)
    expected = row.get(fields.expected)
    named = {fields.id, fields.expected, fields.answerable, fields.relevant, fields.cluster}
    named.add(review.COLUMN)
    inputs = (fields.input,) if isinstance(fields.input, str) else fields.input
    return Case(
        id=name,
        input=_input(row, fields.input, place),
        expected=_plain(expected),
        answerable=_truth(row.get(fields.answerable), place),
        relevant=_grades(row.get(fields.relevant), place),
        cluster=str(row.get(fields.cluster) or name),
        slices=tuple(each.name for each in slices if _is_in(each, row)),
        metadata={
            key: _plain(value) for key, value in row.items() if key not in named.union(inputs)
        },
    )


def _input(row: Mapping[str, Any], names: str | Sequence[str], place: str) -> Any:
    wanted = (names,) if isinstance(names, str) else names
    for name in wanted:
        if name not in row:
            raise InvalidRequest(
                f"{place}: no column {name!r}{nearest(name, row)}; "
                "say which holds the question with `dataset.fields.input`"
            )
    if not isinstance(names, str):
        return {name: _plain(row[name]) for name in names}
    if row[names] in (None, "", [], {}):
        raise InvalidRequest(f"{place}: {names!r} is empty; there is nothing to ask")
    return _plain(row[names])


def _truth(value: Any, place: str) -> bool | None:
    if value is None or value == "":
        return None
    plain = value.strip().lower() if isinstance(value, str) else value
    if plain in _TRUE or plain in _FALSE:
        return plain in _TRUE
    raise InvalidRequest(f"{place}: answerable is {value!r}; write true or false")


def _grades(value: Any, place: str) -> dict[str, float]:
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        return {value: 1.0}
    if isinstance(value, Mapping):
        graded = {str(name): grade for name, grade in value.items() if grade is not None}
        if all(isinstance(grade, int | float) for grade in graded.values()):
            return {name: float(grade) for name, grade in graded.items()}
    elif isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return dict.fromkeys(value, 1.0)
    raise InvalidRequest(
        f"{place}: relevant is {value!r:.80}; give a source, a list of them, or grades by source"
    )


def _require_columns(fields: Fields, columns: Mapping[str, None]) -> None:
    """A column that the suite names and no row has is a name spelt wrong."""
    for field in sorted(fields.model_fields_set - {"input"}):
        name = getattr(fields, field)
        if columns and name not in columns:
            raise InvalidRequest(
                f"No row has the column {name!r} of `{field}`{nearest(name, columns)}"
            )


def _is_in(one: Slice, row: Mapping[str, Any]) -> bool:
    return all(
        row.get(column) in (wanted if isinstance(wanted, list) else [wanted])
        for column, wanted in one.where.items()
    )


def _require_members(slices: Sequence[Slice], cases: Sequence[Case], source: str) -> None:
    """A slice without cases is a name spelt wrong: what it demands would hold of nothing."""
    for one in slices:
        if not any(one.name in case.slices for case in cases):
            wanted = ", ".join(f"{column} = {value!r}" for column, value in one.where.items())
            raise InvalidRequest(
                f"Slice {one.name!r} is empty: no case of {source!r} has {wanted}; mend `where`"
            )


def _plain(value: Any) -> Any:
    """Return JSON values: dates become text, so that a case survives being written."""
    return orjson.loads(orjson.dumps(value, default=str)) if value is not None else None
