"""Learning from preferences: rows that are checked, a margin that grows, an adapter that comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.settings import load_settings
from service.models import tuning
from service.wiring import Components
from trained import only_third_parties_warn, write_preferences
from training import adapted_model, planning, resolving, smoke
from training.bench import ROWS, Bench
from training.finetune import Outcome, finetune
from training.lock import Lock
from training.measurements import Measurements
from training.resolving import Resolved
from training.spec import FineTuning, read
from training.tokenized import Kept

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
METHODS = ["dpo", "kto", "reward"]
MARGIN = {"dpo": "eval_rewards/margins", "kto": "eval_rewards/margins", "reward": "eval_margin"}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Components]:
    components = Components(load_settings(data_folder=tmp_path / "data"))
    yield components
    components.close()


def run(parts: Components, spec: Path, folder: Path, **changes: Any) -> Outcome:
    around = tuning.around(parts, spec.parent, note=lambda _: None)
    return finetune(read(spec), folder, replace(around, **{"smokes": False, **changes}))


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_preferences_are_learned_verified_registered_and_tracked(
    method: str, parts: Components, tmp_path: Path
) -> None:
    changes = {"data.eval": {"rows": "eval.jsonl"}, "register": {"name": "zs"}}
    spec = write_preferences(tmp_path, method, changes)
    notes: list[str] = []
    outcome = run(parts, spec, tmp_path / "run", smokes=True, note=notes.append)
    smokes = [note for note in notes if note.startswith("smoke")]
    assert len(smokes) == 6
    assert all(": ok" in note for note in smokes), smokes
    start = 0.5 if method == "kto" else 0.6931
    assert outcome.eval_loss_before == pytest.approx(start, abs=1e-3)
    assert outcome.eval_loss_after is not None
    assert outcome.eval_loss_after < 0.5 * start
    assert outcome.metrics[MARGIN[method]] > 1
    accuracy = {"dpo": "eval_rewards/accuracies", "reward": "eval_accuracy"}.get(method)
    assert accuracy is None or outcome.metrics[accuracy] == 1
    assert outcome.adapter == "adapter/zs@v1"
    names = [each.path for each in parts.artifacts.resolve(outcome.adapter).entries]
    assert not [name for name in names if name.startswith("ref/")]

    assert outcome.run is not None
    tracked = {each.name for each in parts.runs.series(outcome.run)}
    assert MARGIN[method].replace("eval_", "eval/") in tracked
    assert MARGIN[method].replace("eval_", "train/") in tracked
    marks = Measurements(tmp_path / "run" / "measurements.jsonl").read()
    assert marks[0].metrics["eval_loss"] == outcome.eval_loss_before
    assert marks[-1].metrics == outcome.metrics


def prepared(parts: Components, path: Path) -> tuple[FineTuning, Resolved, Lock]:
    spec, places = read(path), tuning.places(parts, path.parent)
    planned = planning.plan(spec, places)
    planned.require_sound()
    return spec, resolving.resolve(spec, places, planned.lock), planned.lock


def test_both_sides_of_a_pair_are_trained_and_no_word_of_the_question(
    parts: Components, tmp_path: Path
) -> None:
    _, found, lock = prepared(parts, write_preferences(tmp_path, "dpo"))
    rows = found.train
    assert (rows.each, rows.rows, len(rows.ids)) == (2, 32, 64)
    learned = [
        found.tokenizer.decode([label for label in labels if label != -100])
        for labels in rows.labels
    ]
    assert learned == ["ZZZ<|end|>", "QQ<|end|>"] * 32
    assert rows.ids[0][: rows.labels[0].count(-100)] == rows.ids[1][: rows.labels[1].count(-100)]
    assert lock.lengths["data.train"]["tokens"] == sum(map(len, rows.ids))
    assert lock.lengths["data.train"]["supervised"] == sum(
        label != -100 for labels in rows.labels for label in labels
    )


def test_rows_that_are_drawn_stay_whole(parts: Components, tmp_path: Path) -> None:
    _, found, _ = prepared(parts, write_preferences(tmp_path, "kto"))
    drawn = found.train.shuffled(3)
    marks = {tuple(ids): mark for ids, mark in zip(found.train.ids, found.train.marks, strict=True)}
    assert sorted(map(tuple, drawn.ids)) == sorted(marks)
    assert drawn.ids != found.train.ids
    assert all(marks[tuple(ids)] == mark for ids, mark in zip(drawn.ids, drawn.marks, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_a_plan_kept_are_those_that_are_read_again(
    method: str, parts: Components, tmp_path: Path
) -> None:
    spec, found, _ = prepared(parts, write_preferences(tmp_path, method))
    kept = Kept(spec.data)
    planning.plan(spec, tuning.places(parts, tmp_path), reading=planning.Reading(keep=kept))
    assert kept.rows == {"data.train": found.train}
    assert not any(each.texts for row in kept._read["data.train"].rows for each in row)


def test_rows_made_longer_stay_pairs_and_keep_their_marks(
    parts: Components, tmp_path: Path
) -> None:
    for method in ("dpo", "kto"):
        (tmp_path / method).mkdir()
        _, found, _ = prepared(parts, write_preferences(tmp_path / method, method))
        long = smoke._stretched(found.train, 200)
        assert {len(ids) for ids in long.ids} == {200}
        assert (long.rows, long.each, long.marks) == (
            found.train.rows, found.train.each, found.train.marks,
        )  # fmt: skip


def test_kto_is_tried_with_two_rows_at_once(parts: Components, tmp_path: Path) -> None:
    spec, found, lock = prepared(parts, write_preferences(tmp_path, "kto"))
    odd = replace(lock, batches={**(lock.batches or {}), "rows_per_device": 3})
    bench = Bench(spec, found.train, found.tokenizer, odd, "cpu", lambda: None)
    assert bench.rows_at_once == 2


def test_an_adapter_whose_base_is_another_than_it_began_from_is_found(
    parts: Components, tmp_path: Path
) -> None:
    """As with PiSSA, which moves weights of the base into the adapter."""
    config = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 4, "init_lora_weights": "pissa",
        "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj"],
    }  # fmt: skip
    changes = {"method.adapter": {"type": "peft", "config": config}}
    spec, found, lock = prepared(parts, write_preferences(tmp_path, "dpo", changes))
    bench = Bench(
        spec,
        found.train.sample(ROWS, seed=1),
        found.tokenizer,
        lock,
        "cpu",
        lambda: adapted_model.attach(
            adapted_model.load_base(spec.base, found.base.folder, device="cpu"),
            spec.method,
            seed=spec.seed,
        ),
    )
    result = smoke.initial_loss(bench)
    assert not result.passed, result.said


@pytest.mark.parametrize("method", ["dpo"])
def test_gone_on_with_preferences_end_where_they_would_have_without_a_break(
    method: str, parts: Components, tmp_path: Path
) -> None:
    import shutil

    changes = {"schedule.steps": 4, "schedule.saving": {"every_steps": 2}}
    spec = write_preferences(tmp_path, method, changes)
    whole = run(parts, spec, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-4")
    (tmp_path / "run" / "outcome.json").unlink()
    steps: list[int] = []
    again = run(parts, spec, tmp_path / "run", tell=lambda told: steps.append(told.step))
    assert steps == [3, 4]
    assert again.last_loss == pytest.approx(whole.last_loss, abs=1e-6)
    lines = (tmp_path / "run" / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 3, 4]
