"""Types of the local index: which is built when, what it finds, and that its files are watched."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import retrieval
from infra.errors import InvalidConfiguration
from retrieval.indexes import Change, open_index
from retrieval.indexes import _candidates as structures
from retrieval.indexes._calibration import Sample, calibrated
from retrieval.indexes._candidates import Candidates, built
from retrieval.indexes._dense import Dense
from retrieval.indexes._options import Options
from retrieval.indexes._piece import Piece, _among
from retrieval.indexes._settling import is_settled, settled
from retrieval.indexes.local import LocalIndex, build

DIMENSION = 32
KINDS = ("hnsw", "ivf")
ROOT = Path(next(iter(retrieval.__path__))).parent
Vectors = NDArray[np.float16]


def _vectors(count: int, seed: int = 0) -> Vectors:
    """Unit vectors in clusters, as those of texts are."""
    chance = np.random.default_rng(seed)
    centres = chance.standard_normal((40, DIMENSION))
    rows = centres[chance.integers(40, size=count)] + chance.standard_normal((count, DIMENSION))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


def _log(count: int, *, start: int = 1, seed: int = 0) -> list[Change]:
    return [
        Change(n, n, n % 50, f"wall number{n}", "", row)
        for n, row in enumerate(_vectors(count, seed), start)
    ]


def _dense(count: int, seed: int = 0) -> Dense:
    ids = np.arange(1, count + 1)
    return Dense(DIMENSION).with_rows(ids, ids % 50, _vectors(count, seed))


def _go_on() -> None:
    """Never end a build."""


def _exact(vectors: dict[int, NDArray[Any]], question: NDArray[Any], limit: int) -> set[int]:
    ids = np.array(sorted(vectors))
    scores = np.stack([vectors[n] for n in ids.tolist()]).astype(np.float32) @ question
    return set(ids[np.argsort(-scores, kind="stable")[:limit]].tolist())


def _recall(index: Any, vectors: dict[int, NDArray[Any]], *, limit: int = 10) -> float:
    chance = np.random.default_rng(5)
    found = wanted = 0
    for _ in range(100):
        question = vectors[int(chance.choice(list(vectors)))].astype(np.float32)
        question += chance.standard_normal(DIMENSION).astype(np.float32) / 20
        search = index.search if isinstance(index, Dense) else index.dense
        hits = search(question, limit).chunk_ids.tolist()
        assert len(hits) == len(set(hits)) == min(limit, len(vectors))
        found += len(_exact(vectors, question, limit) & set(hits))
        wanted += min(limit, len(vectors))
    return found / wanted


def _prefer_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows as tests have are scanned in less time."""
    monkeypatch.setattr("retrieval.indexes._piece._FEW_ROWS", 100)
    monkeypatch.setattr("retrieval.indexes._candidates._ROWS_A_NODE", 0)


def _kinds(dense: Dense) -> list[str | None]:
    return [piece.candidates.kind if piece.candidates else None for piece in dense.pieces]


@pytest.mark.parametrize(
    ("given_", "rows", "kinds"),
    [
        ({}, 2_000, [None]),
        ({"exact_below": 2_000}, 2_000, ["ivf"]),
        ({"exact_below": 2_001}, 2_000, [None]),
        ({"type": "exact", "exact_below": 10}, 2_000, [None]),
        ({"type": "hnsw"}, 2_000, ["hnsw"]),
        ({"type": "ivf"}, 2_000, ["ivf"]),
        ({"type": "ivf"}, 900, [None]),
    ],
)
def test_type_follows_size_unless_it_is_forced(
    given_: dict[str, Any], rows: int, kinds: list[str | None]
) -> None:
    options = Options.of(given_)
    dense = settled(_dense(rows), options, step=_go_on)
    assert _kinds(dense) == kinds
    assert is_settled(dense, options)


@pytest.mark.parametrize(
    "given_",
    [
        {"type": "flat"},
        {"recall": 0},
        {"recall": 1.1},
        {"recall": "high"},
        {"recall": True},
        {"exact_below": -1},
        {"exact_below": 1.5},
        {"build_threads": "all"},
        {"nprobe": 8},
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, given_: dict[str, Any]) -> None:
    [name] = given_
    with pytest.raises(InvalidConfiguration, match=name):
        open_index("local", tmp_path / "index", dimension=DIMENSION, **given_)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure_finds_what_it_was_calibrated_for(kind: str) -> None:
    dense = settled(_dense(4_000), Options(type=kind), step=_go_on)
    [piece] = dense.pieces
    assert piece.candidates is not None
    assert piece.candidates.recall >= 0.97
    vectors = dict(enumerate(_vectors(4_000), start=1))
    assert _recall(dense, vectors) >= 0.95
    assert _recall(dense, vectors, limit=100) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_more_recall_takes_more_effort(kind: str) -> None:
    efforts = []
    for target in (0.5, 0.999):
        [piece] = settled(_dense(4_000), Options(type=kind, recall=target), step=_go_on).pieces
        assert piece.candidates is not None
        assert piece.candidates.recall >= target
        efforts.append(piece.candidates.effort * piece.candidates.refine)
    assert efforts[0] < efforts[1]


def test_measured_recall_is_that_of_an_exact_scan() -> None:
    """A structure over all rows finds everything, one that looks into no lists almost nothing."""
    piece = Piece.of(np.arange(2_000), np.arange(2_000), _vectors(2_000))
    sample = Sample.of(piece.vectors, piece.alive)
    index = built("ivf", piece.vectors, storage=piece.index, threads=1, step=_go_on)
    everything = Candidates("ivf", "ivf", effort=index.nlist, refine=64, recall=0, index=index)
    assert sample.recall(everything) == 1.0
    one_list = Candidates("ivf", "ivf", effort=1, refine=64, recall=0, index=index)
    assert 0.1 < sample.recall(one_list) < 0.9
    for question, worst in zip(sample.questions, sample.worst, strict=True):
        scores = np.sort((piece.vectors.astype(np.float32) * question).sum(axis=1))
        assert worst == pytest.approx(scores[-10], abs=1e-5)


def test_where_no_structure_finds_enough_the_scan_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A structure that answers with the same row whatever it is asked."""

    class Broken:
        nlist, ntotal, d = 4, 2_000, DIMENSION

        def search(self, _query: Any, count: int, params: Any) -> tuple[Any, Any]:  # noqa: ARG002
            return np.zeros((1, count), dtype=np.float32), np.zeros((1, count), dtype=np.int64)

    monkeypatch.setattr("retrieval.indexes._settling.built", lambda *_, **__: Broken())
    options = Options(type="ivf")
    dense = settled(_dense(2_000), options, step=_go_on)
    assert _kinds(dense) == ["exact"]
    assert is_settled(dense, options)
    assert _recall(dense, dict(enumerate(_vectors(2_000), start=1))) == 1.0
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_selective_filter_is_exact(kind: str) -> None:
    count = 5_000
    dense = settled(_dense(count), Options(type=kind, recall=0.5), step=_go_on)
    assert _kinds(dense) == [kind]
    vectors = _vectors(count)
    for seed in range(50):
        question = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        document = seed % 50
        allowed = {n: vectors[n - 1] for n in range(1, count + 1) if n % 50 == document}
        hits = dense.search(question, 10, documents=np.array([document]))
        assert set(hits.chunk_ids.tolist()) == _exact(allowed, question, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wide_filter_goes_through_the_structure(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prefer_structures(monkeypatch)
    count = 5_000
    dense = settled(_dense(count), Options(type=kind), step=_go_on)
    vectors = _vectors(count)
    documents = np.arange(0, 50, 3)
    allowed = {n: vectors[n - 1] for n in range(1, count + 1) if n % 50 % 3 == 0}
    asked = _counted(monkeypatch)
    found = 0
    questions = vectors[:50].astype(np.float32) + vectors[50:100].astype(np.float32) / 3
    for question in questions:
        hits = set(dense.search(question, 10, documents=documents).chunk_ids.tolist())
        assert hits <= set(allowed)
        assert len(hits) == 10
        found += len(_exact(allowed, question, 10) & hits)
    assert len(asked) == 50
    assert found >= 0.95 * 500


def test_a_graph_is_left_alone_where_a_scan_of_what_is_allowed_takes_less_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("retrieval.indexes._piece._FEW_ROWS", 100)
    dense = settled(_dense(5_000), Options(type="hnsw"), step=_go_on)
    asked = _counted(monkeypatch)
    question, documents = _vectors(5_000)[7].astype(np.float32), np.arange(0, 50, 3)
    dense.search(question, 10, documents=documents)
    assert not asked
    monkeypatch.setattr("retrieval.indexes._candidates._ROWS_A_NODE", 0)
    dense.search(question, 10, documents=documents)
    assert len(asked) == 1


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return where each question to a structure is noted from now on."""
    asked: list[dict[str, Any]] = []
    rows_of = structures.Candidates.rows

    def rows(self: Candidates, *arguments: Any, **named: Any) -> NDArray[np.int64]:
        asked.append(named)
        return rows_of(self, *arguments, **named)

    monkeypatch.setattr(structures.Candidates, "rows", rows)
    return asked


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_filter_leaves_is_found_however_far_it_lies_from_the_question(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subjects are regions of the space; questions come from any, filters take any of them."""
    _prefer_structures(monkeypatch)
    chance = np.random.default_rng(3)
    subjects, rows = 5, 4_000
    subject = np.sort(chance.integers(subjects, size=rows))
    vectors = chance.standard_normal((subjects, DIMENSION))[subject] * 1.5
    vectors += chance.standard_normal((rows, DIMENSION))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    documents = subject * 20 + np.arange(rows) % 20
    whole = Dense(DIMENSION).with_rows(np.arange(rows), documents, vectors)
    dense = settled(whole, Options(type=kind, recall=0.95), step=_go_on)
    [piece] = dense.pieces
    assert piece.candidates is not None
    assert piece.candidates.kind == kind
    for row in range(0, rows, 400):
        around = piece.candidates.share_around(vectors[row].astype(np.float32), subject == 2)
        assert around > 0.9 if subject[row] == 2 else around < 0.1
    found = 0
    for _ in range(60):
        question = vectors[chance.integers(rows)].astype(np.float32)
        subjects_left = chance.choice(subjects, chance.integers(1, subjects), replace=False)
        of_them = np.flatnonzero(np.isin(np.arange(subjects * 20) // 20, subjects_left))
        left = np.sort(chance.choice(of_them, chance.integers(10, len(of_them)), replace=False))
        allowed = {n: vectors[n] for n in np.flatnonzero(np.isin(documents, left)).tolist()}
        hits = set(dense.search(question, 10, documents=left).chunk_ids.tolist())
        assert hits <= set(allowed)
        found += len(_exact(allowed, question, 10) & hits)
    assert found >= 0.98 * 600


@pytest.mark.parametrize("kind", KINDS)
def test_small_changes_stay_beside_the_large_piece_until_they_are_many(kind: str) -> None:
    options = Options(type=kind)
    large = settled(_dense(6_000), options, step=_go_on)
    ids = np.arange(10_001, 10_301)
    more = large.with_rows(ids, ids, _vectors(300, seed=1))
    few = settled(more, options, step=_go_on)
    assert _kinds(few) == [kind, None]
    assert few.pieces[0] is large.pieces[0]
    ids = np.arange(20_001, 21_001)
    many = settled(few.with_rows(ids, ids, _vectors(1_000, seed=2)), options, step=_go_on)
    assert _kinds(many) == [kind, kind]
    assert [piece.count for piece in many.pieces] == [6_000, 1_300]
    ids = np.arange(30_001, 31_001)
    whole = settled(many.with_rows(ids, ids, _vectors(1_000, seed=3)), options, step=_go_on)
    assert [piece.count for piece in whole.pieces] == [8_300]


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_rows_are_left_out_and_go_for_good_when_they_are_a_fifth(kind: str) -> None:
    options = Options(type=kind)
    dense = settled(_dense(4_000), options, step=_go_on)
    vectors = dict(enumerate(_vectors(4_000), start=1))
    for gone, rows in ((700, 4_000), (900, 3_100)):
        chunk_ids = np.arange(1, gone + 1)
        dense = settled(dense.without(dense.held(chunk_ids)), options, step=_go_on)
        vectors = {n: row for n, row in vectors.items() if n > gone}
        assert [len(piece.alive) for piece in dense.pieces] == [rows]
        assert len(dense) == len(vectors)
        assert _kinds(dense) == [kind]
        assert _recall(dense, vectors) >= 0.95


def test_recall_is_measured_again_and_effort_raised_when_it_fell() -> None:
    options = Options(type="ivf")
    [piece] = settled(_dense(4_000), options, step=_go_on).pieces
    assert piece.candidates is not None
    weak = calibrated(piece.candidates, Sample.of(piece.vectors, piece.alive), target=0.3)
    assert weak is not None
    assert weak.recall < 0.97
    fallen = Dense(DIMENSION, (Piece(*_fields(piece, weak)),))
    assert not is_settled(fallen, options)
    mended = settled(fallen, options, step=_go_on)
    assert is_settled(mended, options)
    [after] = mended.pieces
    assert after.candidates is not None
    assert after.candidates.effort > weak.effort
    assert after.candidates.recall >= 0.97
    assert after.candidates.index is piece.candidates.index  # nothing was built


def _fields(piece: Piece, candidates: Candidates) -> tuple[Any, ...]:
    same = (piece.index, piece.chunk_ids, piece.document_ids, piece.alive, piece.count)
    return (*same, candidates)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["auto", "exact", *KINDS]),
    steps=st.lists(
        st.tuples(st.integers(1, 900), st.integers(0, 300), st.booleans()), min_size=1, max_size=6
    ),
)
def test_any_order_of_changes_and_settling_keeps_every_chunk(
    kind: str, steps: list[tuple[int, int, bool]]
) -> None:
    options = Options(type=kind, exact_below=200)
    dense, model, following = Dense(DIMENSION), {}, 1
    for number, (added, removed, is_settling) in enumerate(steps):
        gone = np.array(sorted(model)[:removed], dtype=np.int64)
        ids = np.arange(following, following + added)
        rows = _vectors(added, seed=number)
        following += added
        dense = dense.without(gone).with_rows(ids, ids % 50, rows)
        model = {n: row for n, row in model.items() if n not in set(gone.tolist())}
        model.update(zip(ids.tolist(), rows, strict=True))
        if is_settling:
            dense = settled(dense, options, step=_go_on)
            assert is_settled(dense, options)
        assert len(dense) == len(model)
        everything = dense.search(np.ones(DIMENSION, dtype=np.float32), len(model) + 5)
        assert sorted(everything.chunk_ids.tolist()) == sorted(model)
        wanted = np.array(sorted(model), dtype=np.int64)
        assert np.array_equal(dense.vectors(wanted), np.stack([model[n] for n in sorted(model)]))
    if len(model) >= 20:
        assert _recall(dense, model) >= 0.9


def _opened(folder: Path, kind: str, **more: Any) -> LocalIndex:
    return build(folder, dimension=DIMENSION, type=kind, **more)


def _manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_reopened_index_has_its_structure_and_says_what_it_finds(tmp_path: Path, kind: str) -> None:
    log = _log(3_000)
    index = _opened(tmp_path, kind)
    index.apply(log)
    assert index.is_due()
    index.checkpoint()
    assert not index.is_due()
    index.close()
    [said] = _manifest(tmp_path)["pieces"]
    assert said["kind"] == said["asked_for"] == kind
    assert said["recall"] >= 0.97
    index = _opened(tmp_path, kind)
    assert index.watermark == 3_000
    assert not index.is_due()
    vectors = {change.chunk_id: change.vector for change in log if change.vector is not None}
    assert _recall(index, vectors) >= 0.95
    index.apply([Change(3_001, 5, 0)])
    assert 5 not in index.dense(vectors[5].astype(np.float32), 10).chunk_ids
    index.checkpoint()
    index.close()
    index = _opened(tmp_path, kind)
    assert len(index) == 2_999
    assert 5 not in index.dense(vectors[5].astype(np.float32), 10).chunk_ids
    index.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_change_does_not_write_the_large_files_again(tmp_path: Path, kind: str) -> None:
    index = _opened(tmp_path, kind)
    index.apply(_log(3_000))
    index.checkpoint()
    before = _inodes(tmp_path)
    index.apply([Change(3_001, 5, 0), *_log(20, start=3_002, seed=1)])
    index.checkpoint()
    after = _inodes(tmp_path)
    for name in ("vectors.faiss", "positions.npy", "candidates.faiss"):
        assert after[f"dense-0/{name}"] == before[f"dense-0/{name}"]
    assert {name for name in after if name.startswith("dense-")} - before.keys() == {
        "dense-0/alive.npy",
        "dense-1/positions.npy",
        "dense-1/vectors.faiss",
    }
    index.close()
    index = _opened(tmp_path, kind)
    assert (index.watermark, len(index)) == (3_021, 3_019)
    index.close()


def _inodes(folder: Path) -> dict[str, int]:
    root = folder / _manifest(folder)["checkpoint"]
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.stat().st_ino for path in files}


def test_files_that_another_process_removed_are_written_again(tmp_path: Path) -> None:
    first, second = _opened(tmp_path, "ivf"), _opened(tmp_path, "ivf")
    log = _log(2_000)
    first.apply(log)
    first.checkpoint()
    second.apply([*log, Change(2_001, 7, 0)])
    second.checkpoint()
    first.apply([Change(2_001, 7, 0), Change(2_002, 8, 0)])
    first.checkpoint()
    for index in (first, second):
        index.close()
    index = _opened(tmp_path, "ivf")
    assert (index.watermark, len(index)) == (2_002, 1_998)
    index.close()


def test_another_type_in_the_settings_is_built_at_the_next_checkpoint(tmp_path: Path) -> None:
    log = _log(2_000)
    index = _opened(tmp_path, "exact")
    index.apply(log)
    index.checkpoint()
    index.close()
    assert _manifest(tmp_path)["pieces"] == [None]
    for kind in ("ivf", "hnsw"):
        index = _opened(tmp_path, kind)
        assert index.watermark == 2_000
        assert index.is_due()
        index.checkpoint()
        index.close()
        assert [said["kind"] for said in _manifest(tmp_path)["pieces"]] == [kind]
    index = _opened(tmp_path, "exact")
    index.checkpoint()
    index.close()
    assert _manifest(tmp_path)["pieces"] == [None]


def test_a_higher_recall_in_the_settings_is_reached_at_the_next_checkpoint(tmp_path: Path) -> None:
    index = _opened(tmp_path, "ivf", recall=0.5)
    index.apply(_log(3_000))
    index.checkpoint()
    index.close()
    [before] = _manifest(tmp_path)["pieces"]
    index = _opened(tmp_path, "ivf", recall=0.99)
    assert index.is_due()
    index.checkpoint()
    index.close()
    [after] = _manifest(tmp_path)["pieces"]
    assert before["recall"] < 0.99 <= after["recall"]
    assert after["effort"] > before["effort"]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_or_a_short_file_is_found_and_mended(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = _log(2_000)
    sound = tmp_path / "sound"
    index = _opened(sound, kind)
    index.apply(log)
    index.checkpoint()
    index.apply([Change(2_001, 5, 0), *_log(20, start=2_002, seed=1)])
    index.checkpoint()  # with files taken over from the former checkpoint
    index.close()
    log = [*log, Change(2_001, 5, 0), *_log(20, start=2_002, seed=1)]
    names = [name for name in _inodes(sound) if name.startswith("dense-")]
    assert len(names) == 6
    for number, name in enumerate(names * 2):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(sound, folder)
        path = folder / _manifest(folder)["checkpoint"] / name
        if number < len(names):
            content = bytearray(path.read_bytes())
            content[random.Random(number).randrange(len(content))] ^= 0x04
            path.write_bytes(content)
        else:
            os.truncate(path, path.stat().st_size // 2)
        caplog.clear()
        index = _opened(folder, kind)
        assert (index.watermark, len(index)) == (0, 0), name
        assert "is not used" in caplog.text
        index.apply(log)
        index.checkpoint()
        index.close()
        index = _opened(folder, kind)
        assert (index.watermark, len(index)) == (2_021, 2_019)
        index.close()


def test_a_byte_that_flips_before_the_file_is_taken_over_does_not_pass_for_right(
    tmp_path: Path,
) -> None:
    index = _opened(tmp_path, "ivf")
    index.apply(_log(2_000))
    index.checkpoint()
    path = tmp_path / _manifest(tmp_path)["checkpoint"] / "dense-0" / "vectors.faiss"
    with path.open("r+b") as file:
        file.seek(5_000)
        byte = file.read(1)[0]
        file.seek(5_000)
        file.write(bytes([byte ^ 1]))
    index.apply([Change(2_001, 5, 0)])
    index.checkpoint()
    index.close()
    index = _opened(tmp_path, "ivf")
    assert index.watermark == 0
    index.close()


@pytest.mark.parametrize("kind", KINDS)
def test_writers_and_readers_do_not_wait_for_a_build(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build stands still until a reader and a writer have been served."""
    reached, released = threading.Event(), threading.Event()
    log = _log(2_000)
    index = _opened(tmp_path, kind)
    index.apply(log)

    def wait(*arguments: Any, **named: Any) -> Any:
        reached.set()
        assert released.wait(60)
        return built(*arguments, **named)

    monkeypatch.setattr("retrieval.indexes._settling.built", wait)
    builder = threading.Thread(target=index.checkpoint)
    builder.start()
    assert reached.wait(60)
    model = {change.chunk_id: change.vector for change in log if change.vector is not None}
    changed = _log(30, start=2_001, seed=1)
    again = Change(2_031, 17, 3, "wall", "", _vectors(1, seed=9)[0])
    index.apply([*changed, again, Change(2_032, 18, 0), Change(2_033, 2_005, 0)])
    model.update(
        {change.chunk_id: change.vector for change in changed if change.vector is not None}
    )
    assert again.vector is not None
    model[17] = again.vector
    del model[18], model[2_005]
    assert _recall(index, model) == 1.0
    released.set()
    builder.join()
    assert index.watermark == 2_033
    assert len(index) == len(model)
    assert _recall(index, model) >= 0.95
    wanted = np.array(sorted(model), dtype=np.int64)
    assert np.array_equal(index.vectors(wanted), np.stack([model[n] for n in sorted(model)]))
    assert _manifest(tmp_path)["watermark"] == 2_000
    index.checkpoint()
    index.close()
    index = _opened(tmp_path, kind)
    assert (index.watermark, len(index)) == (2_033, len(model))
    assert index.dense(again.vector.astype(np.float32), 1).chunk_ids.tolist() == [17]
    index.close()


def test_closing_ends_a_build_and_leaves_the_former_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, closing = threading.Event(), threading.Event()
    index = _opened(tmp_path, "exact")
    index.apply(_log(2_000))
    index.checkpoint()
    index.close()
    index = _opened(tmp_path, "ivf")

    def wait(*arguments: Any, **named: Any) -> Any:
        reached.set()
        assert closing.wait(60)
        while not index._closing.is_set():
            time.sleep(0.001)
        return built(*arguments, **named)

    monkeypatch.setattr("retrieval.indexes._settling.built", wait)
    builder = threading.Thread(target=index.checkpoint)
    builder.start()
    assert reached.wait(60)
    closing.set()
    index.close()
    builder.join()
    assert _manifest(tmp_path)["pieces"] == [None]
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
    index = _opened(tmp_path, "ivf")
    assert index.watermark == 2_000
    index.close()


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    import numpy as np
    from retrieval.indexes import Change, open_index

    kind, folder = sys.argv[1], Path(sys.argv[2])
    index = open_index("local", folder, dimension=32, type=kind, exact_below=300)
    print(index.watermark, flush=True)
    while index.watermark < 100_000:
        start = index.watermark + 1
        rows = np.random.default_rng(start).standard_normal((150, 32)).astype(np.float16)
        index.apply(
            [Change(n, n, n % 9, "wall", "", row) for n, row in enumerate(rows[:120], start)]
            + [Change(start + 120 + n, max(1, start - 7 * n), 0) for n in range(30)]
        )
        print(index.watermark, flush=True)
        index.checkpoint()
        print("durable", index.watermark, flush=True)
    """
)


def _expected(watermark: int) -> set[int]:
    held: set[int] = set()
    for start in range(1, watermark + 1, 150):
        held |= set(range(start, start + 120))
        held -= {max(1, start - 7 * n) for n in range(30)}
    return held


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_of_a_build_the_index_reopens_sound(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "index"
    moments = random.Random(3)
    durable = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, kind, str(folder), str(ROOT)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            assert int(writer.stdout.readline()) >= durable
            for _ in range(moments.randrange(1, 8)):
                durable = _durable(writer.stdout.readline(), durable)
            time.sleep(moments.uniform(0.0, 0.05))
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                durable = _durable(line, durable)
        index = open_index("local", folder, dimension=DIMENSION, type=kind, exact_below=300)
        assert index.watermark >= durable
        everything = index.dense(np.ones(DIMENSION, dtype=np.float32), 10**6)
        assert set(everything.chunk_ids.tolist()) == _expected(index.watermark)
        index.close()
    assert durable >= 600
    assert kind in {said["kind"] for said in _manifest(folder)["pieces"] if said}


def _durable(line: str, before: int) -> int:
    said: Sequence[str] = line.split()
    return int(said[1]) if said[:1] == ["durable"] and len(said) == 2 else before


@given(
    numbers=st.lists(st.integers(1, 60), max_size=40),
    chosen=st.sets(st.integers(1, 60) | st.integers(10**9, 10**9 + 5), max_size=20),
)
def test_rows_of_chosen_documents_are_those_that_numpy_finds(
    numbers: list[int], chosen: set[int]
) -> None:
    held = np.array(numbers, dtype=np.int64)
    documents = np.array(sorted(chosen), dtype=np.int64)
    assert _among(held, documents).tolist() == np.isin(held, documents).tolist()
