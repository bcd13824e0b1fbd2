"""A disk that fills: a clear error, searches go on, nothing is lost, with room all goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MANY = 50
NAMESPACE = ("unshare", "--mount", "--map-root-user")


@pytest.fixture
def may_mount(tmp_path: Path) -> None:
    place = tmp_path / "probe"
    place.mkdir()
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "none", str(place)]
    try:
        done = subprocess.run(probe, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare on this system")
    if done.returncode:
        pytest.skip("this user may mount nothing, not even in a namespace of its own")


@pytest.mark.usefixtures("may_mount")
def test_full_disk_stops_writers_and_no_search_and_with_room_they_go_on(tmp_path: Path) -> None:
    disk, texts = tmp_path / "disk", tmp_path / "texts"
    disk.mkdir()
    for name, count in (("few", 2), ("many", MANY)):
        (texts / name).mkdir(parents=True)
        for number in range(count):
            lines = " ".join(f"Gate {number} of {name} has bolt {row}." for row in range(200))
            (texts / name / f"{number}.md").write_text(lines, encoding="utf-8")
    program = [sys.executable, HERE / "small_disk_worker.py", disk, texts]
    done = subprocess.run(
        [*NAMESPACE, *program],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["few"][1] is None
    assert said["error"].startswith("StorageFailed: ")
    assert "disk" in said["error"] or "No space" in said["error"]
    acknowledged = said["acknowledged"]
    assert 0 < len(acknowledged) < MANY
    assert len(said["before"]) == len(said["while_full"]) > 0
    assert said["error_then"] is None
    assert len(acknowledged) + len(said["rest"]) == MANY, "what was acknowledged is not read again"
    assert set(acknowledged).isdisjoint(said["rest"])
    assert said["held"] == sorted([*acknowledged, *said["rest"], said["few"][0][1]])
    assert len(said["after"]) == 50
    for work in ("snapshot", "restore"):
        assert said[work].startswith("StorageFailed: "), work
        assert "No space left" in said[work]
    assert said["names"] == ["gates"], "nothing half restored stays"
