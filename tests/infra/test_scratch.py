"""What is not yet kept, and what killed processes left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.scratch import scratch_folder


@pytest.mark.parametrize("has_lock", [True, False], ids=["in the middle", "before its lock"])
def test_scratch_of_a_process_that_died_is_removed_by_the_next(
    has_lock: bool, tmp_path: Path
) -> None:
    dead = tmp_path / "scratch" / "dead"
    dead.mkdir(parents=True)
    if has_lock:
        (dead / ".lock").touch()
    (dead / "secret").write_text("Text.")
    with scratch_folder(tmp_path / "scratch") as mine:
        assert not dead.exists()
        with scratch_folder(tmp_path / "scratch") as other:
            assert mine.exists()
            assert other != mine
    assert list((tmp_path / "scratch").iterdir()) == []
