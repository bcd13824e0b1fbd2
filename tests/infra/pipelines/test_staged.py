"""Artifacts that wait for somebody else's transaction: whole with it, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import leases
from infra.artifacts.publishing import Made
from infra.errors import NotFound


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in ("left", "right"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "small.txt").write_text(name)
        (folder / "large.bin").write_bytes(name.encode() * 100_000)
        found[f"dataset/{name}"] = folder
    return found


def test_versions_appear_together_with_the_transaction(
    either_bench: Any, folders: dict[str, Path]
) -> None:
    store = either_bench.store
    made = {"dataset/left": Made({"rows": 1}, job="test")}
    with store.staged(folders, made) as staged:
        with pytest.raises(NotFound):
            store.find("dataset/left")
        with store.database.write(lock=leases.LOCK) as connection:
            references = staged.enter(connection)
    assert {name: str(each) for name, each in references.items()} == {
        "dataset/left": "dataset/left@v1",
        "dataset/right": "dataset/right@v1",
    }
    assert store.resolve("dataset/left").metadata == {"rows": 1}
    assert store.versions("dataset/left")[0].job == "test"
    assert store.verify("dataset/right").sound
    assert (folders["dataset/left"] / "small.txt").exists(), "the sources are copied"


def test_transaction_that_fails_leaves_none_of_them(
    either_bench: Any, folders: dict[str, Path]
) -> None:
    store = either_bench.store

    def fail() -> None:
        with store.staged(folders) as staged, store.database.write(lock=leases.LOCK) as connection:
            staged.enter(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.names() == []
    again = store.put(folders["dataset/left"], "dataset/left")
    assert str(again) == "dataset/left@v1"
    assert store.verify("dataset/left").sound
