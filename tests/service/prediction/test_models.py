"""Models by name, version and alias: loaded when needed, swapped when moved, let go when full."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import classical_models
from classical_models import ROW, classifier, put, with_file
from infra.artifacts.store import ArtifactStore
from infra.errors import NotFound, NotReady, StorageFailed
from infra.model_settings import Models as Options
from service.prediction import loading
from service.prediction.loading import Loaded
from service.prediction.models import RETRY_SECONDS, Hosted, Models
from set_clock import Clock

Scenario = Callable[[Models], Coroutine[Any, Any, None]]


@pytest.fixture
def run(store: ArtifactStore, clock: Clock) -> Callable[..., None]:
    """Run a scenario with models of the store, and settings if need be."""

    def run_(scenario: Scenario, **options: Any) -> None:
        async def whole() -> None:
            models = Models(lambda: store, Options(**options), clock=clock)
            try:
                await scenario(models)
            finally:
                await models.close()

        asyncio.run(whole())

    return run_


async def answer(loaded: Hosted) -> float:
    table = loaded.reader.of_rows([ROW])
    return float((await loaded.batcher.run(table))[0, 1])


def wanted(seed: int) -> float:
    frame = classical_models.frame_of(classical_models.columns_of([ROW]))
    return float(classifier(seed).pipeline.predict_proba(frame)[0, 1])


def test_version_that_the_alias_means_answers(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    put(store, classifier(0), tmp_path / "0")
    put(store, classifier(1), tmp_path / "1", alias=None)

    async def scenario(models: Models) -> None:
        found = await models.find("churn")
        assert found.version == "1"
        assert await answer(found) == pytest.approx(wanted(0), abs=1e-5)
        assert models.at_hand("churn", None) is found
        for selector in ("2", "v2"):
            other = await models.find("churn", selector)
            assert await answer(other) == pytest.approx(wanted(1), abs=1e-5)
        assert await models.versions("churn") == ["1", "2"]
        assert models.loaded == 2

    run(scenario)


def test_alias_that_moves_is_followed_without_a_request_that_fails(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    put(store, classifier(0), tmp_path / "0")

    async def scenario(models: Models) -> None:
        await models.refresh()
        held = models.at_hand("churn", None)
        assert held is not None
        under_way = asyncio.create_task(answer(held))
        put(store, classifier(1), tmp_path / "1")
        await models.refresh()
        swapped = models.at_hand("churn", None)
        assert swapped is not None
        assert swapped.version == "2"
        assert await under_way == pytest.approx(wanted(0), abs=1e-5)
        assert await answer(swapped) == pytest.approx(wanted(1), abs=1e-5)
        store.roll_back("model/churn", "production")
        await models.refresh()
        assert (await models.find("churn")).version == "1"

    run(scenario)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each version was read from the store."""
    found: Counter[str] = Counter()
    read = loading.read

    def counted(store: ArtifactStore, reference: str, options: Options, **more: Any) -> Loaded:
        found[str(store.find(reference).version)] += 1
        return read(store, reference, options, **more)

    monkeypatch.setattr(loading, "read", counted)
    return found


def test_bad_version_does_not_take_over_and_is_tried_again_later(
    store: ArtifactStore, tmp_path: Path, run: Any, clock: Clock, reads: Counter[str]
) -> None:
    put(store, classifier(0), tmp_path / "0")

    async def scenario(models: Models) -> None:
        await models.refresh()
        put(store, with_file(classifier(1), b"no graph at all"), tmp_path / "1")
        await models.refresh()
        assert (await models.find("churn")).version == "1"
        standing = models.standings()[0]
        assert (standing.version, standing.state) == ("1", "READY")
        assert "cannot be loaded" in standing.reason
        for _ in range(3):
            with pytest.raises(NotReady, match="cannot be loaded"):
                await models.find("churn", "2")
        assert reads == {"1": 1, "2": 1}
        clock.now += RETRY_SECONDS
        with pytest.raises(NotReady, match="cannot be loaded"):
            await models.find("churn", "2")
        assert reads == {"1": 1, "2": 2}
        with pytest.raises(NotReady, match="cannot be loaded"):
            await models.load("churn")
        assert reads == {"1": 1, "2": 3}
        assert (await models.find("churn")).version == "1"

    run(scenario)


def test_store_that_fails_is_told_of_and_not_asked_with_each_request(
    store: ArtifactStore, tmp_path: Path, run: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, classifier(0), tmp_path / "0")
    reads = 0

    def damaged(*_: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        raise StorageFailed("'model.onnx' does not match its digest")

    async def scenario(models: Models) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(loading, "read", damaged)
            await models.refresh()
            with pytest.raises(NotReady, match="does not match its digest"):
                await models.find("churn")
        assert reads == 1
        (standing,) = models.standings()
        assert (standing.state, "does not match" in standing.reason) == ("UNAVAILABLE", True)
        clock.now += RETRY_SECONDS
        assert (await models.find("churn")).version == "1"

    run(scenario)


def test_versions_that_are_no_longer_loaded_are_forgotten(
    store: ArtifactStore, tmp_path: Path, run: Any, clock: Clock
) -> None:
    for number in range(3):
        put(store, classifier(number), tmp_path / str(number), alias=None)
    put(store, with_file(classifier(3), b"no graph"), tmp_path / "bad", alias=None)

    async def scenario(models: Models) -> None:
        for number in ("1", "2", "3"):
            await models.find("churn", number)
        with pytest.raises(NotReady):
            await models.find("churn", "4")
        await models.refresh()
        assert list(models._versions) == [("churn", 3)]
        assert len(models._failures) == 1
        clock.now += RETRY_SECONDS
        await models.refresh()
        assert not models._failures
        assert models.at_hand("churn", "3") is not None

    run(scenario, cache_bytes=1)


def test_other_aliases_are_served_and_followed(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    put(store, classifier(0), tmp_path / "0")
    put(store, classifier(1), tmp_path / "1", alias="candidate")

    async def scenario(models: Models) -> None:
        assert (await models.find("churn", "candidate")).version == "2"
        store.tag("model/churn@v1", "candidate")
        await models.refresh()
        assert (await models.find("churn", "candidate")).version == "1"
        store.untag("model/churn", "candidate")
        await models.refresh()
        with pytest.raises(NotFound, match="candidate"):
            await models.find("churn", "candidate")

    run(scenario)


def test_names_that_are_not_there_or_not_served_are_not_found(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    put(store, classifier(0), tmp_path / "0")
    put(store, classifier(0), tmp_path / "1", name="hidden")

    async def scenario(models: Models) -> None:
        await models.refresh()
        assert [each.name for each in models.standings()] == ["churn"]
        for name, selector in [
            ("chrun", None),
            ("hidden", None),
            ("hidden", "1"),
            ("churn", "9"),
            ("churn", "nightly"),
        ]:
            with pytest.raises(NotFound):
                await models.find(name, selector)
        with pytest.raises(NotFound):
            await models.unload("hidden")

    run(scenario, names=("chu*", "nobody"))


def test_artifact_of_the_kind_that_is_no_classical_model_is_not_found(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text("{}")
    store.tag(str(store.put(tmp_path / "llm", "model/llama")), "production")

    async def scenario(models: Models) -> None:
        await models.refresh()
        with pytest.raises(NotFound, match="llama"):
            await models.find("llama")
        assert models.standings() == []

    run(scenario)


def test_what_was_used_least_recently_goes_first(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    for seed, name in enumerate(("one", "two", "three")):
        put(store, classifier(seed), tmp_path / name, name=name)
    size = max(len(classifier(seed).onnx) for seed in range(3))

    async def scenario(models: Models) -> None:
        one = await models.find("one")
        await models.find("two")
        await models.find("one")
        await models.find("three")
        assert models.at_hand("two", None) is None
        assert models.at_hand("one", None) is one
        assert models.loaded_bytes <= 2 * size
        await models.find("two")
        assert models.loaded == 2
        assert await answer(one) == pytest.approx(wanted(0), abs=1e-5)

    run(scenario, cache_bytes=2 * size)


def test_many_who_ask_at_once_load_a_model_once(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    put(store, classifier(0), tmp_path / "0")

    async def scenario(models: Models) -> None:
        asking = [asyncio.create_task(models.find("churn")) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert len(set(map(id, found[1:]))) == 1

    run(scenario)


def test_what_was_unloaded_answers_again_once_it_is_loaded(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    put(store, classifier(0), tmp_path / "0")

    async def scenario(models: Models) -> None:
        await models.refresh()
        await models.unload("churn")
        assert models.loaded == 0
        await models.refresh()
        assert models.standings()[0].state == "UNAVAILABLE"
        for selector in (None, "1"):
            with pytest.raises(NotFound):
                await models.find("churn", selector)
        await models.load("churn")
        assert models.standings()[0].state == "READY"
        assert (await models.find("churn")).version == "1"

    run(scenario)


def test_challenger_returns_when_its_model_is_loaded_again(
    store: ArtifactStore, tmp_path: Path, run: Any
) -> None:
    put(store, classifier(0), tmp_path / "0")
    put(store, classifier(1), tmp_path / "1", alias="challenger")

    async def scenario(models: Models) -> None:
        await models.refresh()
        await models.unload("churn")
        await models.refresh()
        assert models.loaded == 0
        live = await models.load("churn")
        await models.refresh()
        found = models.challenger(live)
        assert found is not None
        assert found.version == "2"

    run(scenario, challengers={"churn": {}})


@pytest.mark.parametrize(("room", "returns"), [(2, True), (1, False)])
def test_challenger_that_made_room_returns_where_both_fit(
    store: ArtifactStore, tmp_path: Path, run: Any, clock: Clock, *, room: int, returns: bool
) -> None:
    put(store, classifier(0), tmp_path / "0")
    put(store, classifier(1), tmp_path / "1", alias="challenger")
    put(store, classifier(2), tmp_path / "2", name="other", alias="champion")

    async def scenario(models: Models) -> None:
        await models.refresh()
        live = await models.find("churn")
        await models.find("other", "champion")
        assert (await models.find("churn")).key == live.key
        assert models.challenger(live) is None
        await models.refresh()
        assert models.challenger(live) is None, "not with every look"
        clock.now += RETRY_SECONDS
        await models.refresh()
        assert (models.challenger(live) is not None) is returns
        assert models.at_hand("churn", None) is not None

    size = max(len(classifier(seed).onnx) for seed in range(3))
    run(scenario, challengers={"churn": {}}, cache_bytes=room * size)


@pytest.mark.parametrize("change", [{"max_model_bytes": 100}, {}])
def test_file_that_is_too_large_or_damaged_is_not_loaded(
    store: ArtifactStore, tmp_path: Path, run: Any, change: dict[str, Any]
) -> None:
    made = classifier(0)
    put(store, made if change else with_file(made, made.onnx[:-200]), tmp_path / "0")

    async def scenario(models: Models) -> None:
        with pytest.raises(NotReady):
            await models.find("churn")

    run(scenario, **change)
