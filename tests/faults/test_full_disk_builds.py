"""A rebuild that meets a full disk: a clear error, the live build untouched, and it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from infra.database.schema import chunk
from infra.settings import Settings, load_settings
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components

ROOT = Path(__file__).parents[2]
ROOM_KILOBYTES = 300
REBUILD = ("collections", "rebuild", "gates", "--embedder", "hashing")
OPTION = ("--embedder-option", "dimension=4096")


@pytest.fixture
def small_settings(tmp_path: Path) -> Settings:
    return load_settings(
        data_folder=tmp_path / "data",
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
    )


def rebuild(settings: Settings, *, room_kilobytes: int | None) -> subprocess.CompletedProcess[str]:
    """Rebuild with vectors of 8 kB; no file may grow by more than the room it is given."""
    program = [sys.executable, "-c", "from service.cli import main; main()", *REBUILD, *OPTION]
    if room_kilobytes is not None:
        size = sum(path.stat().st_size for path in settings.data_folder.glob("*.db*"))
        limit = size // 1024 + room_kilobytes
        program = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *program]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAGSTONE_DATA_FOLDER": str(settings.data_folder),
        "RAGSTONE_RETRIEVAL__EMBEDDER": "hashing",
        "RAGSTONE_RETRIEVAL__CHUNK_TOKENS": "60",
        "RAGSTONE_RETRIEVAL__CHUNK_OVERLAP_TOKENS": "10",
    }
    return subprocess.run(
        program, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_full_disk_leaves_the_live_build_as_it_was(
    small_settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(30):
        lines = (f"Gate {number} has bolt {row}." for row in range(60))
        (folder / f"gate{number}.md").write_text(f"# Gate {number}\n\n{' '.join(lines)}")
    components = Components(small_settings)
    whole = components.collections.create("gates", components.recipe())
    list(components.ingester.ingest(whole, walk([folder])))
    before = _rows(components, whole.build_id)
    components.close()

    failed = rebuild(small_settings, room_kilobytes=ROOM_KILOBYTES)
    assert failed.returncode == 1, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "disk" in failed.stderr

    opened = Components(small_settings)
    assert opened.collections.get("gates").build_id == whole.build_id
    assert _rows(opened, whole.build_id) == before
    found = opened.retriever.search(whole, SearchRequest("gate 7 bolt 3")).passages
    assert found[0].source.endswith("gate7.md")
    opened.close()

    assert rebuild(small_settings, room_kilobytes=None).returncode == 0
    again = Components(small_settings)
    swapped = again.builds.swap(again.collections.get("gates"), evaluate=again.evaluate)
    assert swapped.standby.id == whole.build_id
    again.close()


def _rows(components: Components, build_id: int) -> list[tuple[object, ...]]:
    with components.database.read() as connection:
        rows = connection.execute(
            select(chunk).where(chunk.c.build_id == build_id).order_by(chunk.c.id)
        )
        return [tuple(row) for row in rows]
