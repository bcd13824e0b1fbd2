"""The cache of graphs: written once and whole, shared by processes, healed where it is damaged."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from infra.errors import InvalidConfiguration
from retrieval.embedders import open_embedder
from retrieval.embedders._onnx_cache import MANIFEST, UNFINISHED, Cache, is_whole
from retrieval.embedders._onnx_export import DATA, GRAPH
from tiny_model import HIDDEN, write_model

pytest.importorskip("onnxruntime", reason="the extra `embed` is not installed")
pytest.importorskip("onnx", reason="the extra `embed` is not installed")

ROOT = Path(__file__).parent.parent.parent
TEXTS = ["stone tower", "raven", "king wall tower stone stone", "", "unheard-of"]


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, str]:
    """Options of a tiny model with a cache of its own."""
    return {"model": write_model(tmp_path / "model"), "cache": str(tmp_path / "cache")}


def only_entry(options: dict[str, str]) -> Path:
    (entry,) = Path(options["cache"]).iterdir()
    return entry


def test_graph_is_written_once(tiny: dict[str, str]) -> None:
    first = open_embedder("onnx", **tiny).embed(TEXTS, kind="document")
    entry = only_entry(tiny)
    written = (entry / GRAPH).stat().st_mtime_ns
    second = open_embedder("onnx", **tiny).embed(TEXTS, kind="document")
    assert (only_entry(tiny) / GRAPH).stat().st_mtime_ns == written
    np.testing.assert_array_equal(first, second)


def test_other_weights_are_another_entry(tiny: dict[str, str], tmp_path: Path) -> None:
    first = open_embedder("onnx", **tiny)
    first.embed(TEXTS, kind="document")
    config = Path(tiny["model"], "config.json")
    changed = json.loads(config.read_text()) | {"layer_norm_eps": 1e-3}
    config.write_text(json.dumps(changed))
    second = open_embedder("onnx", **tiny)
    second.embed(TEXTS, kind="document")
    assert first.identity != second.identity
    assert len(list(Path(tiny["cache"]).iterdir())) == 2


@pytest.mark.parametrize("name", [GRAPH, DATA, MANIFEST])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_damaged_entry_is_made_again(
    tiny: dict[str, str], caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    before = open_embedder("onnx", **tiny).embed(TEXTS, kind="document")
    path = only_entry(tiny) / name
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with caplog.at_level(logging.WARNING):
        after = open_embedder("onnx", **tiny).embed(TEXTS, kind="document")
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(before, after)
    assert is_whole(only_entry(tiny))


def test_cache_that_cannot_be_written_is_done_without(
    tiny: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(tiny["cache"]).write_text("a file stands where the folder should")
    with caplog.at_level(logging.WARNING):
        rows = open_embedder("onnx", **tiny).embed(TEXTS, kind="document")
    assert rows.shape == (len(TEXTS), HIDDEN)
    assert "cannot be written" in caplog.text


def test_what_a_dead_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    old, fresh = tmp_path / f"{UNFINISHED}old", tmp_path / f"{UNFINISHED}fresh"
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    entry = Cache(tmp_path).entry(
        "key", lambda target: (target / "file").write_bytes(b"1") and None
    )
    assert (entry / "file").read_bytes() == b"1"
    assert not old.exists()
    assert fresh.exists()


def test_entry_that_fails_to_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").write_bytes(b"1")
        raise InvalidConfiguration("no such weight")

    with pytest.raises(InvalidConfiguration, match="no such weight"):
        Cache(tmp_path).entry("key", fail)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_together_agree(tiny: dict[str, str]) -> None:
    program = (
        "from retrieval.embedders import open_embedder\n"
        f"rows = open_embedder('onnx', **{tiny!r}).embed({TEXTS!r}, kind='document')\n"
        "print(rows.tobytes().hex())\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(3)
    ]
    outputs = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(outputs) == 1
    assert is_whole(only_entry(tiny))
