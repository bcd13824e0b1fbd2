"""Checkpoints: the newest whole one is found, and one that is damaged in any way is passed over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from training import checkpoints

FILES = ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints; sorted as words, the newest would stand in the middle."""
    for step in (2, 10, 9):
        made = tmp_path / f"checkpoint-{step}"
        made.mkdir()
        for name in FILES:
            (made / name).write_bytes(f"{name} after step {step}".encode())
        checkpoints.seal(made)
    return tmp_path


def found(folder: Path) -> int | None:
    latest = checkpoints.latest(folder)
    return None if latest is None else checkpoints.step_of(latest)


def test_the_newest_one_is_found_by_its_step(folder: Path) -> None:
    assert found(folder) == 10
    (folder / "checkpoint-11").mkdir()
    (folder / "checkpoint-12-of-another").mkdir()
    assert found(folder) == 10, "those without a seal were not written to their end"
    assert found(folder / "checkpoint-2") is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [*FILES, checkpoints.SEAL])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_one_with_a_damaged_file_is_passed_over(
    folder: Path, damage: Callable[[Path], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder / "checkpoint-10" / name)
    assert found(folder) == 9
    assert "checkpoint-10 is passed over" in caplog.text
    damage(folder / "checkpoint-9" / name)
    damage(folder / "checkpoint-2" / name)
    assert found(folder) is None


def test_one_that_was_being_sealed_is_passed_over(folder: Path) -> None:
    newest = folder / "checkpoint-10"
    shutil.move(newest / checkpoints.SEAL, newest / f"{checkpoints.SEAL}.part")
    assert found(folder) == 9
    checkpoints.seal(newest)
    assert found(folder) == 10
