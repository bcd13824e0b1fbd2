"""Ingest and batch prediction on a real Ray cluster of two nodes: the same as here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

import classical_models
from infra.database.schema import chunk, document
from infra.settings import load_settings
from retrieval.sources.folder import walk
from service.models.batch_predicting import opened, scoring, write_parts
from service.wiring import Components

pytest.importorskip("ray", reason="the extra `ray` is not installed")

pytestmark = pytest.mark.thorough
ROOT = Path(__file__).parent.parent.parent
DRIVER = """
import json, os, signal, sys, threading, time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray.cluster_utils import Cluster
from infra.settings import load_settings
from retrieval.sources.folder import walk
from service.work.ray_ingest import ingest_on_ray
from service.wiring import Components

data, folder, deaths = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
cluster = Cluster(
    initialize_head=True,
    head_node_args={**node, "include_dashboard": False},
)
cluster.add_node(**node)
ray.init(address=cluster.address, log_to_driver=False)
settings = load_settings(data_folder=data, retrieval={"embedder": "hashing"})
parts = Components(settings)
into = parts.collections.create("far", parts.recipe())
killed = []

def kill():
    import psutil
    while len(killed) < deaths:
        time.sleep(0.05)
        done = parts.collections.statistics(into.id).documents
        if done < 3 * (len(killed) + 1):
            continue
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if line.startswith("ray::") and "_Worker" in line or "MapWorker" in line:
                if os.getpid() in [each.pid for each in process.parents()]:
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
                    break
        else:
            return

thread = threading.Thread(target=kill, daemon=True)
thread.start()
summary = ingest_on_ray(settings, into, walk([folder]), workers=2, batch_documents=4)
nodes = sum(each["Alive"] for each in ray.nodes())
rows, refused, died, ended = 0, "", "", ""
if len(sys.argv) > 4:
    import pyarrow.parquet as pq
    from infra.errors import InvalidRequest
    from service.models.batch_predicting import opened, scoring, write_parts

    def batches(path):
        return pq.ParquetFile(path).iter_batches(batch_size=20)

    score = scoring(parts, opened(parts, "churn"), workers=2)
    asked, out = Path(sys.argv[4]), Path(sys.argv[5])
    rows = write_parts(score, batches(asked / "rows.parquet"), out, tell=lambda _: None)
    try:
        write_parts(score, batches(asked / "wrong.parquet"), asked / "none", tell=lambda _: None)
    except InvalidRequest as error:
        refused = error.message

    from service.models import ray_predicting
    from service.work import ray_ingest

    class Dying:
        def __init__(self, *_):
            pass

        def predict(self, *_):
            with open(asked / "deaths", "a") as told:
                told.write("x")
            os._exit(1)

    ray_predicting._Worker = Dying
    score = scoring(parts, opened(parts, "churn"), workers=1)
    try:
        write_parts(score, batches(asked / "rows.parquet"), asked / "left", tell=lambda _: None)
    except ray_ingest.WorkersDied as error:
        died = error.message

    class Deadly:
        def __init__(self, **_):
            pass

        def __call__(self, batch):
            with open(asked / "deadly", "a") as told:
                told.write("x")
            os._exit(1)

    ray_ingest._Worker = Deadly
    try:
        ingest_on_ray(settings, into, walk([folder]), workers=1, batch_documents=100)
    except ray_ingest.WorkersDied as error:
        ended = error.message
parts.close()
print(json.dumps({
    "added": summary.added, "unchanged": summary.unchanged, "updated": summary.updated,
    "skipped": len(summary.skipped), "chunks": summary.chunks, "killed": len(killed),
    "nodes": nodes, "rows": rows, "refused": refused, "died": died,
    "ended": ended,
}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def _run(tmp_path: Path, folder: Path, *, deaths: int, asked: Sequence[Path] = ()) -> Any:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            DRIVER,
            str(tmp_path / "far"),
            str(folder),
            str(deaths),
            *map(str, asked),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The driver stays connected, so Ray may say something afterwards, but nothing before.
    return json.loads(done.stdout.splitlines()[0])


def _corpus(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        words = " ".join(f"word{(number * 7 + n) % 97}" for n in range(120))
        (folder / f"{number:03}.txt").write_text(f"Title {number}\n\n{words}.\n")
    (folder / "empty.txt").write_text("")
    return folder


def _contents(parts: Components, name: str) -> dict[str, list[tuple[Any, ...]]]:
    into = parts.collections.get(name)
    with parts.database.read() as connection:
        rows = connection.execute(
            select(
                document.c.source,
                document.c.digest,
                document.c.version,
                chunk.c.ordinal,
                chunk.c.start_char,
                chunk.c.end_char,
                chunk.c.text,
                chunk.c.heading,
                chunk.c.vector,
            )
            .join(chunk, chunk.c.document_id == document.c.id)
            .where(document.c.collection_id == into.id)
            .order_by(document.c.source, chunk.c.ordinal)
        ).all()
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row.source, []).append(tuple(row[1:]))
    return found


def _write_rows(folder: Path) -> None:
    folder.mkdir()
    rows = pl.DataFrame(classical_models.rows(90, seed=3))
    rows.write_parquet(folder / "rows.parquet")
    rows.drop("visits").write_parquet(folder / "wrong.parquet")


def _predicted_here(parts: Components, source: Path, folder: Path) -> list[Path]:
    score = scoring(parts, opened(parts, "churn"))
    batches = pq.ParquetFile(source).iter_batches(batch_size=20)
    assert write_parts(score, batches, folder, tell=lambda _: None) == 90
    return sorted(folder.iterdir())


@dataclass(frozen=True)
class Ran:
    """What one run on the cluster came to."""

    folder: Path
    said: dict[str, Any]
    here: list[Path]
    """Parts that were predicted in this process."""
    taken_over_at: int
    """When the part was written that was there before Ray began."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ray")
    _write_rows(folder / "asked")
    settings = load_settings(data_folder=folder / "far", retrieval={"embedder": "hashing"})
    parts = Components(settings)
    classical_models.put(parts.artifacts, classical_models.classifier(), folder / "churn")
    here = _predicted_here(parts, folder / "asked" / "rows.parquet", folder / "here")
    parts.close()
    (folder / "out").mkdir()
    taken_over = Path(shutil.copy(here[1], folder / "out"))
    at = taken_over.stat().st_mtime_ns
    corpus = _corpus(folder / "corpus", 24)
    said = _run(folder, corpus, deaths=0, asked=[folder / "asked", folder / "out"])
    return Ran(folder, said, here, at)


def test_parts_are_predicted_on_two_nodes_as_here(ran: Ran) -> None:
    assert ran.said["rows"] == 90
    found = sorted((ran.folder / "out").iterdir())
    assert [each.name for each in found] == [each.name for each in ran.here]
    assert len(found) == 5
    for one, other in zip(found, ran.here, strict=True):
        assert pq.read_table(one).equals(pq.read_table(other))
    assert found[1].stat().st_mtime_ns == ran.taken_over_at


def test_rows_that_are_not_the_models_are_refused_on_ray_as_here(ran: Ran) -> None:
    assert "visits" in ran.said["refused"]
    assert list((ran.folder / "asked" / "none").iterdir()) == []


def test_a_part_that_kills_its_worker_each_time_ends_the_run(ran: Ran) -> None:
    assert len((ran.folder / "asked" / "deaths").read_text()) == 4
    assert ran.said["died"].startswith("a worker died 4 times, at rows ")


def test_documents_that_kill_their_worker_each_time_end_the_ingest(ran: Ran) -> None:
    assert len((ran.folder / "asked" / "deadly").read_text()) == 4
    assert ran.said["ended"].startswith("a worker died 4 times; give it more memory")


def test_two_nodes_give_the_collection_that_this_process_gives(ran: Ran) -> None:
    _check_collection(ran.folder, ran.said, documents=24, deaths=0)


@pytest.mark.slow
def test_a_kill_of_workers_changes_nothing(tmp_path: Path) -> None:
    said = _run(tmp_path, _corpus(tmp_path / "corpus", 120), deaths=2)
    _check_collection(tmp_path, said, documents=120, deaths=2)


def _check_collection(tmp_path: Path, said: dict[str, Any], *, documents: int, deaths: int) -> None:
    folder = tmp_path / "corpus"
    assert said["nodes"] == 2
    assert said["skipped"] == 1
    assert said["killed"] == deaths
    assert said["added"] + said["unchanged"] == documents
    near = Components(
        load_settings(data_folder=tmp_path / "near", retrieval={"embedder": "hashing"})
    )
    list(near.ingester.ingest(near.collections.create("near", near.recipe()), walk([folder])))
    far = Components(load_settings(data_folder=tmp_path / "far", retrieval={"embedder": "hashing"}))
    expected, found = _contents(near, "near"), _contents(far, "far")
    near.close()
    far.close()
    assert found.keys() == expected.keys()
    for source, rows in expected.items():
        assert [row[:-1] for row in found[source]] == [row[:-1] for row in rows]
        for mine, theirs in zip(found[source], rows, strict=True):
            np.testing.assert_allclose(
                np.frombuffer(mine[-1], "<f2").astype(np.float32),
                np.frombuffer(theirs[-1], "<f2").astype(np.float32),
                atol=1e-3,
            )
