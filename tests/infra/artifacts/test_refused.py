"""Trees and manifests that must not get into a store, or out of one."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.artifacts.manifest import Entry, build, check_paths, decode, encode
from infra.artifacts.publishing import Surroundings
from infra.artifacts.store import ArtifactStore
from infra.artifacts.tree import Limits
from infra.errors import InvalidRequest, NotFound, StorageFailed, TooLarge

Tree = Callable[..., Path]

DIGEST = f"sha256:{hashlib.sha256(b'x').hexdigest()}"


@pytest.mark.parametrize(
    "paths",
    [
        ["/etc/passwd"],
        ["../up"],
        ["a/../../up"],
        ["a/./b"],
        ["a//b"],
        ["a/"],
        [""],
        ["."],
        ["a\\b"],
        ["a\nb"],
        ["a\0b"],
        ["\udc80"],
        ["n" * 256],
        ["d/" * 600 + "f"],
        ["Readme", "README"],
        ["A/x", "a/y"],
        ["é", "e\u0301"],
        ["ß", "ss"],
        ["a", "a/b"],
        ["a", "a"],
    ],
    ids=repr,
)
def test_path_that_escapes_or_clashes_is_refused(paths: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        check_paths(paths)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1)))
def test_accepted_paths_stay_inside_and_apart(names: list[str]) -> None:
    paths = ["/".join(names[: number + 1]) for number in range(len(names))][-1:] + names[:2]
    try:
        check_paths(paths)
    except InvalidRequest:
        return
    root = os.path.abspath("root")
    places = [os.path.abspath(os.path.join(root, path)) for path in paths]
    assert all(place.startswith(root + os.sep) for place in places)
    assert len({place.lower() for place in places}) == len(paths)


def test_link_out_of_the_tree_is_refused(local: ArtifactStore, tree: Tree) -> None:
    source = tree({"a": b"1"})
    (source / "secrets").symlink_to("/etc/hostname")

    with pytest.raises(InvalidRequest, match="'secrets' is a link out of the folder"):
        local.put(source, "dataset/d")


def test_link_through_a_linked_folder_is_refused(local: ArtifactStore, tree: Tree) -> None:
    source = tree({"a": b"1"})
    (source / "etc").symlink_to("/etc")

    with pytest.raises(InvalidRequest, match="'etc' is a link out of the folder"):
        local.put(source, "dataset/d")


def test_link_to_nothing_is_refused(local: ArtifactStore, tree: Tree) -> None:
    source = tree({"a": b"1"})
    (source / "dangling").symlink_to(source / "nothing")

    with pytest.raises(InvalidRequest, match="link to nothing"):
        local.put(source, "dataset/d")


def test_link_inside_the_tree_is_stored_as_its_file(
    local: ArtifactStore, tree: Tree, tmp_path: Path, read: Callable[[Path], dict[str, bytes]]
) -> None:
    source = tree({"blobs/1": b"1", "blobs/2": b"2" * 300_000})
    (source / "one").symlink_to("blobs/1")
    (source / "two").symlink_to("blobs/2")
    local.put(source, "dataset/d")
    with local.writer("dataset/w") as draft:
        (draft.folder / "real").write_bytes(b"2" * 300_000)
        (draft.folder / "alias").symlink_to("real")

    assert read(local.checkout("dataset/d", tmp_path / "out"))["two"] == b"2" * 300_000
    assert read(local.checkout("dataset/w", tmp_path / "out2")).keys() == {"real", "alias"}


@pytest.mark.parametrize("what", ["pipe", "socket", "folder link"])
def test_what_is_not_a_file_is_refused(local: ArtifactStore, tree: Tree, what: str) -> None:
    source = tree({"a/b": b"1"})
    if what == "pipe":
        os.mkfifo(source / "odd")
    elif what == "socket":
        os.chdir(source)  # a socket's name has room for 107 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("odd")
    else:
        (source / "odd").symlink_to("a")

    with pytest.raises(InvalidRequest, match="'odd' is neither a file nor a folder"):
        local.put(source, "dataset/d")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device files")
def test_device_file_is_refused(local: ArtifactStore, tree: Tree) -> None:
    source = tree({"a": b"1"})
    try:
        os.mknod(source / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("device files cannot be made here")

    with pytest.raises(InvalidRequest, match="'zero' is neither a file nor a folder"):
        local.put(source, "dataset/d")


def test_names_that_differ_in_case_only_are_refused(local: ArtifactStore, tree: Tree) -> None:
    with pytest.raises(InvalidRequest, match="where case is ignored"):
        local.put(tree({"data/A": b"1", "data/a": b"2"}), "dataset/d")


def test_name_that_is_not_utf8_is_refused(local: ArtifactStore, tree: Tree) -> None:
    source = tree({"a": b"1"})
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe")).write_bytes(b"2")

    with pytest.raises(InvalidRequest, match="not a name in UTF-8"):
        local.put(source, "dataset/d")


def test_limits_on_files_and_bytes_hold(local: ArtifactStore, tree: Tree) -> None:
    source = tree({"a": b"12345", "b": b"12345"})
    for limits in (Limits(entries=1), Limits(bytes=9)):
        narrow = ArtifactStore(local.storage, local.database, Surroundings(limits=limits))
        with pytest.raises(TooLarge, match="more than"):
            narrow.put(source, "dataset/d")


def test_unknown_source_is_not_found(local: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        local.put(tmp_path / "nowhere", "dataset/d")


def _torch_like() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    return target.getvalue()


def _numpy_objects() -> bytes:
    target = io.BytesIO()
    np.save(target, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return target.getvalue()


PICKLES = {
    "model.pkl": b"anything",
    "MODEL.JOBLIB": b"anything",
    "weights.pt": b"anything",
    "weights.safetensors": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
    "old.bin": b"\x80\x02]q\x00.",
    "pytorch_model.bin": _torch_like(),
    "labels.npy": _numpy_objects(),
}


@pytest.mark.parametrize("path", PICKLES)
@pytest.mark.parametrize("kind", ["model", "adapter", "classical"])
def test_pickle_is_refused_where_a_model_is_loaded(
    local: ArtifactStore, tree: Tree, path: str, kind: str
) -> None:
    source = tree({path: PICKLES[path]})

    with pytest.raises(InvalidRequest, match="loading it can run code"):
        local.put(source, f"{kind}/m")
    with pytest.raises(InvalidRequest), local.writer(f"{kind}/m") as draft:
        (draft.folder / path).write_bytes(PICKLES[path])
    assert local.names() == []


def test_harmless_files_are_models(local: ArtifactStore, tree: Tree) -> None:
    numbers, archive = io.BytesIO(), io.BytesIO()
    np.save(numbers, np.arange(3))
    with zipfile.ZipFile(archive, "w") as skops:
        skops.writestr("schema.json", b"{}")
    files = {
        "model.safetensors": b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
        "model.onnx": b"\x08\x08\x12\x07pytorch",
        "numbers.npy": numbers.getvalue(),
        "model.skops": archive.getvalue(),
        "one_byte": b"\x80",
        "empty": b"",
        "not_a_zip": b"PKnope",
    }

    assert local.put(tree(files), "model/m").version == 1


def test_manifest_reads_back_as_it_was_written() -> None:
    manifest = build("dataset", [Entry(DIGEST, 0o644, "b", 1), Entry(DIGEST, 0o755, "a", 1)])
    digest, data = encode(manifest, [DIGEST])
    stored = decode(digest, data)

    assert stored.manifest == manifest
    assert [entry.path for entry in stored.manifest.entries] == ["a", "b"]
    assert stored.packs == (DIGEST,)
    assert hashlib.sha256(data.partition(b"\n")[0]).hexdigest() == digest.removeprefix("sha256:")


def test_place_of_the_bytes_is_not_part_of_the_identity() -> None:
    manifest = build("dataset", [Entry(DIGEST, 0o644, "a", 1)])

    assert encode(manifest, [])[0] == encode(manifest, [DIGEST])[0]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_half_written_manifest_is_refused(share: float) -> None:
    digest, data = encode(build("dataset", [Entry(DIGEST, 0o644, "a", 1)]), [DIGEST])

    with pytest.raises(StorageFailed, match="repair it from a mirror"):
        decode(digest, data[: int(len(data) * share)][:-2])


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../etc/cron.d/x"},
        {"path": "/abs"},
        {"path": 7},
        {"mode": 0o4755},
        {"size": -1},
        {"digest": "md5:1"},
    ],
)
def test_hostile_manifest_is_refused_even_if_its_hash_is_right(change: dict[str, object]) -> None:
    entry = {"digest": DIGEST, "mode": 0o644, "path": "a", "size": 1} | change
    document = {
        "entries": [entry],
        "format": 1,
        "kind": "dataset",
        "metadata": {},
        "parents": [],
    }
    line = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    digest = f"sha256:{hashlib.sha256(line).hexdigest()}"

    with pytest.raises(StorageFailed, match="cannot be read"):
        decode(digest, line + b'\n{"packs":[]}\n')
