"""Datasets larger than the memory they are given are put, read and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, resource, sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq
from infra.artifacts.store import open_store
from infra.database.engine import Database
from infra.database.migrate import upgrade
from infra.datasets.datasets import Datasets

form, rows = sys.argv[1], int(sys.argv[2])
schema = pa.schema({"id": pa.int64(), "text": pa.string(), "score": pa.float64()})
STEP = 10_000

def batches(rows, salt):
    for start in range(0, rows, STEP):
        numbers = range(start, min(start + STEP, rows))
        yield pa.RecordBatch.from_pydict({
            "id": list(numbers),
            "text": [f"{number + salt} " + "some words of a text " * 15 for number in numbers],
            "score": [number / 7 for number in numbers],
        }, schema)

def write(name, rows, salt):
    path = Path(f"{name}.{form}")
    if form == "parquet":  # one row group, the worst case for who reads it
        with pq.ParquetWriter(path, schema, write_batch_size=1024) as writer:
            writer.write_table(pa.Table.from_batches(batches(rows, salt)), row_group_size=rows)
    else:
        with path.open("w") as file:
            if form == "csv":
                file.write("id,text,score\\n")
            for batch in batches(rows, salt):
                for row in batch.to_pylist():
                    file.write(json.dumps(row) + "\\n" if form == "jsonl" else
                               f"{row['id']},{row['text']},{row['score']}\\n")
    return path

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def work(small):
    for number, salt in enumerate((0, 1)):
        path = Path(f"{'small' if small else 'large'}-{number}.{form}")
        datasets.put(path, "memory")
    newest = datasets.find("memory").version
    first, second = f"memory@v{newest - 1}", f"memory@v{newest}"
    counted = sum(batch.num_rows for batch in datasets.iterate(second))
    found = datasets.difference(first, second, key=["id"])
    return counted, found.rows.changed

if sys.argv[3] == "write":
    for number, salt in enumerate((0, 1)):
        write(f"small-{number}", 1_000, salt)
        write(f"large-{number}", rows, salt)
else:
    database = Database("sqlite:///datasets.db")
    upgrade(database)
    datasets = Datasets(open_store("store", database))
    assert work(True) == (1_000, 1_000)
    before = peak()
    assert work(False) == (rows, rows)
    print(json.dumps([before, peak()]))
"""


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("form", "rows", "allowed"),
    [
        ("parquet", 600_000, 150),
        pytest.param("parquet", 3_000_000, 220, marks=pytest.mark.slow),
        pytest.param("jsonl", 600_000, 150, marks=pytest.mark.slow),
        pytest.param("csv", 1_000_000, 150, marks=pytest.mark.slow),
    ],
)
def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, form: str, rows: int, allowed: int
) -> None:
    """A million rows are 320 MiB in memory, and the work has two such datasets in hand."""
    run(tmp_path, form, str(rows), "write")
    before, after = json.loads(run(tmp_path, form, str(rows), "work"))
    # MiB on top of what the same work on a thousand rows takes.
    assert after - before < allowed, (before, after)
