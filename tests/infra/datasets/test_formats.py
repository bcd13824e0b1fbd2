"""Every format gives back the rows that were put, in the same order and with the same types."""

from __future__ import annotations

import csv
import gzip
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets as hugging_face
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.datasets.csv_files import Dialect
from infra.datasets.datasets import Datasets, Options
from infra.errors import InvalidRequest, NotFound

EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
CSV_TYPES = {
    pl.Int64: "int64",
    pl.Float64: "double",
    pl.String: "string",
    pl.Boolean: "bool",
    pl.Date: "date32[day]",
    pl.Datetime("us"): "timestamp[us]",
}
FRACTIONS = st.floats(allow_nan=False, allow_infinity=False)


def columns(**kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({name: st.none() | kind for name, kind in kinds.items()})
    return st.lists(row, min_size=1, max_size=12)


@EXAMPLES
@given(
    rows=columns(
        number=INTEGERS,
        fraction=FRACTIONS,
        text=TEXT,
        flag=st.booleans(),
        day=st.dates(),
        moment=st.datetimes(),
        data=st.binary(max_size=9),
        items=st.lists(st.integers(0, 9), max_size=3),
        pair=st.fixed_dictionaries({"a": st.none() | INTEGERS, "b": st.none() | TEXT}),
    )
)
def test_table_comes_back_as_it_was(shared: Datasets, rows: list[dict[str, Any]]) -> None:
    schema = pa.schema(
        {
            "number": pa.int64(),
            "fraction": pa.float64(),
            "text": pa.string(),
            "flag": pa.bool_(),
            "day": pa.date32(),
            "moment": pa.timestamp("us"),
            "data": pa.binary(),
            "items": pa.list_(pa.int64()),
            "pair": pa.struct({"a": pa.int64(), "b": pa.string()}),
        }
    )
    table = pa.Table.from_pylist(rows, schema)
    reference = str(shared.put(table, "table"))
    assert shared.load(reference).to_pylist() == rows
    assert shared.load(reference).schema.equals(schema)
    assert list(shared.rows(reference)) == rows


@EXAMPLES
@given(
    rows=columns(
        number=INTEGERS,
        fraction=FRACTIONS,
        text=TEXT,
        flag=st.booleans(),
        messages=st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": TEXT}),
            max_size=3,
        ),
        pair=st.fixed_dictionaries({"a": st.none() | INTEGERS, "b": st.none() | TEXT}),
    )
)
def test_rows_come_back_as_they_were(shared: Datasets, rows: list[dict[str, Any]]) -> None:
    reference = str(shared.put(rows, "rows"))
    assert list(shared.rows(reference)) == rows
    assert shared.describe(reference).format == "jsonl"


@EXAMPLES
@given(
    rows=columns(
        number=st.integers(-(10**18) + 1, 10**18 - 1),
        fraction=FRACTIONS,
        text=PLAIN.map(lambda text: f"s{text}"),
        flag=st.booleans(),
        day=st.dates(),
        moment=st.datetimes(),
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
def test_csv_comes_back_as_it_was(
    shared: Datasets, tmp_path: Path, rows: list[dict[str, Any]], delimiter: str
) -> None:
    types = {
        "number": pl.Int64,
        "fraction": pl.Float64,
        "text": pl.String,
        "flag": pl.Boolean,
        "day": pl.Date,
        "moment": pl.Datetime("us"),
    }
    path = tmp_path / "rows.csv"
    pl.DataFrame(rows, types).write_csv(
        path, separator=delimiter, datetime_format="%Y-%m-%dT%H:%M:%S%.6f"
    )
    reference = str(shared.put(path, "csv", Options(csv=Dialect(delimiter))))
    # What a column holds nothing of has no type but text.
    assert list(shared.rows(reference)) == rows
    for column in shared.describe(reference).schema:
        if any(row[column.name] is not None for row in rows):
            assert column.type == CSV_TYPES[types[column.name]]


@EXAMPLES
@given(
    rows=st.lists(
        st.tuples(
            PLAIN.map(lambda text: f"s{text}"), st.sampled_from(['"', ',"', '5" x', "\n", "a"])
        ),
        min_size=1,
        max_size=30,
    ),
    block=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_divided_between_rows_wherever_a_block_ends(
    shared: Datasets, tmp_path: Path, rows: list[tuple[str, str]], block: int, end: str
) -> None:
    path = tmp_path / "blocks.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator=end)
        writer.writerows([("first", "second"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.datasets.csv_files._BLOCK_BYTES", block)
        reference = str(shared.put(path, "blocks"))
        found = [tuple(row.values()) for row in shared.rows(reference)]
    assert found == rows


@pytest.mark.parametrize("text", ['a,b\n5" x,1\ny,2\n', "a,b\r5,1\ry,2\r", "\ufeffa,b\n5,1\ny,2"])
def test_csv_as_programs_write_it_is_read(
    datasets: Datasets, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("infra.datasets.csv_files._BLOCK_BYTES", 3)
    reference = str(datasets.put(written("odd.csv", text), "odd"))
    assert datasets.describe(reference).columns == ("a", "b")
    assert [row["b"] for row in datasets.rows(reference)] == [1, 2]


@EXAMPLES
@given(rows=columns(number=INTEGERS, text=TEXT, items=st.lists(TEXT, max_size=3)))
def test_hugging_face_dataset_comes_back_as_it_was(
    shared: Datasets, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    features = hugging_face.Features(
        {
            "number": hugging_face.Value("int64"),
            "text": hugging_face.Value("string"),
            "items": hugging_face.List(hugging_face.Value("string")),
        }
    )
    dataset = hugging_face.Dataset.from_list(rows, features=features)
    reference = shared.put(dataset, "hugging-face")
    assert list(shared.rows(str(reference))) == rows
    back = shared.hugging_face(str(reference), tmp_path_factory.mktemp("mapped") / "dataset")
    assert back.to_list() == rows
    assert back.features == features
    # The same rows are the same version, although the package draws a fingerprint.
    again = hugging_face.Dataset.from_list(rows, features=features)
    assert shared.put(again, "hugging-face") == reference


def test_dataset_dict_keeps_its_splits(datasets: Datasets, tmp_path: Path) -> None:
    parts = {
        name: hugging_face.Dataset.from_dict({"id": list(range(size))})
        for name, size in (("train", 5), ("test", 2))
    }
    for number, source in enumerate((hugging_face.DatasetDict(parts), parts)):
        reference = str(datasets.put(source, "parts"))
        assert reference == "dataset/parts@v1"
        assert datasets.describe(reference).format == "arrow"
        assert datasets.load(reference, split="test")["id"].to_pylist() == [0, 1]
        opened = datasets.hugging_face(reference, tmp_path / str(number))
        assert {name: len(part) for name, part in opened.items()} == {"train": 5, "test": 2}
        train = datasets.hugging_face(reference, tmp_path / f"train{number}", split="train")
        assert train["id"][:] == [0, 1, 2, 3, 4]


def test_streaming_dataset_is_stored_as_parquet(
    datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where there is torch the package would load it, for its data loaders.
    monkeypatch.setattr("datasets.config.TORCH_AVAILABLE", False)

    def generate() -> Any:
        for number in range(2500):
            yield {"id": number, "text": f"row {number}"}

    stream = hugging_face.IterableDataset.from_generator(generate)
    reference = str(datasets.put(stream, "stream"))
    assert datasets.describe(reference).format == "parquet"
    assert datasets.load(reference)["id"].to_pylist() == list(range(2500))


def test_folder_that_hugging_face_saved_is_read(datasets: Datasets, tmp_path: Path) -> None:
    whole = hugging_face.Dataset.from_dict({"id": list(range(10))})
    dataset = whole.select(range(4, 10))
    dataset.save_to_disk(str(tmp_path / "saved"))
    reference = str(datasets.put(tmp_path / "saved", "saved"))
    assert datasets.load(reference)["id"].to_pylist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("source", ["csv", "jsonl", "parquet"])
def test_files_open_as_hugging_face_datasets(
    datasets: Datasets, tmp_path: Path, source: str
) -> None:
    frame = pl.DataFrame({"id": [1, 2], "text": ["a", None]})
    path = tmp_path / f"train.{source}"
    write = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}
    write[source](path)
    reference = str(datasets.put(path, "files"))
    opened = datasets.hugging_face(reference, tmp_path / "out")
    assert opened.to_list() == frame.to_dicts()


def test_any_table_of_arrow_is_taken(datasets: Datasets) -> None:
    frame = pl.DataFrame({"id": [1, 2], "kind": ["a", "b"]})
    references = {
        str(datasets.put(table, "tables"))
        for table in (frame, frame.to_arrow(), frame.to_pandas(), frame.to_arrow().to_reader())
    }
    assert references == {"dataset/tables@v1"}
    assert datasets.frame("tables").equals(frame)


def test_encodings_and_views_are_what_they_stand_for(datasets: Datasets) -> None:
    table = pa.table(
        {
            "coded": pa.array(["x", "y", "x"]).dictionary_encode(),
            "large": pa.array(["a", "b", None], pa.large_string()),
            "view": pa.array(["a", "b", None], pa.string_view()),
            "half": pa.array([0.5, 1.0, 2.0], pa.float16()),
        }
    )
    reference = str(datasets.put(table, "coded"))
    assert [column.type for column in datasets.describe(reference).schema] == [
        *["string"] * 3,
        "float",
    ]
    assert datasets.load(reference)["coded"].to_pylist() == ["x", "y", "x"]


def test_splits_are_told_by_names_of_files_and_folders(
    datasets: Datasets, written: Callable[..., Path]
) -> None:
    for name, rows in (("train-00000.jsonl", 2), ("train-00001.jsonl", 3), ("dev.jsonl", 1)):
        path = written(name, "".join(f'{{"id": {number}}}\n' for number in range(rows)))
    written("test/part.jsonl", '{"id": 9}\n')
    written("README.md", "# What this is\n")
    written(".cache/x.bin", b"left out")
    description = datasets.describe(str(datasets.put(path.parent, "named")))
    assert {name: split.rows for name, split in description.splits.items()} == {
        "train": 5,
        "validation": 1,
        "test": 1,
    }
    assert list(description.splits) == ["train", "validation", "test"]
    assert description.rows == 7
    assert datasets.load("named", split="train")["id"].to_pylist() == [0, 1, 0, 1, 2]
    assert datasets.profile("named", split="test").column("id").maximum == 9
    assert datasets.profile("named").column("id").distinct == 4
    with pytest.raises(NotFound, match="did you mean 'train'"):
        datasets.iterate("named", split="trian")


def test_mapping_names_the_splits(datasets: Datasets, written: Callable[..., Path]) -> None:
    paths = {name: written(f"{name}.csv", "id\n1\n2\n") for name in ("old", "new")}
    reference = str(datasets.put(paths, "mapped"))
    assert datasets.describe(reference).files("new") == ("new/new.csv",)
    with pytest.raises(InvalidRequest, match="csv and jsonl"):
        datasets.put({"a": paths["old"], "b": [{"id": 1}]}, "mixed")
    with pytest.raises(InvalidRequest, match="not the name of a split"):
        datasets.put({"../a": [{"id": 1}]}, "escape")


def test_files_of_one_dataset_may_lack_columns(
    datasets: Datasets, written: Callable[..., Path]
) -> None:
    first = written("part-1.jsonl", '{"id": 1, "score": 2}\n')
    second = written("part-2.jsonl", '{"id": 2, "score": 0.5, "note": {"by": "x"}}\n{"id": 3}\n')
    reference = str(datasets.put([first, second], "parts"))
    assert list(datasets.rows(reference)) == [
        {"id": 1, "score": 2.0, "note": None},
        {"id": 2, "score": 0.5, "note": {"by": "x"}},
        {"id": 3, "score": None, "note": None},
    ]


def test_parquet_files_with_other_types_are_widened(datasets: Datasets, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": pa.array([2], pa.int64()), "x": ["y"]}), tmp_path / "b.parquet")
    reference = str(datasets.put([tmp_path / "a.parquet", tmp_path / "b.parquet"], "wide"))
    assert datasets.load(reference).to_pylist() == [{"id": 1, "x": None}, {"id": 2, "x": "y"}]
    narrow = list(datasets.iterate(reference, columns=["x"]))
    assert [batch.num_rows for batch in narrow] == [1, 1]


def test_compressed_text_is_read(datasets: Datasets, written: Callable[..., Path]) -> None:
    path = written("rows.csv.gz", gzip.compress(b"id,name\n1,a\n2,b\n"))
    assert datasets.load(str(datasets.put(path, "packed"))).num_rows == 2
    path = written("rows.jsonl.gz", gzip.compress(b'{"id": 1}\n{"id": 2}\n'))
    assert datasets.load(str(datasets.put(path, "packed"))).num_rows == 2


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-5", ""], "int64"),
        (["007", "123"], "string"),
        (["12345678901234567890"], "string"),
        (["1", "2.5", "1e3", "nan"], "double"),
        (["1.5", "1234567890123456789"], "string"),
        (["+49 30 1234"], "string"),
        (["true", "False"], "bool"),
        (["1", "true"], "string"),
        (["2024-02-29"], "date32[day]"),
        (["2023-02-29"], "string"),
        (["2024-02-29T12:00", "2024-02-29 12:00:00.5"], "timestamp[us]"),
        (["2024-02-29T12:00:00Z", "2024-02-29T12:00:00+02:00"], "timestamp[us, tz=UTC]"),
        (["", ""], "string"),
        (["a b", " 1"], "string"),
    ],
)
def test_csv_column_has_the_type_that_changes_no_value(
    datasets: Datasets, written: Callable[..., Path], values: list[str], kind: str
) -> None:
    path = written("typed.csv", "n,value\n" + "".join(f"0,{value}\n" for value in values))
    reference = str(datasets.put(path, "typed"))
    assert datasets.describe(reference).schema[1].type == kind
    if kind == "string":
        assert datasets.load(reference)["value"].to_pylist() == [value or None for value in values]


def test_type_is_found_even_if_the_last_row_decides(
    datasets: Datasets, written: Callable[..., Path]
) -> None:
    # More than one block of what is read at once.
    path = written("late.csv", "value,pad\n" + f"1,{'x' * 98}\n" * 100_000 + "one,x\n")
    description = datasets.describe(str(datasets.put(path, "late")))
    assert description.schema[0].type == "string"
    assert description.rows == 100_001


def test_nulls_of_csv_are_those_that_are_named(
    datasets: Datasets, written: Callable[..., Path]
) -> None:
    path = written("nulls.csv", 'a,b\n1,?\n?,""\n3,"?"\n')
    datasets.put(path, "nulls", Options(csv=Dialect(nulls=("", "?"))))
    assert datasets.load("nulls").to_pylist() == [
        {"a": 1, "b": None},
        {"a": None, "b": ""},
        {"a": 3, "b": "?"},
    ]


def test_columns_with_letters_of_all_sorts_come_back(datasets: Datasets) -> None:
    names = ["a.b", "a", "Ünïcode ✓", " space ", string.punctuation, "list<item: x>"]
    table = pa.table({name: [number] for number, name in enumerate(names)})
    assert datasets.load(str(datasets.put(table, "names"))).equals(table)
    assert datasets.load("names", columns=["a", "a.b"]).to_pylist() == [{"a": 1, "a.b": 0}]


def test_dataset_without_rows_keeps_its_columns(
    datasets: Datasets, written: Callable[..., Path]
) -> None:
    schema = pa.schema({"id": pa.int64(), "text": pa.string()})
    assert datasets.load(str(datasets.put(schema.empty_table(), "empty"))).schema.equals(schema)
    assert datasets.profile("empty").rows == 0
    assert datasets.head("empty") == []
    header = datasets.put(written("empty.csv", "id,text\n"), "empty")
    assert datasets.describe(str(header)).columns == ("id", "text")
    assert datasets.difference("empty@v1", "empty@v1").is_empty
