"""What the local index promises about its files: durable, checksummed, shared, never half."""

from __future__ import annotations

import fcntl
import inspect
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

import retrieval
from infra.errors import StorageFailed
from retrieval.indexes import Change, SearchIndex, open_index
from retrieval.indexes._dense import Dense
from retrieval.indexes._lexical import Lexical
from retrieval.indexes.local import LocalIndex

DIMENSION = 8
ROOT = Path(next(iter(retrieval.__path__))).parent


def _vector(seed: int) -> NDArray[np.float16]:
    return (np.random.default_rng(seed).integers(-2, 3, DIMENSION) / 4).astype(np.float16)


def _log(count: int) -> list[Change]:
    """A change log in which every fourth change deletes a chunk and some replace one."""
    changes = []
    for sequence in range(1, count + 1):
        chunk_id = sequence if sequence % 5 else max(1, sequence - 7)
        if sequence % 4 == 0:
            changes.append(Change(sequence, max(1, chunk_id - 3), 0))
        else:
            text = f"wall number{sequence}"
            changes.append(Change(sequence, chunk_id, chunk_id % 9, text, "", _vector(sequence)))
    return changes


def _model(changes: Sequence[Change]) -> dict[int, Change]:
    model: dict[int, Change] = {}
    for change in changes:
        if change.vector is None:
            model.pop(change.chunk_id, None)
        else:
            model[change.chunk_id] = change
    return model


def _open(folder: Path, dimension: int = DIMENSION) -> SearchIndex:
    return open_index("local", folder, dimension=dimension)


def _assert_holds(index: SearchIndex, model: dict[int, Change]) -> None:
    """Check that both sides hold exactly the model's chunks, in their last form."""
    assert len(index) == len(model)
    question = _vector(12_345).astype(np.float32)
    hits = index.dense(question, len(model) + 5)
    scores = {n: float(change.vector @ question) for n, change in model.items()}
    expected = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    assert list(zip(hits.chunk_ids.tolist(), hits.scores.tolist(), strict=True)) == expected
    found = index.lexical("wall", len(model) + 5).chunk_ids
    assert sorted(found.tolist()) == sorted(model)
    for n in sorted(model)[-3:]:
        assert index.lexical(model[n].text.split()[1], 2).chunk_ids.tolist() == [n]


def _checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*") if path.is_dir())


def _working_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("work-*"))


def test_reopened_index_continues_at_its_checkpoint(tmp_path: Path) -> None:
    log = _log(300)
    index = _open(tmp_path)
    index.apply(log[:200])
    index.checkpoint()
    index.apply(log[200:250])
    index.close()
    index = _open(tmp_path)
    assert index.watermark == 200
    _assert_holds(index, _model(log[:200]))
    index.apply(log)
    assert index.watermark == 300
    _assert_holds(index, _model(log))
    index.checkpoint()
    _assert_holds(index, _model(log))
    index.close()
    index = _open(tmp_path)
    assert index.watermark == 300
    _assert_holds(index, _model(log))
    index.close()


def test_index_closed_without_a_checkpoint_starts_empty(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.apply(_log(20))
    index.close()
    index = _open(tmp_path)
    assert (index.watermark, len(index)) == (0, 0)
    index.close()


def test_emptied_index_keeps_its_watermark(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.apply([Change(1, 1, 1, "wall number1", "", _vector(1))])
    index.checkpoint()
    index.apply([Change(2, 1, 0)])
    index.checkpoint()
    index.close()
    index = _open(tmp_path)
    assert (index.watermark, len(index)) == (2, 0)
    log = [Change(3, 1, 1, "wall number3", "", _vector(3))]
    index.apply(log)
    _assert_holds(index, _model(log))
    index.close()


def test_only_the_last_checkpoint_and_no_working_folder_remain(tmp_path: Path) -> None:
    index = _open(tmp_path)
    for end in (10, 20, 30):
        index.apply(_log(end))
        index.checkpoint()
        assert len(_checkpoints(tmp_path)) == 1
    index.close()
    (name,) = _checkpoints(tmp_path)
    assert name.startswith("checkpoint-30-")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "access.lock",
        name,
        "checkpoint.lock",
        "manifest.json",
    ]


def test_checkpoint_without_new_changes_writes_nothing(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.checkpoint()
    assert _checkpoints(tmp_path) == []
    index.apply(_log(10))
    index.checkpoint()
    before = _checkpoints(tmp_path)
    index.checkpoint()
    assert _checkpoints(tmp_path) == before
    index.close()


def test_a_flipped_byte_in_any_file_is_found_and_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = _log(60)
    sound = tmp_path / "sound"
    index = _open(sound)
    index.apply(log)
    index.checkpoint()
    index.close()
    (checkpoint,) = _checkpoints(sound)
    names = ["manifest.json"]
    names += [p.relative_to(sound).as_posix() for p in (sound / checkpoint).rglob("*.*")]
    assert len(names) >= 9, names
    for number, name in enumerate(names):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(sound, folder)
        content = bytearray((folder / name).read_bytes())
        content[random.Random(number).randrange(len(content))] ^= 0x10
        (folder / name).write_bytes(content)
        caplog.clear()
        index = _open(folder)
        assert (index.watermark, len(index)) == (0, 0), name
        assert "is not used" in caplog.text
        index.apply(log)
        index.checkpoint()
        index.close()
        caplog.clear()
        index = _open(folder)
        assert index.watermark == 60
        assert caplog.text == ""
        _assert_holds(index, _model(log))
        index.close()


@pytest.mark.parametrize(
    ("said", "changed"),
    [('"watermark": 60', '"watermark": 61'), ('"chunks"', '"chunk"'), ("{", ""), ("{", "[1]{")],
)
def test_a_manifest_that_was_edited_is_not_used(tmp_path: Path, said: str, changed: str) -> None:
    index = _open(tmp_path)
    index.apply(_log(60))
    index.checkpoint()
    index.close()
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    assert said in text
    manifest.write_text(text.replace(said, changed, 1), encoding="utf-8")
    index = _open(tmp_path)
    assert index.watermark == 0
    index.close()


@pytest.mark.parametrize("damage", ["missing", "truncated", "superfluous", "folder"])
def test_an_incomplete_checkpoint_is_not_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    index = _open(tmp_path)
    index.apply(_log(60))
    index.checkpoint()
    index.close()
    folder = tmp_path / _checkpoints(tmp_path)[0]
    if damage == "missing":
        (folder / "dense-0" / "positions.npy").unlink()
    elif damage == "truncated":
        os.truncate(folder / "dense-0" / "vectors.faiss", 100)
    elif damage == "superfluous":
        (folder / "lexical" / "extra.store").write_bytes(b"")
    else:
        shutil.rmtree(folder)
    index = _open(tmp_path)
    assert index.watermark == 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    index.close()


def test_checkpoint_of_another_dimension_is_not_used(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.apply(_log(10))
    index.checkpoint()
    index.close()
    index = _open(tmp_path, dimension=4)
    assert index.watermark == 0
    index.apply([Change(1, 1, 1, "wall", "", np.ones(4, dtype=np.float16))])
    index.checkpoint()
    index.close()
    index = _open(tmp_path, dimension=4)
    assert index.watermark == 1
    index.close()


def test_an_older_state_never_replaces_a_newer_checkpoint(tmp_path: Path) -> None:
    log = _log(40)
    slow, fast = _open(tmp_path), _open(tmp_path)
    fast.apply(log)
    fast.checkpoint()
    slow.apply(log[:20])
    slow.checkpoint()
    third = _open(tmp_path)
    assert third.watermark == 40
    slow.apply(log)
    for index in (slow, fast, third):
        _assert_holds(index, _model(log))
        index.close()


def test_checkpoint_is_left_to_the_process_that_is_at_it(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.apply(_log(10))
    with (tmp_path / "checkpoint.lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        index.checkpoint()
        assert _checkpoints(tmp_path) == []
    index.checkpoint()
    assert len(_checkpoints(tmp_path)) == 1
    index.close()


def test_files_that_someone_is_reading_are_not_removed(tmp_path: Path) -> None:
    index = _open(tmp_path)
    index.apply(_log(10))
    index.checkpoint()
    with (tmp_path / "access.lock").open("ab") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        index.apply(_log(20))
        index.checkpoint()
        assert len(_checkpoints(tmp_path)) == 2
    index.apply(_log(30))
    index.checkpoint()
    assert len(_checkpoints(tmp_path)) == 1
    index.close()


def test_working_folder_of_the_dead_is_removed_and_of_the_living_kept(tmp_path: Path) -> None:
    living = _open(tmp_path)
    living.apply(_log(10))
    mine = _working_folders(tmp_path)
    dead = tmp_path / "work-1-abandoned"
    (dead / "lexical").mkdir(parents=True)
    unlocked = tmp_path / f"work-{os.getpid()}-abandoned"
    unlocked.mkdir()
    (unlocked / "owner.lock").touch()
    other = _open(tmp_path)
    assert set(mine) < set(_working_folders(tmp_path))
    assert len(_working_folders(tmp_path)) == 2
    living.apply(_log(20))
    _assert_holds(living, _model(_log(20)))
    living.close()
    other.close()


@contextmanager
def _largest_file(bytes_: int) -> Iterator[None]:
    """Make the operating system refuse larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_checkpoint_that_cannot_be_written_leaves_the_former_one(tmp_path: Path) -> None:
    log = _log(400)
    index = _open(tmp_path)
    index.apply(log[:200])
    index.checkpoint()
    former = _checkpoints(tmp_path)
    index.apply(log)
    with _largest_file(1_000), pytest.raises(StorageFailed, match="checkpoint"):
        index.checkpoint()
    assert _checkpoints(tmp_path) == former
    _assert_holds(index, _model(log))
    other = _open(tmp_path)
    assert other.watermark == 200
    other.close()
    index.checkpoint()
    index.close()
    index = _open(tmp_path)
    assert index.watermark == 400
    index.close()


@pytest.mark.parametrize("limit", [1, 100, 300, 600, 1_000])
def test_apply_that_cannot_be_written_can_be_repeated(tmp_path: Path, limit: int) -> None:
    log = _log(300)
    index = _open(tmp_path)
    index.apply(log[:100])
    with _largest_file(limit), pytest.raises(StorageFailed):
        index.apply(log[100:])
    assert index.watermark == 100
    index.checkpoint()
    # In other batches than before: what the failed one may have left must not show.
    for end in (150, 220, 300):
        index.apply(log[:end])
    _assert_holds(index, _model(log))
    index.checkpoint()
    index.close()
    index = _open(tmp_path)
    assert index.watermark == 300
    _assert_holds(index, _model(log))
    index.close()


def test_apply_that_failed_after_its_commit_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _log(300)
    index = LocalIndex(tmp_path, dimension=DIMENSION)
    index.apply(log[:100])

    def replace_and_fail(removed: Iterable[int], added: Sequence[Change]) -> None:
        Lexical.replace(index._lexical, removed, added)
        raise StorageFailed("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(index._lexical, "replace", replace_and_fail)
        with pytest.raises(StorageFailed, match="lost"):
            index.apply(log[100:])
    _assert_holds(index, _model(log[:100]))
    for end in (150, 220, 300):
        # Until the failed batch has been passed, the text index may know more than it should.
        index.checkpoint()
        assert _checkpoints(tmp_path) == []
        index.apply(log[:end])
    _assert_holds(index, _model(log))
    index.checkpoint()
    assert len(_checkpoints(tmp_path)) == 1
    index.close()


def test_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StorageFailed, match="file"):
        _open(tmp_path / "file")


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    import numpy as np
    from retrieval.indexes import Change, open_index

    {source}

    folder, acknowledged = Path(sys.argv[1]), Path(sys.argv[2])
    index = open_index("local", folder, dimension=DIMENSION)
    print("open", index.watermark, flush=True)
    log = _log(20_000)
    while index.watermark < len(log):
        start = index.watermark
        index.apply(log[start : start + 7])
        print("applied", flush=True)
        index.checkpoint()
        print("durable", flush=True)
        acknowledged.write_text(str(index.watermark))
    """
)


@contextmanager
def _writer(folder: Path, acknowledged: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that applies and checkpoints until it is killed."""
    source = "\n".join(["DIMENSION = 8", inspect.getsource(_vector), inspect.getsource(_log)])
    source = source.replace("NDArray[np.float16]", "object")
    program = WRITER.format(source=source)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(acknowledged), str(ROOT)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _acknowledged(path: Path) -> int:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return int(text or 0)


@pytest.mark.thorough
def test_killed_at_any_moment_the_index_reopens_sound(tmp_path: Path) -> None:
    folder, acknowledged = tmp_path / "index", tmp_path / "acknowledged"
    log = _log(20_000)
    moments = random.Random(11)
    reached = 0
    for _ in range(20):
        floor = _acknowledged(acknowledged)
        with _writer(folder, acknowledged) as writer:
            assert writer.stdout is not None
            started = int(writer.stdout.readline().split()[1])
            # Counted in steps, not seconds, so that a slow machine gets as far.
            for _ in range(moments.randrange(10)):
                writer.stdout.readline()
            time.sleep(moments.uniform(0.0, 0.05))
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        floor = max(floor, _acknowledged(acknowledged))
        index = _open(folder)
        assert index.watermark >= max(floor, started)
        _assert_holds(index, _model(log[: index.watermark]))
        reached = index.watermark
        index.close()
        assert _working_folders(folder) == []
    assert reached > 200


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    log = _log(20_000)
    with (
        _writer(folder, tmp_path / "first") as first,
        _writer(folder, tmp_path / "second") as second,
    ):
        seen = [0]
        deadline = time.monotonic() + 30
        while len(seen) < 12 or (seen[-1] == 0 and time.monotonic() < deadline):
            index = _open(folder)
            seen.append(index.watermark)
            _assert_holds(index, _model(log[: index.watermark]))
            index.apply(log[: index.watermark + 5])
            _assert_holds(index, _model(log[: index.watermark]))
            index.checkpoint()
            index.close()
            assert first.poll() is None
            assert second.poll() is None
    assert seen == sorted(seen)
    assert seen[-1] > 0


def test_many_small_batches_leave_few_pieces() -> None:
    dense = Dense(DIMENSION)
    copied = 0
    for start in range(0, 40_000, 100):
        ids = np.arange(start, start + 100)
        before = {id(piece) for piece in dense.pieces}
        dense = dense.with_rows(ids, ids, np.zeros((100, DIMENSION), dtype=np.float16))
        copied += sum(piece.count for piece in dense.pieces if id(piece) not in before)
    assert len(dense) == 40_000
    assert len(dense.pieces) <= 6
    # Each row is copied a few times, not once per batch (which would be 200 times).
    assert copied < 25 * 40_000


def test_changing_vectors_leaves_what_searches_hold_as_it_was() -> None:
    ids = np.arange(10)
    full = Dense(DIMENSION).with_rows(ids, ids, np.ones((10, DIMENSION), dtype=np.float16))
    before = full.without(ids[9:])
    after = before.without(ids[:3]).with_rows(ids[:1], ids[:1], np.zeros((1, DIMENSION), "f2"))
    question = np.ones(DIMENSION, dtype=np.float32)
    assert full.search(question, 20).chunk_ids.tolist() == ids.tolist()
    assert before.search(question, 20).chunk_ids.tolist() == ids[:9].tolist()
    assert after.search(question, 20).chunk_ids.tolist() == [3, 4, 5, 6, 7, 8, 0]


def test_mostly_deleted_piece_gives_its_memory_back() -> None:
    ids = np.arange(1_000)
    dense = Dense(DIMENSION).with_rows(ids, ids, np.ones((1_000, DIMENSION), dtype=np.float16))
    dense = dense.without(ids[:600])
    assert len(dense) == 400
    assert [len(piece.chunk_ids) for piece in dense.pieces] == [400]


class LocalIndexMachine(RuleBasedStateMachine):
    """The index against a dictionary, through any order of writes, checkpoints and restarts."""

    folder: Path

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.index = _open(self.folder)
        self.log: list[Change] = []
        self.durable = 0

    @rule(chunk_ids=st.lists(st.integers(1, 12), min_size=1, max_size=8), delete=st.booleans())
    def apply(self, chunk_ids: list[int], delete: bool) -> None:
        for chunk_id in chunk_ids:
            n = len(self.log) + 1
            text = f"wall number{n}"
            vector = None if delete and n % 2 else _vector(n)
            self.log.append(Change(n, chunk_id, chunk_id % 3, text, "", vector))
        self.index.apply(self.log[-len(chunk_ids) - 3 :])

    @rule()
    @precondition(lambda self: len(self.log) > self.durable)
    def checkpoint(self) -> None:
        self.index.checkpoint()
        self.durable = len(self.log)

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = _open(self.folder)
        assert self.index.watermark == self.durable
        _assert_holds(self.index, _model(self.log[: self.durable]))
        self.index.apply(self.log)

    @invariant()
    def agrees_with_the_dictionary(self) -> None:
        if hasattr(self, "index"):
            _assert_holds(self.index, _model(self.log))

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            shutil.rmtree(self.folder)


TestLocalIndexMachine = LocalIndexMachine.TestCase
TestLocalIndexMachine.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
