"""Each benchmark's quick form, on the real stack with the hashing embedder."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    artifacts,
    corpus,
    environments,
    evals,
    feature_views,
    finetune,
    gateway,
    gateway_servers,
    index_scale,
    inference,
    ingest,
    monitoring,
    search,
    start,
)
from benchmarks.options import Options
from benchmarks.table import Row
from infra.database.engine import Database
from infra.errors import InvalidRequest
from monitoring.interactions import Interactions, Query
from training import spec
from training.model_shape import measure
from training.planning import Places, plan


@pytest.fixture
def options(tmp_path: Path, shared_data: Path) -> Options:
    """No peer is installed where these look."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return Options(
        folder=folder,
        quick=True,
        repeats=1,
        environments=tmp_path / "environments",
        embedder="hashing",
        data=shared_data,
    )


def by_metric(rows: list[Row]) -> dict[str, Row]:
    return {row.metric: row for row in rows}


@pytest.mark.usefixtures("light_training")
@pytest.mark.filterwarnings("ignore:::torch", "ignore:::transformers", "ignore:::trl")
def test_finetune_trains_the_same_as_trl_and_takes_the_memory_that_was_planned(
    options: Options,
) -> None:
    pytest.importorskip("trl")
    with pytest.raises(InvalidRequest, match="'2b'"):
        finetune.run(replace(options, shape="2b"))
    # Which is what `quick` takes on processors, but not on a GPU.
    told = finetune.run(replace(options, shape="tiny"))
    rows = {each.metric.removeprefix("tiny: "): each for each in told}
    for metric in ("tokens a second", "memory at the peak"):
        row = rows[metric]
        assert row.ours is not None, metric
        assert row.peer is not None, metric
        assert min(row.ours.low, row.peer.low) > 0, metric
    assert "the same mean loss to 0.0001" in rows["our share of TRL's"].note
    share = rows["memory, measured of the estimate"].ours
    assert share is not None
    assert 0.85 <= share.median <= 1.15


@pytest.mark.parametrize(("name", "billions"), [("1b", 1.24), ("8b", 8.03)])
def test_the_large_shapes_of_the_finetune_benchmark_can_be_planned_without_their_weights(
    tmp_path: Path, name: str, billions: float
) -> None:
    pytest.importorskip("transformers")
    shape = finetune.SHAPES[name]
    config = finetune.describe(shape, tmp_path / name)
    assert measure(config).parameters / 1e9 == pytest.approx(billions, abs=0.01)
    asked = finetune.specification(shape, steps=20, device="cuda")
    base = {**asked["base"], "model": name, "described_by": "base"}
    elsewhere = {"launcher": "slurm", "device": "cuda", "accelerator": "h200-141gb"}
    read = spec.parse({**asked, "base": base, "runtime": elsewhere})
    found = plan(read, Places(tmp_path / name, None, None, Path))
    found.require_sound()
    assert found.lock.batches is not None
    assert found.lock.batches["tokens_per_step"] > 1600 * shape.rows_per_step


def test_ingest_measures_us_and_says_which_peers_are_missing(options: Options) -> None:
    rows = ingest.run(options)
    found = by_metric(rows)
    share = found["time that is embedding"].ours
    assert share is not None
    assert 0 < share.median < 1
    size = found["corpus"].ours
    assert size is not None
    assert size.median >= 20
    missing = {row.peer_name for row in rows if row.note == environments.NOT_INSTALLED}
    assert missing == set(ingest.PIPELINES)
    assert all(row.peer is None for row in rows)


def test_a_part_of_the_corpus_is_a_part_of_each_kind_of_text(options: Options) -> None:
    whole = corpus.write(options.folder / "whole", data=options.data, quick=False)
    part = corpus.write(options.folder / "part", data=options.data, quick=False, part=0.25)
    assert {file.name for file in part.files} < {file.name for file in whole.files}
    assert len(part.files) / len(whole.files) == pytest.approx(0.25, abs=0.02)
    assert part.characters / whole.characters == pytest.approx(0.25, abs=0.08)


def test_ingest_embeds_exactly_the_chunks_it_counts(options: Options) -> None:
    text = corpus.write(options.folder / "corpus", data=options.data, quick=True)
    result, texts = ingest.ingest_ours(text.files, options.folder / "data", options)
    assert result.chunks == len(texts)
    assert result.characters == text.characters
    assert 0 < result.embed_seconds < result.seconds
    assert result.tokens >= result.chunks
    assert result.index_bytes > 0


def test_search_times_every_step_and_finds_what_is_nearest(options: Options) -> None:
    rows = by_metric(search.run(options))
    for step in (*search.STEPS, "dense + lexical + fusion", "whole search without embed"):
        for percent in (50, 99):
            figure = rows[f"1,000 chunks: {step} p{percent}"].ours
            assert figure is not None
            assert figure.median > 0
    recall = rows[f"1,000 chunks: dense recall@{search.RECALL_AT}"].ours
    assert recall is not None
    assert recall.median > 0.9
    assert rows["1,000 chunks: lexical p50"].note == environments.NOT_INSTALLED
    assert rows["1,000 chunks: dense p50"].peer is not None


def test_start_waits_for_a_ready_server_and_a_search(options: Options) -> None:
    rows = by_metric(start.run(options))
    ready = rows["server ready with 1,000 chunks"].ours
    searched = rows["server launch until the first search is answered"].ours
    assert ready is not None
    assert searched is not None
    assert 0 < ready.median < searched.median
    assert rows["ragstone --help"].ratio is not None


def test_artifacts_are_added_checked_out_and_verified_beside_the_bound(options: Options) -> None:
    rows = by_metric(artifacts.run(options))
    sets = {metric.partition(":")[0] for metric in rows}
    assert sets == {"0.08 GB in 10 files", "2,000 files of 3 kB"}
    for each in sets:
        add, again, checkout, verify, memory, share = (
            rows[f"{each}: {what}"].ours
            for what in (
                "cold add",
                "unchanged re-add",
                "hard-link checkout",
                "verify",
                "peak memory",
                "share of the bound min(disk, hash)",
            )
        )
        assert add is not None
        assert again is not None
        assert 0 < again.median < add.median, "what did not change is not read again"
        assert checkout is not None
        assert checkout.median > 0
        assert verify is not None
        assert verify.median > 0
        assert memory is not None
        assert memory.median > 10
        assert share is not None
        assert share.median > 0
        assert rows[f"{each}: cold add"].note == environments.NOT_INSTALLED


def test_large_files_fit_the_disk_and_the_memory(options: Options) -> None:
    large, small = artifacts.sets(replace(options, quick=False))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 100 <= large.files <= 2_500
    assert large.files == 100 or large.files * large.bytes <= memory / 3
    assert f"{large.files:,} files" in large.label
    assert small.files * small.bytes == 300_000_000


def test_gateway_answers_every_request_and_measures_what_it_adds(options: Options) -> None:
    rows = by_metric(gateway.run(dataclasses.replace(options, requests=200)))
    for metric in ("requests, 8 clients", "streams, 8 clients", "CPU of a request"):
        figure = rows[metric]
        assert figure.ours is not None
        assert figure.ours.median > 0
        assert figure.note == environments.NOT_INSTALLED
    direct, ours = rows["requests, no gateway"].ours, rows["requests, 8 clients"].ours
    assert direct is not None
    assert ours is not None
    assert direct.median > ours.median
    for metric in ("added at half load, p50", "added at half load, p99", "growth of memory"):
        assert rows[metric].ours is not None


def test_gateway_is_measured_beside_a_server_of_one_s_own(options: Options) -> None:
    with gateway_servers.null_backend(options) as backend:
        url = f"http://127.0.0.1:{backend.port}"
        rows = by_metric(gateway.run(dataclasses.replace(options, url=url, model="null")))
    share = rows["share of direct"].ours
    assert share is not None
    assert 0 < share.median < 2


def test_index_scale_measures_our_types_and_says_which_peers_are_missing(options: Options) -> None:
    rows = index_scale.run(options)
    ours = {row.metric: row for row in rows if row.peer is None and not row.note}
    assert len(ours) == len(index_scale.NAMES) + 1
    for name in ("recall@10", "recall@100", "recall@10 as measured at the build"):
        figure = ours[f"2,000: {name}"].ours
        assert figure is not None
        assert figure.median >= 0.95
    for name, _ in index_scale.NAMES.values():
        figure = ours[f"2,000: {name}"].ours
        assert figure is not None
        assert figure.median > 0, name
    beside = {row.peer_name for row in rows if row.peer is not None}
    assert beside == {"our exact type", "our hnsw type"}
    missing = {row.peer_name for row in rows if row.note == environments.NOT_INSTALLED}
    assert missing == {"hnswlib", "usearch", "lancedb"}


def test_perturbed_copies_follow_the_real_vectors_and_lie_where_it_says() -> None:
    real = np.random.default_rng(0).standard_normal((50, 384)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    blocks = list(index_scale.perturbed(real, 120, np.random.default_rng(1)))
    assert [len(block) for block in blocks] == [50, 50, 20]
    assert np.array_equal(blocks[0], real.astype(np.float16))
    for block in blocks:
        np.testing.assert_allclose(np.linalg.norm(block.astype(np.float32), axis=1), 1, atol=1e-3)
    cosines = (blocks[1].astype(np.float32) * real).sum(axis=1)
    assert cosines.mean() == pytest.approx(0.85, abs=0.01)


def test_nearest_is_a_sort_of_all_products() -> None:
    vectors = np.random.default_rng(0).standard_normal((45_000, 8)).astype(np.float16)
    questions = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    expected = np.argsort(-(questions @ vectors.astype(np.float32).T), axis=1)[:, :20]
    assert np.array_equal(index_scale.nearest(vectors, questions, 20), expected)


def test_evals_measures_the_runner_and_the_reports_and_says_which_peers_are_missing(
    options: Options,
) -> None:
    rows = evals.run(options)
    found = by_metric(rows)
    for cases in (evals.QUICK_BESIDE, evals.QUICK_MANY):
        added, processor, rate = (
            found[f"{cases} cases: {name}"].ours
            for name in ("added to a case", "processor time of a case", "cases per second")
        )
        assert added is not None
        assert processor is not None
        assert rate is not None
        assert processor.median > 0
        assert rate.median == pytest.approx(1e3 / added.median)
    page, report = (
        found[f"report of {evals.QUICK_MANY} cases{part}: time"].ours
        for part in (", the page alone", "")
    )
    assert page is not None
    assert report is not None
    assert 0 < page.median < report.median
    missing = {row.peer_name for row in rows if row.note == environments.NOT_INSTALLED}
    assert missing == set(evals.PEERS)
    assert all(row.peer is None for row in rows)


def test_inference_is_measured_by_clients_and_beside_the_graph_alone(options: Options) -> None:
    rows = by_metric(inference.run(options))
    for clients in inference.CLIENTS:
        for what in ("requests", "p50", "p99"):
            found = rows[f"{what}, {clients} clients"]
            assert found.ours is not None
            assert found.ours.median > 0
            assert found.note == environments.NOT_INSTALLED
    for name in ("p50", "p99"):
        for rate in ("500/s", "1,000/s", "2,000/s"):
            ours = rows[f"added by the clock, {rate}, {name}"].ours
            client = rows[f"the client's own, {rate}, {name}"].ours
            assert ours is not None
            assert client is not None
            assert client.median > 0
        assert sum("half of what 10 clients get" in each and name in each for each in rows) == 2
    memory = rows["memory after it all"].ours
    assert memory is not None
    assert 50 < memory.median < 2_000


def test_joins_of_a_feature_view_are_measured_beside_those_of_polars(options: Options) -> None:
    found = by_metric(feature_views.run(options))
    for name in ("1 row", "100 rows", "2,000 rows", "2,000 rows, time of processors"):
        assert found[name].ours is not None
        assert found[name].peer is not None
    assert found["the view in memory"].ours is not None


def test_monitoring_is_measured_beside_a_server_without_interactions(options: Options) -> None:
    found = by_metric(monitoring.run(options))
    requests = found["requests, interactions kept"]
    assert requests.ours is not None
    assert requests.peer is not None
    assert min(requests.ours.low, requests.peer.low) > 0
    kept = [Path(f"{name}-data") for name in (monitoring.ON, monitoring.OFF)]
    counts = []
    for folder in kept:
        database = Database(f"sqlite:///{options.folder / folder / 'ragstone.db'}")
        counts.append(len(Interactions(database).find(Query(), limit=10_000)))
        database.close()
    assert counts[0] > 0
    assert counts[1] == 0
