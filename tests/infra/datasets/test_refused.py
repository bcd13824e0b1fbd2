"""Hostile and broken files: the error says which file and line, and nothing is kept."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import datasets as hugging_face
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.artifacts.publishing import Made
from infra.datasets.datasets import Datasets, Options
from infra.errors import InvalidRequest, NotFound, RagstoneError, StorageFailed, TooLarge

DEEP = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.jsonl", '{"id": 1}\n\n{"id": \n', "'bad.jsonl', line 3: "),
        ("bad.jsonl", '{"id": 1}\n[1, 2]\n', "'bad.jsonl', line 2: [1, 2] is not an object"),
        ("bad.jsonl", '{"id": 1}\n{"id": "x"}\n', "'bad.jsonl', line 2: 'id' does not go with"),
        ("bad.jsonl", '{"id": 1.5}\n{"id": true}\n', "'bad.jsonl', line 2: 'id' does not go with"),
        ("bad.jsonl", '{"a": {"b": 1}}\n{"a": {"b": "x"}}\n', "'bad.jsonl', line 2: 'a'"),
        ("bad.jsonl", '{"id": 9223372036854775808}\n', "needs more than 64 bits"),
        ("bad.jsonl", '{"id": -9223372036854775809}\n', "needs more than 64 bits"),
        ("bad.jsonl", '{"id": ' + "9" * 5000 + "}\n", "needs more than 64 bits"),
        ("bad.jsonl", '{"id": 0.5}\n{"id": 9007199254740993}\n', "'bad.jsonl', line 2: 'id'"),
        ("bad.jsonl", '{"": 1}\n', "'bad.jsonl', line 1 or later: a key is empty"),
        ("bad.jsonl", '{"a": [{"b": 1.5}, {"b": true}]}\n', "'bad.jsonl', line 1: 'a'"),
        ("bad.jsonl", '{"id": NaN}\n', "'bad.jsonl', line 1: "),
        ("bad.jsonl", '{"id": "\\ud800"}\n', "'bad.jsonl', line 1: "),
        ("bad.jsonl", b'{"id": "\xff"}\n', "'bad.jsonl', line 1: "),
        ("bad.jsonl", f'{{"id": {DEEP}}}\n', "deep"),
        ("bad.jsonl", "", "holds no rows"),
        ("bad.jsonl", "\n \n", "holds no rows"),
        ("bad.csv", "a,b\n1,2\n3\n", "'bad.csv', line 3: 1 values for 2 columns in '3'"),
        ("bad.csv", 'a,b\n"1\n",2\n3,4,5\n', "'bad.csv', line 4: 3 values for 2 columns"),
        ("bad.csv", "a,a\n1,2\n", "'bad.csv' has 2 columns named 'a'"),
        ("bad.csv", "a,\n1,2\n", "Column 2 of 'bad.csv' has no name"),
        ("bad.csv", "", "'bad.csv' is empty"),
        ("bad.csv", b"a,b\n1,\xff\xfe\n", "'bad.csv'"),
        ("bad.csv", b"\xff\xfea\x00,\x00b\x00\n\x00", "not text in UTF-8"),
        ("bad.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000, mtime=0)[:-20], "not a whole gzip file"),
        ("bad.csv.gz", b"a,b\n1,2\n", "not a whole gzip file"),
        (
            "bad.jsonl.gz",
            gzip.compress(b'{"id": 1}\n' * 1000, mtime=0)[:-20],
            "not a whole gzip file",
        ),
        ("bad.parquet", b"PAR1 and then nothing", "'bad.parquet' is not a whole Parquet file"),
        ("bad.parquet", b"", "'bad.parquet' is not a whole Parquet file"),
        ("bad.json", "[]", "neither Parquet, JSON Lines nor CSV"),
        ("bad.pkl", b"\x80\x04.", "neither Parquet, JSON Lines nor CSV"),
        ("README.md", "words", "no Parquet, JSON Lines or CSV file"),
        ("state.json", "[]", "'state.json' is not an object"),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', "which is not there"),
        ("dataset_dict.json", '{"splits": ["../x"]}', "names the split '../x'"),
        ("dataset_dict.json", '{"splits": ["train"]}', "'train/state.json' is missing"),
    ],
)
def test_broken_file_is_named_with_its_line(
    datasets: Datasets, written: Callable[..., Path], name: str, content: bytes | str, said: str
) -> None:
    path = written(name, content)
    whole = path.parent if name.endswith((".json", ".md")) and name != "bad.json" else path
    with pytest.raises(InvalidRequest) as caught:
        datasets.put(whole, "bad")
    assert said in caught.value.message
    assert datasets.names() == []


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_parquet_is_refused(datasets: Datasets, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.parquet"
    pl.DataFrame({"id": range(10_000)}).write_parquet(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InvalidRequest, match=r"'cut.parquet' is not a whole Parquet file"):
        datasets.put(path, "cut")


def test_parquet_with_flipped_bytes_is_refused_or_read(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "bent.parquet"
    pq.write_table(
        pa.table({"id": list(range(2000)), "text": [str(number) for number in range(2000)]}),
        path,
        write_page_checksum=True,
    )
    whole = path.read_bytes()
    refused = []
    for place in range(4, len(whole), len(whole) // 20):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            datasets.put(path, "bent")
        except RagstoneError as error:
            refused.append(error.message)
    assert len(refused) > 5
    assert all("bent.parquet" in message for message in refused)


def test_arrow_whose_offsets_point_outside_is_refused(datasets: Datasets, tmp_path: Path) -> None:
    hugging_face.Dataset.from_dict({"text": ["a", "bb", "ccc"]}).save_to_disk(
        str(tmp_path / "saved")
    )
    (path,) = (tmp_path / "saved").glob("*.arrow")
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 1, 3, 6))
    data = path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, offsets[:-4] + (2**30).to_bytes(4, "little")))
    with pytest.raises(InvalidRequest, match="is not a whole Arrow file"):
        datasets.put(tmp_path / "saved", "bent")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidRequest, match="is not a whole Arrow file"):
        datasets.put(tmp_path / "saved", "cut")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table([[1], [2]], names=["a", "a"]), "2 columns named 'a'"),
        (pa.table([[1], [2]], names=["a", ""]), "Column 2 of 'Table' has no name"),
        (pa.table({}), "has no columns"),
        (pa.table({"x": pa.array([], pa.decimal256(60, 2))}), "'decimal256(60, 2)', which is not"),
        (pa.table({"x": pa.array([], pa.month_day_nano_interval())}), "cast it"),
    ],
)
def test_table_that_no_column_can_be_told_of_is_refused(
    datasets: Datasets, table: pa.Table, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        datasets.put(table, "bad")
    assert said in caught.value.message


def test_rows_that_are_not_json_are_refused(datasets: Datasets) -> None:
    with pytest.raises(InvalidRequest, match="Row 2 is not JSON"):
        datasets.put([{"id": 1}, {"id": object()}], "bad")
    with pytest.raises(InvalidRequest, match="Row 2 is 5, not a mapping"):
        datasets.put([{"id": 1}, 5], "bad")
    with pytest.raises(InvalidRequest, match="Row 1 is not JSON: Integer exceeds 64-bit"):
        datasets.put([{"id": 2**70}], "bad")


def test_what_holds_no_rows_is_refused(datasets: Datasets, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="int holds no rows"):
        datasets.put(5, "bad")
    with pytest.raises(InvalidRequest, match="bytes holds no rows"):
        datasets.put(b"x", "bad")
    with pytest.raises(InvalidRequest, match="no splits"):
        datasets.put({}, "bad")
    with pytest.raises(NotFound, match=r"no-such\.csv"):
        datasets.put(tmp_path / "no-such.csv", "bad")


def test_line_that_is_too_long_is_refused(
    datasets: Datasets, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.datasets.json_lines.MAX_LINE_BYTES", 1000)
    path = written("long.jsonl", '{"id": 1}\n' + json.dumps({"id": "x" * 2000}))
    with pytest.raises(TooLarge, match="'long.jsonl', line 2: more than 1,000 bytes"):
        datasets.put(path, "long")


def test_too_many_columns_are_refused(datasets: Datasets, written: Callable[..., Path]) -> None:
    path = written("wide.csv", ",".join(f"c{number}" for number in range(10_001)) + "\n")
    with pytest.raises(TooLarge, match="10,001 columns"):
        datasets.put(path, "wide")


def test_formats_are_not_mixed(datasets: Datasets, written: Callable[..., Path]) -> None:
    written("a.csv", "id\n1\n")
    path = written("b.jsonl", '{"id": 1}\n')
    with pytest.raises(InvalidRequest, match="several formats: 'a.csv', 'b.jsonl'"):
        datasets.put(path.parent, "mixed")


def test_key_of_the_metadata_is_taken(datasets: Datasets) -> None:
    with pytest.raises(InvalidRequest, match="'dataset' is taken"):
        datasets.put([{"id": 1}], "taken", Options(Made(metadata={"dataset": 1})))


def test_artifact_that_is_no_dataset_is_said_to_be_none(
    datasets: Datasets, written: Callable[..., Path]
) -> None:
    datasets.put([{"id": 1}], "rows")
    datasets._store.put(written("x.txt", "x"), "dataset/text")
    with pytest.raises(InvalidRequest, match="without rows and columns"):
        datasets.load("text")
    with pytest.raises(NotFound, match="did you mean 'dataset/rows'"):
        datasets.load("rwos")
    assert [found.name for found in datasets.names()] == ["rows"]


def test_dataset_that_is_refused_by_its_profile_is_not_stored(datasets: Datasets) -> None:
    def refuse(profile: object) -> dict[str, object]:
        raise InvalidRequest("too few rows")

    with pytest.raises(InvalidRequest, match="too few rows"):
        datasets.put([{"id": 1}], "few", Options(examine=refuse))
    assert datasets.names() == []
    kept = datasets.put([{"id": 1}], "few", Options(examine=lambda profile: {"rows": profile.rows}))
    assert datasets._store.resolve(str(kept)).metadata["rows"] == 1


def test_damage_in_the_store_is_said_to_be_the_stores(
    datasets: Datasets, written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written("rows.csv", "id,text\n" + "".join(f"{n},{'x' * 100}\n" for n in range(5000)))
    reference = str(datasets.put(path, "rows"))
    (blob,) = [each for each in (tmp_path / "store" / "blobs").rglob("*") if each.is_file()]
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:1000] + b"\n,,,,,\n")
    with pytest.raises(StorageFailed, match="dataset/rows@sha256:.*'rows.csv', line"):
        datasets.load(reference)


def test_csv_with_a_value_that_is_longer_than_the_standard_librarys_limit_is_read(
    datasets: Datasets, written: Callable[..., Path]
) -> None:
    path = written("long.csv", f"id,text\n1,{'x' * 300_000}\n")
    assert datasets.profile(str(datasets.put(path, "long"))).column("text").lengths.maximum == 3e5


def test_csv_row_that_is_too_long_is_refused(
    datasets: Datasets, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.datasets.csv_files.MAX_ROW_BYTES", 5_000_000)
    for text in (f"id,text\n1,{'x' * 9_000_000}\n", 'id,text\n1,"' + "x\n" * 5_000_000):
        path = written("long.csv", text)
        with pytest.raises(TooLarge, match="'long.csv', line 2: a row of more than 5,000,000"):
            datasets.put(path, "long")


def test_reading_can_stop_early(datasets: Datasets, written: Callable[..., Path]) -> None:
    path = written("many.csv", "id,text\n" + f"1,{'x' * 200}\n" * 100_000)
    reference = str(datasets.put(path, "many"))
    for _ in range(3):
        assert datasets.head(reference, 1) == [{"id": 1, "text": "x" * 200}]
        assert next(datasets.iterate(reference)).num_rows > 1


def test_moments_in_far_centuries_are_profiled_and_shown(datasets: Datasets) -> None:
    far = pa.table({"at": pa.array([2**63 - 1, 0, None], pa.timestamp("us"))})
    reference = str(datasets.put(far, "far"))
    column = datasets.profile(reference).column("at")
    assert (column.minimum, column.maximum) == (
        "1970-01-01T00:00:00.000000",
        "294247-01-10T04:00:54.775807",
    )
    assert len(datasets.head(reference)) == 3
