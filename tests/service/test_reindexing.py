"""Re-indexing as a job: what is refused before anything is built, and what a restart repeats."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs import leases
from infra.jobs.admission import Capacity, Claimant, TenantLimits, claim
from infra.jobs.attempt import Attempt, Interrupted, NoSteps, Reason
from infra.jobs.definitions import Resources
from infra.jobs.processes import this_process
from infra.settings import Settings
from retrieval.sources import Spec
from service.wiring import Components
from service.work import building, monitors, syncing

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "change-the-embedder.md"
SUITE = {
    "name": "gates",
    "dataset": {"file": "cases.jsonl"},
    "target": {"kind": "collection", "collection": "gates"},
    "metrics": [{"metric": "retrieval_recall", "with": {"k": 1}}],
    "gates": [{"metric": "retrieval_recall", "margin": 0.2}],
}
WORDS = ("anvil", "barrel", "candle", "dragon", "eagle", "falcon", "garnet", "hammer")
STRICT = [{"metric": "retrieval_recall", "floor": 0.99}]
"""More than so few cases can show."""
FLOOR = 0.865
"""That 32 cases, all of them right, surely reach at an alpha of 0.05, and not at half of that."""
Reindex = Callable[..., dict[str, Any]]


@pytest.fixture
def parts(fast_settings: Callable[..., Settings], open_components: Any, tmp_path: Path) -> Any:
    """A collection that a folder has more documents for."""
    parts: Components = open_components(fast_settings())
    whole = parts.collections.create("gates", parts.recipe())
    (tmp_path / "gates").mkdir()
    spec = Spec("folder", str(tmp_path / "gates"))
    identity = syncing.connect(parts, syncing.Wanted(spec, whole)).identity
    parts.sources.add("gates", spec, whole, identity=identity)
    for place, word in enumerate(WORDS):
        text = f"The {word} gate opens at {place}. It is painted by hand every other year.\n"
        (tmp_path / "gates" / f"{word}.md").write_text(text)
    cases = [
        {
            "id": f"{word}-{place}",
            "question": f"{form} does the gate open that is called {word}?",
            "relevant": f"{word}.md",
        }
        for word in WORDS
        for place, form in enumerate(("When", "At what time", "How early", "At which hour"))
    ]
    (tmp_path / "cases.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in cases))
    return parts


@pytest.fixture
def attempt(parts: Components) -> Attempt:
    parts.jobs.start("reindex", {"collection": "gates"})
    capacity = Capacity(Resources(cpu=1), slots=1)
    names, forgetful = tuple(parts.jobs.registry.names), parts.jobs.registry.forgetful
    claimant = Claimant("worker", names, capacity, TenantLimits(), forgetful)
    with parts.database.write() as connection:
        leases.register(connection, claimant, process=this_process(), now=parts.jobs.now())
    [taken] = claim(parts.database, claimant, now=parts.jobs.now())
    return Attempt(parts.database, taken, steps=NoSteps(), now=parts.jobs.now)


@pytest.fixture
def reindex(parts: Components, attempt: Attempt) -> Reindex:
    """Run the job, as one attempt after the other of the same job."""

    def run(**arguments: Any) -> dict[str, Any]:
        function = parts.jobs.registry.get("reindex").function
        found: dict[str, Any] = function(attempt, **{"collection": "gates", **arguments})
        return found

    return run


def suite(folder: Path, **changes: Any) -> str:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({**SUITE, **changes}))
    return str(path)


def builds(parts: Components) -> list[str]:
    return [each.state for each in parts.builds.list(parts.collections.get("gates"))]


def test_a_collection_without_candidates_is_brought_in_step_alone(
    parts: Components, reindex: Reindex
) -> None:
    found = reindex()
    assert found["decision"] == "in_step"
    assert [(each["source"], each["added"]) for each in found["synced"]] == [("gates", len(WORDS))]
    assert builds(parts) == ["live"]


def test_a_candidate_that_the_suite_refuses_is_removed_and_not_built_again_by_a_restart(
    parts: Components, reindex: Reindex, tmp_path: Path
) -> None:
    asked = {"candidates": [{"chunk_tokens": 40}], "suite": suite(tmp_path, gates=STRICT)}
    found = reindex(**asked)
    assert found["decision"] == "refused"
    (tried,) = found["tried"]
    assert tried["verdict"]["reason"].endswith("of the live build: underpowered")
    assert not tried["verdict"]["passed"]
    assert builds(parts) == ["live", "reclaimed"]
    again = reindex(**asked)
    assert again["tried"] == found["tried"]
    assert builds(parts) == ["live", "reclaimed"]


def test_the_first_candidate_that_passes_answers_and_no_further_one_is_built(
    parts: Components, reindex: Reindex, tmp_path: Path
) -> None:
    fine = [{"chunk_tokens": 40}, {"chunk_tokens": 50}]
    same = {"chunk_tokens": 60}
    asked = {"candidates": [same, *fine], "suite": suite(tmp_path)}
    found = reindex(**asked)
    assert found["decision"] == "swapped"
    assert len(found["tried"]) == 1
    assert builds(parts) == ["standby", "live"]
    assert parts.collections.get("gates").recipe.chunk_tokens == 40
    assert reindex(**asked)["tried"] == found["tried"]
    assert builds(parts) == ["standby", "live"]


def test_candidates_share_the_error_of_a_gate(
    parts: Components, reindex: Reindex, tmp_path: Path
) -> None:
    fine = {"chunk_tokens": 40}
    just_enough = [{"metric": "retrieval_recall", "floor": FLOOR}]
    asked = {"suite": suite(tmp_path, gates=just_enough)}
    found = reindex(candidates=[fine, {"chunk_tokens": 50}], **asked)
    assert [each["decision"] for each in found["tried"]] == ["refused"] * 2
    assert builds(parts) == ["live", "reclaimed", "reclaimed"]
    gates = [{**just_enough[0], "alpha": 0.1}]
    asked = {"suite": suite(tmp_path, gates=gates)}
    found = reindex(candidates=[{"chunk_tokens": 45}, {"chunk_tokens": 55}], **asked)
    assert found["decision"] == "swapped"


def test_a_margin_decides_nothing_where_neither_build_finds_anything(
    parts: Components, reindex: Reindex, tmp_path: Path
) -> None:
    cases = (tmp_path / "cases.jsonl").read_text()
    (tmp_path / "cases.jsonl").write_text(cases.replace(".md", ".rst"))
    found = reindex(candidates=[{"chunk_tokens": 40}], suite=suite(tmp_path))
    assert found["decision"] == "refused"
    assert (
        "retrieval_recall cannot be worse in either build"
        in (found["tried"][0]["verdict"]["reason"])
    )


def test_what_could_never_decide_is_refused_before_anything_is_done(
    parts: Components, reindex: Reindex, tmp_path: Path
) -> None:
    parts.collections.create("fences", parts.recipe())
    elsewhere = {"kind": "collection", "collection": "fences"}
    for changes, said in (
        ({"gates": []}, "no gate or check that blocks"),
        ({"target": elsewhere}, "asks 'fences', and 'gates' is re-indexed"),
        ({"target": {"kind": "constant", "text": "x"}}, "asks no collection, but 'constant'"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            reindex(suite=suite(tmp_path, **changes))
    with pytest.raises(InvalidRequest, match="name all of it"):
        reindex(suite="suite.yaml")
    with pytest.raises(InvalidRequest, match="candidates: .*chunk_token: Extra inputs"):
        reindex(candidates=[{"chunk_token": 40}])
    with pytest.raises(NotFound):
        reindex(evidence="evidence/gates@v1")
    assert parts.builds.history(parts.collections.get("gates")) == []


def test_a_job_that_names_its_collection_waits_for_those_that_have_its_id(
    parts: Components,
) -> None:
    whole = parts.collections.get("gates")
    _, built = building.rebuild(parts, whole, parts.recipe(chunk_tokens=40))
    named, known, unknown = (
        parts.jobs.start("reindex", {"collection": each})
        for each in ("gates", whole.public_id, "fences")
    )
    assert named.lane == known.lane == built.lane
    assert unknown.lane not in {None, built.lane}
    synced = syncing.start(parts, parts.sources.get("gates"))
    by_name = {"collection": "gates", "source": "gates"}
    assert parts.jobs.start("sync", by_name).lane == synced.lane
    folders = parts.jobs.start("ingest_folders", {"collection": "gates", "paths": []})
    assert folders.lane == synced.lane


def test_a_build_of_somebody_else_is_neither_taken_over_nor_removed(
    parts: Components, reindex: Reindex
) -> None:
    whole = parts.collections.get("gates")
    parts.builds.start(whole, parts.recipe(chunk_tokens=40))
    with pytest.raises(Conflict, match="under way for somebody else"):
        reindex(candidates=[{"chunk_tokens": 40}])
    assert builds(parts) == ["live", "building"]


def test_what_a_job_that_has_ended_left_is_removed_and_in_nobodys_way(
    parts: Components, reindex: Reindex
) -> None:
    whole = parts.collections.get("gates")
    other = parts.jobs.start("reindex", {"collection": "gates"})
    parts.builds.start(whole, parts.recipe(chunk_tokens=40), cause={"job": other.id})
    wanted = {"candidates": [{"chunk_tokens": 50}]}
    with pytest.raises(Conflict, match="under way with another recipe"):
        reindex(**wanted)
    assert builds(parts) == ["live", "building"], "it may go on"
    parts.jobs.cancel(other.id)
    assert reindex(**wanted)["decision"] == "swapped"
    assert builds(parts) == ["standby", "reclaimed", "live"]


@pytest.mark.parametrize(
    ("reason", "state"), [("cancelled", "reclaimed"), ("stopping", "building")]
)
def test_a_job_that_is_cancelled_leaves_no_build_and_one_that_goes_on_elsewhere_does(
    parts: Components, attempt: Attempt, reindex: Reindex, reason: Reason, state: str
) -> None:
    reindex()
    syncing.forget(parts, "gates", documents=False)
    attempt.interrupt(reason)
    with pytest.raises(Interrupted):
        reindex(candidates=[{"chunk_tokens": 40}])
    assert builds(parts) == ["live", state]


def test_a_job_that_fails_for_good_leaves_no_build(
    parts: Components, reindex: Reindex, tmp_path: Path
) -> None:
    asked = {"candidates": [{"chunk_tokens": 40}], "suite": suite(tmp_path)}
    (tmp_path / "cases.jsonl").write_text("no case\n")
    with pytest.raises(InvalidRequest, match=r"cases\.jsonl"):
        reindex(**asked)
    assert builds(parts) == ["live", "reclaimed"]


def test_the_settings_of_the_documentation_would_start_the_job(
    fast_settings: Callable[..., Settings], open_components: Any
) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## The loop, closed")[2]
    words = re.findall(r"```text\n(.*?)```", section, re.DOTALL)[0]
    parts = open_components(fast_settings(**tomllib.loads(words)))
    monitor, _ = monitors.opened(parts, "handbook")
    assert monitor.trigger is not None
    assert "question_out_of_domain" in monitor.features
