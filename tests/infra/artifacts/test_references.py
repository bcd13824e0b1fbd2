"""References, aliases with their guards and history, lineage and differences."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.artifacts.aliases import Guard
from infra.artifacts.publishing import Made
from infra.artifacts.store import ArtifactStore
from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs import leases
from infra.jobs.admission import Capacity, Claimant, TenantLimits, claim
from infra.jobs.attempt import Attempt, Interrupted, NoSteps
from infra.jobs.definitions import Registry, Resources
from infra.jobs.processes import this_process
from infra.jobs.queue import Jobs

Tree = Callable[..., Path]


@pytest.fixture
def three(store: ArtifactStore, tree: Tree) -> ArtifactStore:
    """A store with `model/m` in versions 1 to 3."""
    for number in (1, 2, 3):
        store.put(tree({"a": b"%d" % number}, f"source{number}"), "model/m")
    return store


def test_every_form_of_reference_finds_its_version(three: ArtifactStore) -> None:
    second = three.find("model/m@v2")
    three.tag("model/m@v2", "production")

    assert three.find("model/m@production") == second
    assert three.find(f"model/m@{second.digest}") == second
    assert three.find("model/m").version == 3


@pytest.mark.parametrize(
    ("reference", "near"),
    [
        ("model/n", "'model/m'"),
        ("modle/m", "'model/m'"),
        ("model/m@v4", "'model/m@v"),
        ("model/m@prodution", "'model/m@production'"),
    ],
)
def test_unknown_reference_suggests_the_nearest(
    three: ArtifactStore, reference: str, near: str
) -> None:
    three.tag("model/m@v2", "production")

    with pytest.raises(NotFound, match=near):
        three.find(reference)


def test_digest_of_another_name_is_not_found(three: ArtifactStore, tree: Tree) -> None:
    three.put(tree({"x": b"x"}, "x"), "model/other")

    with pytest.raises(NotFound):
        three.find(f"model/m@{three.find('model/other').digest}")


@pytest.mark.parametrize(
    "reference",
    ["m", "Model/m", "model/", "model/../m", "model/m@", "model/m@V1", "model/m@v0", "a/b/c"],
)
def test_malformed_reference_is_refused(three: ArtifactStore, reference: str) -> None:
    if reference == "model/m@":
        assert three.find(reference).version == 3
        return
    with pytest.raises((InvalidRequest, NotFound)):
        three.find(reference)


@pytest.mark.parametrize("alias", ["v1", "V", "a b", "", "x" * 65, "sha256:ab"])
def test_alias_that_could_be_taken_for_something_else_is_refused(
    local: ArtifactStore, tree: Tree, alias: str
) -> None:
    local.put(tree({"a": b"1"}), "model/m")

    with pytest.raises(InvalidRequest, match="is not an alias"):
        local.tag("model/m", alias)


def test_alias_moves_only_from_where_it_is_expected(three: ArtifactStore) -> None:
    first, second = three.find("model/m@v1").digest, three.find("model/m@v2").digest
    three.tag("model/m@v1", "production", guard=Guard(expect=None))

    with pytest.raises(Conflict, match="look again"):
        three.tag("model/m@v3", "production", guard=Guard(expect=second))
    with pytest.raises(Conflict):
        three.tag("model/m@v3", "production", guard=Guard(expect=None))
    three.tag("model/m@v2", "production", guard=Guard(expect=first))
    assert three.find("model/m@production").version == 2


def test_of_many_who_expect_the_same_one_moves_the_alias(three: ArtifactStore) -> None:
    first = three.find("model/m@v1").digest
    three.tag("model/m@v1", "production")
    start = threading.Barrier(6)
    outcomes: list[str] = []

    def move(version: int) -> None:
        start.wait()
        try:
            three.tag(f"model/m@v{version}", "production", guard=Guard(expect=first))
            outcomes.append("moved")
        except Conflict:
            outcomes.append("refused")

    threads = [threading.Thread(target=move, args=(2 + number % 2,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["moved", *["refused"] * 5]
    assert len(three.history("model/m", "production")) == 2


def test_attempt_with_an_old_token_cannot_move_an_alias(three: ArtifactStore) -> None:
    zombie, heir = Guard(token=7), Guard(token=12)
    three.tag("model/m@v2", "production", guard=heir)

    with pytest.raises(Conflict, match="another attempt has taken over"):
        three.tag("model/m@v1", "production", guard=zombie)
    with pytest.raises(Conflict):
        three.untag("model/m", "production", guard=zombie)
    with pytest.raises(Conflict):
        three.roll_back("model/m", "production", guard=zombie)
    assert three.find("model/m@production").version == 2


def test_token_counts_also_where_the_alias_stays_where_it_is(three: ArtifactStore) -> None:
    three.tag("model/m@v2", "production", guard=Guard(token=7))
    three.tag("model/m@v2", "production", guard=Guard(token=12))

    with pytest.raises(Conflict):
        three.tag("model/m@v1", "production", guard=Guard(token=8))
    assert len(three.history("model/m", "production")) == 1


def test_zombie_of_a_real_job_cannot_move_an_alias_that_its_heir_has_not_touched(
    three: ArtifactStore,
) -> None:
    jobs = Jobs(three.database, Registry())
    jobs.enqueue("train")
    zombie, heir = (_next_attempt(jobs, worker) for worker in ("first", "second"))
    assert zombie.fence < heir.fence

    with pytest.raises(Interrupted, match="superseded"):
        three.tag("model/m@v1", "production", guard=_fenced(zombie))
    with pytest.raises(NotFound):
        three.find("model/m@production")
    three.tag("model/m@v2", "production", guard=_fenced(heir))
    with pytest.raises(Conflict):  # a program outside, which knows no more than its fence
        three.tag("model/m@v1", "production", guard=Guard(token=zombie.fence))
    assert three.find("model/m@production").version == 2
    assert [move.token for move in three.history("model/m", "production")] == [heir.fence]


def _next_attempt(jobs: Jobs, worker: str) -> Attempt:
    """The attempt of a worker that joins now and finds all others dead."""
    capacity = Capacity(Resources(cpu=1), slots=1)
    claimant = Claimant(worker, ("train",), capacity, TenantLimits())
    with jobs.database.write() as connection:
        dead = leases.read_beats(connection)
        leases.register(connection, claimant, process=this_process(), now=jobs.now())
        leases.reap(connection, dead, registry=jobs.registry, now=jobs.now())
    [taken] = claim(jobs.database, claimant, now=jobs.now())
    return Attempt(jobs.database, taken, steps=NoSteps(), now=jobs.now)


def _fenced(attempt: Attempt) -> Guard:
    return Guard(token=attempt.fence, holds=attempt.guard)


def test_rollback_is_one_move_and_goes_further_back_each_time(three: ArtifactStore) -> None:
    for version in (1, 2, 3):
        three.tag(f"model/m@v{version}", "production", actor="ci")

    moves = [three.roll_back("model/m", "production", actor="ops") for _ in range(2)]

    assert [move.action for move in moves] == ["rollback", "rollback"]
    assert three.find("model/m@production").version == 1
    with pytest.raises(Conflict, match="no earlier target"):
        three.roll_back("model/m", "production")
    assert [move.actor for move in three.history("model/m", "production")] == [
        "ops",
        "ops",
        "ci",
        "ci",
        "ci",
    ]


def test_removed_alias_is_gone_and_its_history_stays(three: ArtifactStore) -> None:
    three.tag("model/m@v1", "canary")
    three.untag("model/m", "canary")

    with pytest.raises(NotFound):
        three.find("model/m@canary")
    assert [move.action for move in three.history("model/m", "canary")] == ["remove", "move"]


def test_versions_name_the_aliases_that_point_at_them(three: ArtifactStore) -> None:
    three.tag("model/m@v2", "production")
    three.tag("model/m@v2", "canary")

    found = {row.reference.version: row.aliases for row in three.versions("model/m")}
    assert found == {3: (), 2: ("canary", "production"), 1: ()}


def test_writers_of_one_name_get_different_numbers(store: ArtifactStore, tree: Tree) -> None:
    sources = [tree({"a": b"%d" % number}, f"source{number}") for number in range(8)]
    threads = [threading.Thread(target=store.put, args=(source, "dataset/d")) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [row.reference.version for row in store.versions("dataset/d")] == list(range(8, 0, -1))
    assert len({row.reference.digest for row in store.versions("dataset/d")}) == 8


def test_lineage_goes_up_and_down_to_a_depth(store: ArtifactStore, tree: Tree) -> None:
    store.put(tree({"rows": b"1"}, "raw"), "dataset/raw")
    store.put(tree({"rows": b"2"}, "clean"), "dataset/clean", Made(parents=[("of", "dataset/raw")]))
    parents = [("train", "dataset/clean"), ("eval", "dataset/raw")]
    store.put(tree({"w": b"3"}, "model"), "model/m", Made(parents=parents))

    above = store.lineage("model/m")
    below = store.lineage("dataset/raw", up=False)

    assert {(edge.role) for edge in above.edges} == {"of", "train", "eval"}
    assert sorted(name for names in above.names.values() for name in names) == [
        "dataset/clean@v1",
        "dataset/raw@v1",
        "model/m@v1",
    ]
    assert set(below.edges) == set(above.edges)
    assert {edge.role for edge in store.lineage("model/m", depth=1).edges} == {"train", "eval"}


def test_unknown_parent_stores_nothing(local: ArtifactStore, tree: Tree) -> None:
    with pytest.raises(NotFound):
        local.put(tree({"a": b"1"}), "model/m", Made(parents=[("train", "dataset/nope@v1")]))
    assert local.names() == []


def test_difference_names_added_removed_and_changed(local: ArtifactStore, tree: Tree) -> None:
    local.put(tree({"same": b"s", "gone": b"g", "edit": b"1"}, "one"), "dataset/d")
    local.put(
        tree({"same": b"s", "new": b"n", "edit": b"2"}, "two"), "dataset/d", Made({"rows": 3})
    )

    found = local.diff("dataset/d@v1", "dataset/d@v2")

    assert (found.added, found.removed, found.changed) == (("new",), ("gone",), ("edit",))
    assert (found.unchanged, found.metadata) == (1, ("rows",))


def test_alias_keeps_an_expired_version_which_cannot_expire_twice(three: ArtifactStore) -> None:
    three.tag("model/m@v1", "production")
    three.expire("model/m@production")

    assert three.find("model/m@production").version is None
    with pytest.raises(NotFound, match="living version"):
        three.expire("model/m@production")


def test_expired_version_is_not_found_and_its_number_is_not_used_again(
    three: ArtifactStore, tree: Tree
) -> None:
    three.expire("model/m@v3")

    with pytest.raises(NotFound):
        three.find("model/m@v3")
    assert three.find("model/m").version == 2
    assert three.put(tree({"a": b"4"}, "source4"), "model/m").version == 4
