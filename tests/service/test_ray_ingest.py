"""Ingest on a real Ray cluster of two nodes: the same collection as here, also past a kill -9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from infra.database.schema import chunk, document
from infra.settings import load_settings
from retrieval.sources.folder import walk
from service.wiring import Components

pytest.importorskip("ray", reason="the extra `ray` is not installed")

ROOT = Path(__file__).parent.parent.parent
DRIVER = """
import json, os, signal, sys, threading, time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray.cluster_utils import Cluster
from infra.settings import load_settings
from retrieval.sources.folder import walk
from service.ray_ingest import ingest_on_ray
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
parts.close()
print(json.dumps({
    "added": summary.added, "unchanged": summary.unchanged, "updated": summary.updated,
    "skipped": len(summary.skipped), "chunks": summary.chunks, "killed": len(killed),
    "nodes": nodes,
}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def _run(tmp_path: Path, folder: Path, *, deaths: int) -> dict[str, Any]:
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
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The driver stays connected, so Ray may say something afterwards, but nothing before.
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return said


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


@pytest.mark.parametrize("deaths", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_two_nodes_give_the_collection_that_this_process_gives(tmp_path: Path, deaths: int) -> None:
    folder = _corpus(tmp_path / "corpus", 24 if deaths == 0 else 120)
    said = _run(tmp_path, folder, deaths=deaths)
    assert said["nodes"] == 2
    assert said["skipped"] == 1
    assert said["killed"] == deaths
    assert said["added"] + said["unchanged"] == (24 if deaths == 0 else 120)
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
