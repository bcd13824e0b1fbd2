"""Adapters are where routes lead, under names that never change their meaning."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts.publishing import Made
from infra.artifacts.store import ArtifactStore, open_store
from infra.errors import EngineFailed, InvalidRequest, NotFound, NotReady
from migrated import open_migrated
from service.gateway.adapter_files import Base, check, fetch
from service.gateway.adapter_hosts import Models, Unreachable
from service.gateway.adapters import Adapters, Pace, Place
from tiny_llm import write_adapter, write_llm

pytestmark = pytest.mark.anyio
REFERENCE = "adapter/support@production"


class Shelf:
    """A replica that keeps names and folders, and does what tests say with them."""

    def __init__(self, address: str, *, base: str) -> None:
        self.address = address
        self.has: dict[str, Path] = {}
        self.journal: list[str] = []
        self.is_up = True
        self.fails: set[str] = set()
        self._base = base

    async def models(self) -> Models:
        if not self.is_up:
            raise Unreachable(self.address)
        return Models(frozenset({self._base, "tiny"}), frozenset(self.has))

    async def load(self, name: str, folder: Path) -> None:
        if "load" in self.fails:
            raise EngineFailed(f"{self.address} has no room")
        self.journal.append(f"load {name}")
        self.has[name] = folder

    async def unload(self, name: str) -> None:
        self.journal.append(f"unload {name}")
        self.has.pop(name, None)

    async def try_out(self, name: str) -> None:
        if "try" in self.fails:
            raise EngineFailed(f"{self.address} answers nonsense")
        self.journal.append(f"try {name}")

    async def close(self) -> None:
        pass

    def restart(self) -> None:
        self.has.clear()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(tmp_path / "store", open_migrated(tmp_path / "a.db"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_llm(tmp_path / "base")


@pytest.fixture
def publish(store: ArtifactStore, base: Path, tmp_path: Path) -> Callable[..., str]:
    def publish_(sign: str, *, alias: str | None = "production", **changes: Any) -> str:
        """Store an adapter and return the name that it is going to be served under."""
        folder = tmp_path / f"adapter-{len(list(tmp_path.iterdir()))}"
        write_adapter(folder, base, sign, **changes)
        found = store.put(folder, "adapter/support", Made({"says": sign}))
        if alias:
            store.tag(str(found), alias)
        return f"support@{found.digest.rpartition(':')[2][:16]}"

    return publish_


@pytest.fixture
def shelves(base: Path) -> list[Shelf]:
    return [Shelf(address, base=str(base)) for address in ("one", "two")]


@pytest.fixture
def place(shelves: list[Shelf]) -> dict[str, Place]:
    return {"tiny": Place(frozenset({REFERENCE}), shelves)}


@pytest.fixture
def adapters(store: ArtifactStore, place: dict[str, Place], tmp_path: Path) -> Adapters:
    return Adapters(store, tmp_path / "out", places=lambda: place, pace=Pace(0.02, 0.0, 600.0))


def served(adapters: Adapters) -> list[str | None]:
    return [adapters.served_name(REFERENCE, address) for address in ("one", "two")]


async def test_adapter_is_loaded_tried_and_served_at_every_replica(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf]
) -> None:
    name = publish("A")
    assert served(adapters) == [None, None]
    await adapters.refresh()
    assert served(adapters) == [name, name]
    assert [shelf.journal for shelf in shelves] == [[f"load {name}", f"try {name}"]] * 2
    await adapters.refresh()
    assert len(shelves[0].journal) == 2


async def test_alias_that_moves_takes_the_traffic_along(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf]
) -> None:
    old = publish("A")
    await adapters.refresh()
    new = publish("B")
    assert served(adapters) == [old, old]
    await adapters.refresh()
    assert served(adapters) == [new, new]
    assert [set(shelf.has) for shelf in shelves] == [{new}, {new}]
    assert shelves[0].journal.index(f"try {new}") < shelves[0].journal.index(f"unload {old}")


async def test_old_version_stays_until_its_requests_have_been_answered(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf]
) -> None:
    old = publish("A")
    await adapters.refresh()
    lease = adapters.lease(REFERENCE, "one")
    assert lease is not None
    assert lease.name == old
    new = publish("B")
    await adapters.refresh()
    assert [set(shelf.has) for shelf in shelves] == [{old, new}, {new}]
    lease.release()
    lease.release()
    await adapters.refresh()
    assert [set(shelf.has) for shelf in shelves] == [{new}, {new}]


async def test_flip_there_and_back_unloads_nothing_in_use(
    adapters: Adapters, publish: Callable[..., str], store: ArtifactStore, shelves: list[Shelf]
) -> None:
    old = publish("A")
    await adapters.refresh()
    lease = adapters.lease(REFERENCE, "one")
    publish("B")
    await adapters.refresh()
    store.roll_back("adapter/support", "production")
    await adapters.refresh()
    assert lease is not None
    lease.release()
    await adapters.refresh()
    assert served(adapters) == [old, old]
    assert [set(shelf.has) for shelf in shelves] == [{old}, {old}]


@pytest.mark.parametrize("failure", ["load", "try"])
async def test_version_that_one_replica_refuses_goes_live_nowhere(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf], failure: str
) -> None:
    old = publish("A")
    await adapters.refresh()
    shelves[1].fails.add(failure)
    new = publish("B")
    await adapters.refresh()
    assert served(adapters) == [old, old]
    assert isinstance(adapters.problem(REFERENCE, "tiny"), EngineFailed)
    shelves[1].fails.clear()
    await adapters.refresh()
    assert served(adapters) == [new, new]
    assert isinstance(adapters.problem(REFERENCE, "tiny"), NotReady)  # none is known


async def test_replica_that_started_anew_gets_its_adapters_back(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf]
) -> None:
    name = publish("A")
    await adapters.refresh()
    shelves[0].restart()
    await adapters.refresh()
    assert served(adapters) == [name, name]
    assert set(shelves[0].has) == {name}


async def test_replica_that_is_away_is_not_served_and_does_not_hold_up_a_flip(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf]
) -> None:
    publish("A")
    await adapters.refresh()
    shelves[0].is_up = False
    shelves[0].restart()
    new = publish("B")
    await adapters.refresh()
    assert served(adapters) == [None, new]
    shelves[0].is_up = True
    await adapters.refresh()
    assert served(adapters) == [new, new]
    assert set(shelves[0].has) == {new}


async def test_replica_that_knows_a_name_no_more_is_brought_back_at_once(
    store: ArtifactStore, publish: Callable[..., str], shelves: list[Shelf],
    place: dict[str, Place], tmp_path: Path,
) -> None:  # fmt: skip
    adapters = Adapters(store, tmp_path / "out", places=lambda: place, pace=Pace(3600.0))
    name = publish("A")
    adapters.start()
    async with asyncio.timeout(10):
        while served(adapters) != [name, name]:
            await asyncio.sleep(0.01)
        shelves[0].restart()
        adapters.lost("one")
        assert served(adapters) == [None, name]
        while served(adapters) != [name, name]:
            await asyncio.sleep(0.01)
    await adapters.close()


async def test_fault_that_nobody_foresaw_ends_neither_the_watch_nor_the_shutdown(
    store: ArtifactStore, publish: Callable[..., str], place: dict[str, Place], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    name, looks = publish("A"), 0

    def places() -> dict[str, Place]:
        nonlocal looks
        looks += 1
        if looks <= 3 or looks > 6:
            raise LookupError("a state file of another version")
        return place

    adapters = Adapters(store, tmp_path / "out", places=places, pace=Pace(0.005))
    adapters.start()
    async with asyncio.timeout(10):
        while looks < 8:
            await asyncio.sleep(0.005)
    assert served(adapters) == [name, name]
    await adapters.close()
    assert len([each for each in caplog.messages if "another version" in each]) == 2


async def test_upstream_that_is_slow_or_broken_holds_up_no_other(
    store: ArtifactStore, publish: Callable[..., str], base: Path, tmp_path: Path
) -> None:
    name, may_answer = publish("A"), asyncio.Event()

    class Slow(Shelf):
        async def models(self) -> Models:
            await may_answer.wait()
            return await super().models()

    class Broken(Shelf):
        async def models(self) -> Models:
            raise LookupError("a fault of ours")

    shelves = [kind(kind.__name__, base=str(base)) for kind in (Slow, Broken, Shelf)]
    places = {each.address: Place(frozenset({REFERENCE}), [each]) for each in shelves}
    adapters = Adapters(store, tmp_path / "out", places=lambda: places, pace=Pace())
    looking = asyncio.create_task(adapters.refresh())
    async with asyncio.timeout(10):
        while adapters.served_name(REFERENCE, "Shelf") != name:
            await asyncio.sleep(0.005)
    assert adapters.served_name(REFERENCE, "Slow") is None
    may_answer.set()
    with pytest.raises(LookupError, match="a fault of ours"):
        await looking
    assert adapters.served_name(REFERENCE, "Slow") == name


async def test_replica_of_two_upstreams_loads_an_adapter_once(
    store: ArtifactStore, publish: Callable[..., str], shelves: list[Shelf], tmp_path: Path
) -> None:
    name = publish("A")
    places = {each: Place(frozenset({REFERENCE}), shelves) for each in ("first", "second")}
    adapters = Adapters(store, tmp_path / "out", places=lambda: places, pace=Pace())
    await adapters.refresh()
    assert [shelf.journal for shelf in shelves] == [[f"load {name}", f"try {name}"]] * 2


async def test_route_that_is_gone_lets_its_adapter_go(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf], place: dict[str, Place]
) -> None:
    publish("A")
    await adapters.refresh()
    place["tiny"] = Place(frozenset(), shelves)
    await adapters.refresh()
    assert served(adapters) == [None, None]
    assert [shelf.has for shelf in shelves] == [{}, {}]


async def test_what_a_process_before_left_loaded_goes_and_what_others_loaded_stays(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf]
) -> None:
    name = publish("A")
    shelves[0].has = {"support@0123456789abcdef": Path(), "theirs": Path()}
    await adapters.refresh()
    assert set(shelves[0].has) == {name, "theirs"}


async def test_files_of_a_version_go_once_no_replica_has_it(
    store: ArtifactStore,
    place: dict[str, Place],
    publish: Callable[..., str],
    shelves: list[Shelf],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "out"
    pace = Pace(0.02, 0.0, 600.0, keep_seconds=0.0)
    adapters = Adapters(store, folder, places=lambda: place, pace=pace)
    old = publish("A")
    await adapters.refresh()
    lease = adapters.lease(REFERENCE, "one")
    assert lease is not None
    new = publish("B")
    (folder / "notes").mkdir()
    await adapters.refresh()
    await adapters.refresh()
    assert {each.name for each in folder.iterdir()} == {old, new, "notes"}
    lease.release()
    shelves[1].is_up = False  # who knows what it has
    await adapters.refresh()
    await adapters.refresh()
    assert {each.name for each in folder.iterdir()} == {old, new, "notes"}
    shelves[1].is_up = True
    await adapters.refresh()
    await adapters.refresh()
    assert {each.name for each in folder.iterdir()} == {new, "notes"}
    store.roll_back("adapter/support", "production")
    await adapters.refresh()
    assert served(adapters) == [old, old]


async def test_files_that_were_just_laid_out_stay(
    adapters: Adapters, publish: Callable[..., str], tmp_path: Path
) -> None:
    publish("A")
    await adapters.refresh()
    other = tmp_path / "out" / "support@0123456789abcdef"
    other.mkdir()
    await adapters.refresh()
    assert other.is_dir()


async def test_unknown_adapter_is_not_found(adapters: Adapters) -> None:
    assert isinstance(adapters.problem(REFERENCE, "tiny"), NotReady)
    await adapters.refresh()
    assert isinstance(adapters.problem(REFERENCE, "tiny"), NotFound)


async def test_adapter_of_another_base_is_refused(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf]
) -> None:
    publish("A", base_name="some/other-model")
    await adapters.refresh()
    assert served(adapters) == [None, None]
    assert [shelf.journal for shelf in shelves] == [[], []]
    problem = adapters.problem(REFERENCE, "tiny")
    assert isinstance(problem, InvalidRequest)
    assert "some/other-model" in problem.message


def test_base_is_known_by_digest_before_its_name(
    store: ArtifactStore, base: Path, tmp_path: Path
) -> None:
    model = store.put(base, "model/tiny")
    write_adapter(tmp_path / "a", base, "A", base_name="/where/it/was/trained")
    store.put(tmp_path / "a", "adapter/a", Made(parents=[("base", str(model))]))
    adapter = fetch(store, "adapter/a", tmp_path / "out")
    check(adapter, Base(frozenset({"another name"}), digest=model.digest))
    with pytest.raises(InvalidRequest, match="was made from"):
        check(adapter, Base(frozenset({"/where/it/was/trained"}), digest="sha256:" + "0" * 64))
    check(adapter, Base(frozenset({"/where/it/was/trained"})))


def test_rank_above_the_engines_is_refused(
    store: ArtifactStore, publish: Callable[..., str], base: Path, tmp_path: Path
) -> None:
    publish("A", rank=32)
    adapter = fetch(store, "adapter/support", tmp_path / "out")
    with pytest.raises(InvalidRequest, match="rank 32"):
        check(adapter, Base(frozenset({str(base)}), max_rank=16))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("adapter_model.bin", b"weights", "safetensors and JSON alone"),
        ("modeling.py", b"print()", "safetensors and JSON alone"),
        ("adapter_config.json", b'{"peft_type": "IA3"}', "no LoRA adapter"),
        ("adapter_config.json", b"[]", "no LoRA adapter"),
        ("adapter_config.json", b"{", "no readable"),
        ("adapter_config.json", b'{"peft_type": "LORA", "r": true}', "whole numbers"),
        ("adapter_config.json", b'{"peft_type": "LORA", "r": 4, "use_dora": true}', "use_dora"),
        ("adapter_config.json", b'{"peft_type": "LORA", "r": 4, "bias": "all"}', "biases"),
    ],
)
def test_folder_that_is_not_a_plain_lora_adapter_is_refused(
    store: ArtifactStore, base: Path, tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    folder = write_adapter(tmp_path / "a", base, "A")
    (folder / name).write_bytes(content)
    store.put(folder, "adapter/a")
    with pytest.raises(InvalidRequest, match=complaint):
        fetch(store, "adapter/a", tmp_path / "out")


def test_adapter_without_safetensors_is_refused(
    store: ArtifactStore, base: Path, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "a", base, "A")
    (folder / "adapter_model.safetensors").unlink()
    store.put(folder, "adapter/a")
    with pytest.raises(InvalidRequest, match=r"adapter_model\.safetensors"):
        fetch(store, "adapter/a", tmp_path / "out")


def test_artifact_of_another_kind_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").write_text(json.dumps([1]))
    store.put(tmp_path / "data", "dataset/a")
    with pytest.raises(InvalidRequest, match="no adapter"):
        fetch(store, "dataset/a", tmp_path / "out")


async def test_replicas_let_go_side_by_side(
    store: ArtifactStore, publish: Callable[..., str], base: Path, tmp_path: Path
) -> None:
    may_end, waiting = asyncio.Event(), set()

    class Slow(Shelf):
        async def unload(self, name: str) -> None:
            waiting.add(self.address)
            await may_end.wait()
            await super().unload(name)

    shelves = [Slow(address, base=str(base)) for address in ("one", "two")]
    place = {"tiny": Place(frozenset({REFERENCE}), shelves)}
    adapters = Adapters(store, tmp_path / "out", places=lambda: place, pace=Pace(0.02, 0.0, 600.0))
    publish("A")
    await adapters.refresh()
    place["tiny"] = Place(frozenset(), shelves)
    looking = asyncio.create_task(adapters.refresh())
    async with asyncio.timeout(10):
        while waiting != {"one", "two"}:
            await asyncio.sleep(0.005)
    may_end.set()
    await looking
    assert [shelf.has for shelf in shelves] == [{}, {}]


async def test_nothing_is_remembered_of_replicas_and_routes_that_are_gone(
    adapters: Adapters, publish: Callable[..., str], shelves: list[Shelf], place: dict[str, Place]
) -> None:
    publish("A")
    shelves[1].fails.add("load")
    await adapters.refresh()
    shelves[0].is_up = False
    await adapters.refresh()
    place.clear()
    await adapters.refresh()
    await adapters.refresh()
    remembered = {
        name: value
        for name, value in vars(adapters).items()
        if isinstance(value, dict | set) and name != "_fetched" and value
    }
    assert remembered == {}
