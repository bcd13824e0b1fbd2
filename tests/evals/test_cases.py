"""Cases: read from files and datasets, and refused by row where something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evals import cases
from evals.cases import Cases
from infra.artifacts.store import open_store
from infra.database.engine import Database
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, NotFound
from scripted_evals import suite, write_rows

ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "question": "How long?",
        "answer": ["48 m", "48 metres"],
        "relevant": "bridge.md",
        "cluster": "bridge",
        "language": "en",
    },
    {"id": "b", "question": "Wie lang?", "answerable": False, "language": "de", "year": 2024},
]


def load(folder: Path, rows: Any = None, **changes: Any) -> Cases:
    if rows is not None:
        write_rows(folder, rows)
    return cases.load(suite(**changes), folder=folder, datasets=_none)


def _none() -> Any:
    raise AssertionError("a file needs no store")


def test_columns_become_cases_and_the_others_metadata(tmp_path: Path) -> None:
    first, second = load(tmp_path, ROWS).cases
    assert (first.id, first.input, first.references) == ("a", "How long?", ("48 m", "48 metres"))
    assert (first.relevant, first.cluster) == ({"bridge.md": 1.0}, "bridge")
    assert (second.answerable, second.cluster) == (False, "b")
    assert second.metadata == {"language": "de", "year": 2024}


def test_fields_can_have_other_names_and_rows_no_ids(tmp_path: Path) -> None:
    rows = [
        {"sepal": 1.5, "petal": 2, "species": "setosa"},
        {"sepal": 3, "petal": 4, "species": "x"},
    ]
    fields = {"input": ["sepal", "petal"], "expected": "species"}
    found = load(tmp_path, rows, dataset={"file": "cases.jsonl", "fields": fields})
    assert [case.id for case in found.cases] == ["1", "2"]
    assert found.cases[0].input == {"sepal": 1.5, "petal": 2}
    assert found.cases[0].expected == "setosa"
    assert found.cases[0].metadata == {}


def test_slices_are_those_whose_columns_match(tmp_path: Path) -> None:
    slices = [
        {"name": "german", "where": {"language": "de"}},
        {"name": "both", "where": {"language": ["de", "en"]}},
    ]
    found = load(tmp_path, ROWS, slices=slices)
    assert [case.slices for case in found.cases] == [("both",), ("german", "both")]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"id": "a", "qestion": "?"}], "line 1: no column 'question'; did you mean 'qestion'"),
        (
            [*ROWS, {"id": "a", "question": "?"}],
            "line 3: the id 'a' is that of cases.jsonl, line 1",
        ),
        ([{"question": ""}], "line 1: 'question' is empty"),
        ([{"question": "?", "answerable": "perhaps"}], "line 1: answerable is 'perhaps'"),
        ([{"question": "?", "relevant": 3}], "line 1: relevant is 3"),
        ([{"question": "?", "relevant": {"a.md": "high"}}], "line 1: relevant is"),
        ([], "has no rows"),
    ],
)
def test_row_that_is_wrong_is_named(tmp_path: Path, rows: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load(tmp_path, rows)


def test_empty_slice_is_refused_before_the_run(tmp_path: Path) -> None:
    slices = [{"name": "french", "where": {"language": "fr"}}]
    with pytest.raises(InvalidRequest, match="'french' is empty.*language = 'fr'"):
        load(tmp_path, ROWS, slices=slices)


def test_file_that_is_no_table_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "cases.txt").write_text("?")
    with pytest.raises(InvalidRequest, match=r"use \.jsonl"):
        load(tmp_path, dataset={"file": "cases.txt"})
    (tmp_path / "cases.jsonl").write_text('{"question": "?"}\n{"question"\n')
    with pytest.raises(InvalidRequest, match="line 2"):
        load(tmp_path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_csv_and_parquet_give_the_cases_that_jsonl_gives(tmp_path: Path, ending: str) -> None:
    rows = [
        {"id": "a", "question": "How long?", "answer": "48 m", "answerable": True, "n": 1},
        {"id": "b", "question": "Who?", "answer": None, "answerable": False, "n": 2},
    ]
    frame = pl.DataFrame(rows)
    path = tmp_path / f"cases.{ending}"
    frame.write_csv(path) if ending == "csv" else frame.write_parquet(path)
    found = load(tmp_path, dataset={"file": path.name})
    assert found.cases == load(tmp_path, rows).cases
    assert found.digest == load(tmp_path, rows).digest


def test_dataset_of_the_store_is_pinned_and_gives_the_same_cases(
    tmp_path: Path, database: Database
) -> None:
    datasets = Datasets(open_store(tmp_path / "store", database))
    plain = [{"id": "a", "question": "?", "answer": "x", "relevant": {"a.md": 2}}]
    plain.append({"id": "b", "question": "!", "answer": "y", "relevant": {"b.md": 1}})
    datasets.put(write_rows(tmp_path, plain), "faq")
    chosen = suite(dataset={"artifact": "dataset/faq"})
    found = cases.load(chosen, folder=tmp_path, datasets=lambda: datasets)
    assert found.source == "dataset/faq@v1"
    assert found.artifact is not None
    assert found.artifact.startswith("dataset/faq@sha256:")
    assert found.cases == load(tmp_path).cases
    with pytest.raises(NotFound, match="did you mean"):
        cases.load(
            suite(dataset={"artifact": "dataset/fag"}), folder=tmp_path, datasets=lambda: datasets
        )


def test_digest_is_of_what_is_asked_and_not_of_its_slices(tmp_path: Path) -> None:
    whole = load(tmp_path, ROWS)
    sliced = load(tmp_path, ROWS, slices=[{"name": "german", "where": {"language": "de"}}])
    assert sliced.digest == whole.digest
    assert load(tmp_path, [{**ROWS[0], "answer": "49 m"}, ROWS[1]]).digest != whole.digest


def test_limit_takes_the_first(tmp_path: Path) -> None:
    assert len(load(tmp_path, ROWS, dataset={"file": "cases.jsonl", "limit": 1}).cases) == 1


def test_column_that_the_suite_names_and_no_row_has_is_refused(tmp_path: Path) -> None:
    dataset = {"file": "cases.jsonl", "fields": {"expected": "anwser"}}
    with pytest.raises(InvalidRequest, match="'anwser' of `expected`; did you mean 'answer'"):
        load(tmp_path, ROWS, dataset=dataset)
