"""Stores under fsspec URLs: in memory, and on S3 as moto serves it."""

from __future__ import annotations

import errno
import os
import threading
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts.bucket import Bucket, connect
from infra.artifacts.gc import Policy
from infra.artifacts.publishing import Surroundings
from infra.artifacts.store import ArtifactStore, open_store
from infra.errors import InvalidConfiguration, MissingDependency, StorageFailed
from migrated import open_migrated

Tree = Callable[..., Path]
Read = Callable[[Path], dict[str, bytes]]
LARGE = os.urandom(300 * 1024)
FILES = {"small": b"s" * 100, "sub/other": b"o" * 200, "large": LARGE}
NOW = Policy(grace=timedelta(0), trash=timedelta(0))


class Server:
    """S3 on loopback, which can be told to answer some requests with an error."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.answer: Callable[[str, str], str | None] = lambda _method, _path: None
        self.refused = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status = self.answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if status is None:
            return self._application(environ, start_response)  # type: ignore[no-any-return]
        self.refused += 1
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        code = "PreconditionFailed" if status.startswith("412") else "InternalError"
        body = f"<Error><Code>{code}</Code><Message>{status}</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Server, dict[str, Any]]]:
    pytest.importorskip("s3fs", reason="s3fs is not installed; it comes with ragstone[s3]")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = Server(DomainDispatcherApplication(create_backend_app))
    listening = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    options = {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {
            "endpoint_url": f"http://127.0.0.1:{listening.port}",
        },
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    yield application, options
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty place under a URL."""
    name = f"b{uuid.uuid4().hex}"
    if request.param == "memory":
        return connect(f"memory://{name}/store", scratch=tmp_path / "scratch")
    _, options = request.getfixturevalue("server")
    made = connect(f"s3://{name}/store", scratch=tmp_path / "scratch", **options)
    made._filesystem.mkdir(name)
    return made


@pytest.fixture
def store(bucket: Bucket, tmp_path: Path, around: Surroundings) -> Iterator[ArtifactStore]:
    database = open_migrated(tmp_path / "bucket.db")
    yield ArtifactStore(bucket, database, around)
    database.close()


def test_bucket_gives_back_what_was_put(
    store: ArtifactStore, tree: Tree, read: Read, tmp_path: Path
) -> None:
    source = tree(FILES)
    assert str(store.put(source, "dataset/d")) == "dataset/d@v1"
    assert store.put(source, "dataset/d").version == 1
    with store.writer("model/m") as draft:
        (draft.folder / "model.safetensors").write_bytes(LARGE)

    assert read(store.checkout("dataset/d", tmp_path / "out")) == FILES
    assert read(store.checkout("model/m", tmp_path / "m")) == {"model.safetensors": LARGE}
    assert store.verify("dataset/d").sound
    assert not list((tmp_path / "scratch").iterdir())


def test_range_of_a_file_in_a_bucket_is_read_alone(store: ArtifactStore, tree: Tree) -> None:
    store.put(tree(FILES), "dataset/d")

    with store.open("dataset/d", "large") as reader:
        reader.seek(1000)
        assert reader.read(10) == LARGE[1000:1010]
        reader.seek(-5, os.SEEK_END)
        assert reader.read() == LARGE[-5:]
    with store.open("dataset/d", "sub/other") as reader:
        assert reader.read() == b"o" * 200


def test_conditional_put_leaves_what_is_there(bucket: Bucket, tmp_path: Path) -> None:
    for text, new in (("first", True), ("again", False)):
        (tmp_path / "object").write_text(text)
        assert bucket.publish("blobs/x", tmp_path / "object") is new
    assert bucket.read("blobs/x") == b"first"
    # A writer that looked before the other had finished meets the condition itself.
    (tmp_path / "object").write_text("late, and of another length")
    assert bucket.publish("blobs/x", tmp_path / "object") is False
    assert bucket.read("blobs/x") == b"first"


def test_bucket_lists_moves_and_deletes(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "object").write_text("1")
    bucket.publish("blobs/sha256/ab/cd", tmp_path / "object")

    (item,) = bucket.list("blobs")
    assert (item.key, item.size) == ("blobs/sha256/ab/cd", 1)
    assert abs(item.modified - (tmp_path).stat().st_mtime) < 60
    assert bucket.move(item.key, "trash/1/x")
    assert not bucket.move(item.key, "trash/1/x")
    assert bucket.size(item.key) is None
    assert bucket.delete("trash/1/x")
    assert not bucket.delete("trash/1/x")
    assert list(bucket.list("blobs")) == []
    with pytest.raises(FileNotFoundError):
        bucket.read("blobs/nothing")


def test_bucket_is_collected_and_content_comes_back(
    store: ArtifactStore, tree: Tree, clock: Any
) -> None:
    source = tree(FILES)
    store.put(source, "dataset/d")
    store.expire("dataset/d@v1")
    clock.forward(hours=1)

    assert store.gc(NOW).trashed == 3
    clock.forward(hours=1)
    store.put(source, "dataset/d")
    clock.forward(hours=1)
    assert store.gc(NOW).purged == 3
    assert store.verify("dataset/d@v2").sound


def test_bucket_and_folder_sync_both_ways_and_mend_each_other(
    store: ArtifactStore, local: ArtifactStore, other: ArtifactStore, tree: Tree
) -> None:
    local.put(tree(FILES), "dataset/d")
    assert local.sync("dataset/d", store).objects == 3
    assert local.sync("dataset/d", store).objects == 0
    assert store.sync("dataset/d", other).objects == 3
    blob = next(local.storage.root.glob("blobs/sha256/??/*"))  # type: ignore[attr-defined]
    blob.chmod(0o600)
    blob.write_bytes(bytes([LARGE[0] ^ 1]) + LARGE[1:])

    assert local.repair("dataset/d", store.storage).sound
    assert other.verify("dataset/d").sound


class FailingBucket:
    """An fsspec file system that raises at its `at`-th call that touches the bucket."""

    protocol = "memory"

    def __init__(self, filesystem: Any, at: int | None, error: OSError) -> None:
        self._filesystem = filesystem
        self._at = at
        self._error = error
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._filesystem, name)
        if name not in {"put_file", "info", "cat_file", "cp_file", "rm_file", "find"}:
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self._at is not None and self.calls >= self._at:
                raise self._error
            return attribute(*args, **kwargs)

        return call


def test_bucket_that_fails_at_any_call_shows_nothing_by_half(
    tree: Tree, tmp_path: Path, around: Surroundings, local: ArtifactStore
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    old, new = tree(FILES, "old"), tree({**FILES, "large": LARGE[::-1]}, "new")
    error = OSError(errno.EIO, "An error occurred (500): Internal Error")
    at, outcomes = 0, []
    while "finished" not in outcomes:
        at += 1
        place, scratch = f"fail{uuid.uuid4().hex}", tmp_path / f"scratch{at}"
        name = f"dataset/d{at}"
        store = ArtifactStore(Bucket(MemoryFileSystem(), place, scratch), local.database, around)
        store.put(old, name)
        failing = FailingBucket(MemoryFileSystem(), at, error)
        try:
            ArtifactStore(Bucket(failing, place, scratch), local.database, around).put(new, name)
            outcomes.append("finished")
        except StorageFailed:
            outcomes.append("failed")
            assert len(store.versions(name)) == 1
        assert store.verify(name).sound
        assert store.put(new, name).version == 2
        assert store.verify(name).sound
    assert len(outcomes) > 8


def test_s3_that_answers_500_fails_in_words(
    server: tuple[Server, dict[str, Any]], tree: Tree, local: ArtifactStore, tmp_path: Path
) -> None:
    application, options = server
    name = f"b{uuid.uuid4().hex}"
    bucket = connect(f"s3://{name}/store", scratch=tmp_path / "scratch", **options)
    bucket._filesystem.mkdir(name)
    bucket._filesystem.retries = 1
    store = ArtifactStore(bucket, local.database)
    application.answer = lambda method, _path: (
        "500 Internal Server Error" if method == "PUT" else None
    )
    with pytest.raises(StorageFailed, match="Cannot store in"):
        store.put(tree(FILES), "dataset/d")
    application.answer = lambda _method, _path: None

    assert application.refused > 0
    assert store.names() == []
    assert store.put(tree(FILES), "dataset/d").version == 1


def test_s3_that_answers_412_means_another_writer_was_first(
    server: tuple[Server, dict[str, Any]], tmp_path: Path
) -> None:
    application, options = server
    name = f"b{uuid.uuid4().hex}"
    bucket = connect(f"s3://{name}/store", scratch=tmp_path / "scratch", **options)
    bucket._filesystem.mkdir(name)
    (tmp_path / "object").write_bytes(b"same")
    application.answer = lambda method, _path: (
        "412 Precondition Failed" if method == "PUT" else None
    )
    published = bucket.publish("blobs/x", tmp_path / "object")
    application.answer = lambda _method, _path: None

    assert not published


def test_large_object_is_sent_in_parts_under_the_same_condition(
    server: tuple[Server, dict[str, Any]], tmp_path: Path
) -> None:
    _, options = server
    name = f"b{uuid.uuid4().hex}"
    bucket = connect(f"s3://{name}/store", scratch=tmp_path / "scratch", **options)
    bucket._filesystem.mkdir(name)
    for number, new in ((1, True), (2, False)):
        (tmp_path / "object").write_bytes(bytes([number]) * (11 << 20))
        assert bucket.publish("blobs/x", tmp_path / "object") is new
    assert bucket.read("blobs/x", 0, 3) == b"\x01\x01\x01"


def test_unreachable_bucket_fails_in_words(local: ArtifactStore, tmp_path: Path) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed; it comes with ragstone[s3]")
    options: dict[str, Any] = {
        "key": "x",
        "secret": "y",
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }

    with pytest.raises(StorageFailed, match="Cannot read in"):
        open_store("s3://nowhere/store", local.database, **options)


def test_unknown_protocol_is_refused(local: ArtifactStore) -> None:
    with pytest.raises(InvalidConfiguration, match="ftpx"):
        open_store("ftpx://bucket/store", local.database)


def test_missing_package_is_named_with_the_line_that_installs_it(local: ArtifactStore) -> None:
    from importlib.util import find_spec

    if find_spec("gcsfs"):
        pytest.skip("gcsfs is installed here")
    with pytest.raises(MissingDependency, match=r"ragstone\[gcs\]"):
        open_store("gs://bucket/store", local.database)


def test_no_password_is_told_of_an_address_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        connect("nowhere://ada:secret@host/store", scratch=tmp_path)
    told = "".join(traceback.format_exception(refused.value, limit=0))
    assert "'nowhere://host/store'" in told
    assert "secret" not in told
