"""Putting, finding, reading and checking out, the same on both databases."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.artifacts.blobs import BlobStore
from infra.artifacts.contents import packs_of
from infra.artifacts.files import Files
from infra.artifacts.folder import Folder
from infra.artifacts.intake import MOST_PACKS
from infra.artifacts.publishing import Made, Surroundings
from infra.artifacts.store import ArtifactStore
from infra.errors import (
    Conflict,
    InvalidConfiguration,
    InvalidRequest,
    NotFound,
    StorageFailed,
    TooLarge,
)

Tree = Callable[..., Path]
Read = Callable[[Path], dict[str, bytes]]
LARGE = os.urandom(300 * 1024)
FILES = {"a.txt": b"alpha", "sub/b.bin": LARGE, "sub/deep/empty": b"", "ü/日本.txt": b"unicode"}


def test_what_was_put_is_checked_out_again(
    store: ArtifactStore, tree: Tree, read: Read, tmp_path: Path
) -> None:
    reference = store.put(tree(FILES), "dataset/faq")

    assert str(reference) == "dataset/faq@v1"
    for mode in ("hardlink", "reflink", "copy"):
        assert read(store.checkout("dataset/faq@v1", tmp_path / mode, mode=mode)) == FILES


def test_same_content_is_the_same_artifact_and_no_new_version(
    store: ArtifactStore, tree: Tree
) -> None:
    first = store.put(tree(FILES, "one"), "dataset/faq")
    again = store.put(tree(FILES, "two"), "dataset/faq")
    elsewhere = store.put(tree(FILES, "three"), "dataset/copy")

    assert again == first
    assert elsewhere.digest == first.digest
    assert elsewhere.version == 1


def test_returning_to_older_content_is_a_new_version(store: ArtifactStore, tree: Tree) -> None:
    first = store.put(tree({"a": b"1"}, "one"), "dataset/faq")
    store.put(tree({"a": b"2"}, "two"), "dataset/faq")
    third = store.put(tree({"a": b"1"}, "three"), "dataset/faq")

    assert third.version == 3
    assert third.digest == first.digest
    assert [str(version.reference) for version in store.versions("dataset/faq")] == [
        "dataset/faq@v3",
        "dataset/faq@v2",
        "dataset/faq@v1",
    ]


def test_metadata_and_parents_are_part_of_the_identity_and_the_job_is_not(
    local: ArtifactStore, tree: Tree
) -> None:
    source = tree({"a": b"1"})
    plain = local.put(source, "model/m")
    described = local.put(source, "model/m", Made(metadata={"lr": 0.1}))
    derived = local.put(source, "model/m", Made(parents=[("base", "model/m@v1")]))
    by_job = local.put(source, "model/m", Made(parents=[("base", "model/m@v1")], job="job-1"))

    assert len({plain.digest, described.digest, derived.digest}) == 3
    assert by_job == derived
    assert local.resolve("model/m@v2").metadata == {"lr": 0.1}


@pytest.mark.parametrize(
    "metadata", [{"x": float("nan")}, {"x": (1, 2)}, {1: "x"}, {"x": object()}, {"x": 2**70}]
)
def test_metadata_that_json_would_change_is_refused(
    local: ArtifactStore, tree: Tree, metadata: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest, match="Metadata is not JSON"):
        local.put(tree({"a": b"1"}), "dataset/faq", Made(metadata=metadata))
    assert local.names() == []


def test_single_file_is_a_tree_of_one(local: ArtifactStore, tree: Tree, tmp_path: Path) -> None:
    source = tree({"report.json": b"{}"})
    local.put(source / "report.json", "report/r")

    assert [entry.path for entry in local.resolve("report/r").entries] == ["report.json"]


def test_empty_folder_is_an_artifact(local: ArtifactStore, tree: Tree, tmp_path: Path) -> None:
    local.put(tree({}), "dataset/empty")

    assert list(local.checkout("dataset/empty", tmp_path / "out").iterdir()) == []


def test_programs_stay_executable(local: ArtifactStore, tree: Tree, tmp_path: Path) -> None:
    source = tree({"run": LARGE, "small": b"#!", "plain": LARGE})
    (source / "run").chmod(0o700)
    (source / "small").chmod(0o700)
    local.put(source, "dataset/tools")
    out = local.checkout("dataset/tools", tmp_path / "out")

    assert os.access(out / "run", os.X_OK)
    assert os.access(out / "small", os.X_OK)
    assert not stat.S_IMODE((out / "plain").stat().st_mode) & 0o111


def test_hard_links_share_large_files_and_only_those(
    local: ArtifactStore, tree: Tree, tmp_path: Path
) -> None:
    local.put(tree(FILES), "dataset/faq")
    linked = local.checkout("dataset/faq", tmp_path / "linked")
    copied = local.checkout("dataset/faq", tmp_path / "copied", mode="copy")

    assert (linked / "sub/b.bin").stat().st_nlink == 2
    assert not (linked / "sub/b.bin").stat().st_mode & 0o222
    assert (linked / "a.txt").stat().st_nlink == 1
    assert (copied / "sub/b.bin").stat().st_nlink == 1


def test_checkout_does_not_touch_what_is_there(
    local: ArtifactStore, tree: Tree, tmp_path: Path
) -> None:
    local.put(tree(FILES), "dataset/faq")
    mine = tree({"mine": b"precious"}, "out")

    with pytest.raises(Conflict, match="in the way"):
        local.checkout("dataset/faq", mine)
    assert (mine / "mine").read_bytes() == b"precious"
    (tmp_path / "empty").mkdir()
    assert local.checkout("dataset/faq", tmp_path / "empty").is_dir()


def test_checkouts_to_one_place_at_the_same_time_leave_one_whole_and_refuse_the_other(
    local: ArtifactStore, tree: Tree, read: Read, tmp_path: Path
) -> None:
    local.put(tree(FILES), "dataset/faq")
    for number in range(5):
        together, outcomes = threading.Barrier(4), []

        def check_out(place: Path, together: threading.Barrier, outcomes: list[str]) -> None:
            together.wait()
            try:
                local.checkout("dataset/faq", place)
                outcomes.append("whole")
            except Conflict:
                outcomes.append("refused")

        place = tmp_path / f"out-{number}"
        arguments = (place, together, outcomes)
        threads = [threading.Thread(target=check_out, args=arguments) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["refused"] * 3 + ["whole"]
        assert read(place) == FILES
    assert list(tmp_path.glob(".*partial*")) == []


def test_missing_blob_fails_the_checkout_and_leaves_nothing(
    local: ArtifactStore, tree: Tree, tmp_path: Path
) -> None:
    local.put(tree(FILES), "dataset/faq")
    next(local.storage.root.glob("blobs/sha256/??/*")).unlink()

    with pytest.raises(StorageFailed, match="missing from the store"):
        local.checkout("dataset/faq", tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_model_checkout_refuses_a_changed_byte(
    local: ArtifactStore, tree: Tree, tmp_path: Path
) -> None:
    local.put(tree({"model.safetensors": LARGE}), "model/m")
    blob = next(local.storage.root.glob("blobs/sha256/??/*"))
    blob.chmod(0o600)
    blob.write_bytes(bytes([LARGE[0] ^ 1]) + LARGE[1:])

    with pytest.raises(StorageFailed, match="does not match its digest"):
        local.checkout("model/m", tmp_path / "out")


def test_open_reads_ranges_of_small_and_large_files(local: ArtifactStore, tree: Tree) -> None:
    small = bytes(range(256)) * 4
    local.put(tree({"small": small, "large": LARGE, "z": b"after"}), "dataset/d")

    for path, data in (("small", small), ("large", LARGE)):
        with local.open("dataset/d", path) as reader:
            reader.seek(100)
            assert reader.read(50) == data[100:150]
            reader.seek(-3, os.SEEK_END)
            assert reader.read(100) == data[-3:]
            reader.seek(0)
            assert reader.read() == data


def test_open_of_an_unknown_file_suggests_near_ones(local: ArtifactStore, tree: Tree) -> None:
    local.put(tree({"train.jsonl": b"x"}), "dataset/d")

    with pytest.raises(NotFound, match=r"did you mean 'train.jsonl'"):
        local.open("dataset/d", "trian.jsonl")


def test_writer_stores_what_was_written_when_the_block_ends(
    store: ArtifactStore, read: Read, tmp_path: Path
) -> None:
    with store.writer("model/m", Made(metadata={"epochs": 1})) as draft:
        (draft.folder / "weights.safetensors").write_bytes(LARGE)
        (draft.folder / "config.json").write_bytes(b"{}")
        draft.metadata["loss"] = 0.5

    assert str(draft.reference) == "model/m@v1"
    assert store.resolve("model/m@v1").metadata == {"epochs": 1, "loss": 0.5}
    assert read(store.checkout("model/m", tmp_path / "out")) == {
        "weights.safetensors": LARGE,
        "config.json": b"{}",
    }


def test_writer_that_raises_stores_nothing(local: ArtifactStore) -> None:
    def fail_half_way() -> None:
        with local.writer("model/m") as draft:
            (draft.folder / "weights.safetensors").write_bytes(LARGE)
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail_half_way()

    assert local.names() == []
    assert not list(local.storage.scratch.iterdir())
    assert not list(local.storage.list("blobs"))


def test_writer_does_not_share_a_file_that_has_another_name(
    local: ArtifactStore, tree: Tree, tmp_path: Path
) -> None:
    mine = tree({"big": LARGE}) / "big"
    with local.writer("dataset/d") as draft:
        os.link(mine, draft.folder / "big")
    mine.write_bytes(b"edited")

    assert local.verify("dataset/d").sound


def test_only_changed_files_are_stored_again(local: ArtifactStore, tree: Tree) -> None:
    files = {f"{number:03d}": str(number).encode() * 50 for number in range(100)}
    source = tree(files)
    local.put(source, "dataset/d")
    before = {item.key: item.size for item in local.storage.list("packs")}
    (source / "007").write_bytes(b"changed")
    local.put(source, "dataset/d")
    added = {item.key: item.size for item in local.storage.list("packs") if item.key not in before}

    assert len(added) == 1
    assert sum(added.values()) < 100
    assert local.verify("dataset/d").sound


def test_many_small_additions_are_packed_together_again(
    local: ArtifactStore, tree: Tree, tmp_path: Path, read: Read
) -> None:
    source = tree({"first": b"0"})
    for number in range(40):
        (source / f"{number:02d}").write_bytes(b"%d" % number)
        local.put(source, "dataset/d")
    newest = local.find("dataset/d")
    assert newest.version == 40
    assert len(packs_of(local.storage, newest.digest)) <= MOST_PACKS
    assert read(local.checkout("dataset/d@v17", tmp_path / "out")).keys() == {
        "first",
        *(f"{number:02d}" for number in range(17)),
    }


def test_file_that_changes_while_it_is_stored_is_refused(
    local: ArtifactStore, tree: Tree, around: object
) -> None:
    source = tree({"log": b"one line"})

    class Writing(Files):
        """A program appends to the file as soon as the store has opened it."""

        @staticmethod
        def open(path: object, flags: int, mode: int = 0o777) -> int:
            if str(path).endswith("log"):
                with (source / "log").open("ab") as file:
                    file.write(b"another")
            return os.open(str(path), flags, mode)

    busy = ArtifactStore(local.storage, local.database, Surroundings(files=Writing(), workers=1))
    with pytest.raises(Conflict, match="'log' changed while it was stored"):
        busy.put(source, "dataset/d")
    assert local.names() == []


@pytest.mark.parametrize("size", [10, 300_000])
def test_file_that_vanishes_while_it_is_stored_is_said_to_have_changed(
    local: ArtifactStore, tree: Tree, size: int
) -> None:
    source = tree({"log": b"1" * size})

    class Removing(Files):
        """Somebody removes the file just before the store opens it."""

        @staticmethod
        def open(path: object, flags: int, mode: int = 0o777) -> int:
            if str(path).endswith("log"):
                os.unlink(str(path))
            return os.open(str(path), flags, mode)

    files = Removing()
    busy = ArtifactStore(
        Folder(local.storage.root, files), local.database, Surroundings(files=files)
    )
    with pytest.raises(Conflict, match="'log' changed while it was stored"):
        busy.put(source, "dataset/d")
    assert local.names() == []


def test_file_that_cannot_be_read_fails_in_words(local: ArtifactStore, tree: Tree) -> None:
    source = tree({"secret": b"1"})

    class Forbidden(Files):
        @staticmethod
        def open(path: object, flags: int, mode: int = 0o777) -> int:
            if str(path).endswith("secret"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return os.open(str(path), flags, mode)

    store = ArtifactStore(local.storage, local.database, Surroundings(files=Forbidden()))
    with pytest.raises(StorageFailed, match="Cannot read the files at .*secret"):
        store.put(source, "dataset/d")


def test_job_and_roles_that_no_database_could_hold_are_refused(
    local: ArtifactStore, tree: Tree
) -> None:
    local.put(tree({"a": b"1"}), "dataset/d")

    with pytest.raises(TooLarge, match="longer than 255"):
        Made(job="j" * 256)
    with pytest.raises(InvalidRequest, match="is not a role"):
        local.put(tree({"a": b"2"}), "dataset/e", Made(parents=[("a role", "dataset/d")]))


def test_read_of_a_file_whose_blob_is_gone_fails_in_words(local: ArtifactStore, tree: Tree) -> None:
    local.put(tree({"big": LARGE}), "dataset/d")
    next(local.storage.root.glob("blobs/sha256/??/*")).unlink()

    with local.open("dataset/d", "big") as reader, pytest.raises(StorageFailed, match="is missing"):
        reader.read(1)


def test_damaged_blob_heals_when_the_same_file_is_put_again(
    local: ArtifactStore, tree: Tree
) -> None:
    local.put(tree({"big": LARGE}, "one"), "dataset/d")
    blob = next(local.storage.root.glob("blobs/sha256/??/*"))
    blob.chmod(0o600)
    blob.write_bytes(LARGE[:1000])
    assert not local.verify("dataset/d").sound

    local.put(tree({"big": LARGE, "more": b"x"}, "two"), "dataset/e")
    assert local.verify("dataset/d").sound


def test_folder_with_blobs_of_something_else_is_not_taken_for_a_store(
    local: ArtifactStore, tmp_path: Path
) -> None:
    BlobStore(tmp_path / "files").put([b"raw"])

    with pytest.raises(InvalidConfiguration, match="not an artifact store"):
        ArtifactStore(Folder(tmp_path / "files"), local.database)


def test_store_of_another_format_is_refused(local: ArtifactStore) -> None:
    mark = local.storage.root / "store.json"
    mark.chmod(0o600)
    mark.write_text('{"format": 2}')

    with pytest.raises(InvalidConfiguration, match="format"):
        ArtifactStore(local.storage, local.database)
