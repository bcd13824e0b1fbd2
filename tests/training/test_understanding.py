"""What is left of specifications with wrong keys, so that the rest can be looked at."""

from __future__ import annotations

from typing import Any

import pytest

from training import spec
from training.understanding import understood

SOUND: dict[str, Any] = {
    "name": "support",
    "base": {"model": "models/tiny"},
    "data": {"train": {"rows": "train.jsonl"}},
    "schedule": {"rows_per_step": 8, "epochs": 1},
}


def left_of(**changes: Any) -> tuple[spec.FineTuning | None, list[str]]:
    found, problems = understood({**SOUND, **changes}, source="it")
    return found, [each.where for each in problems]


def test_a_sound_specification_is_itself() -> None:
    assert left_of() == (spec.parse(SOUND), [])


@pytest.mark.parametrize(
    ("changes", "wheres"),
    [
        ({"colour": "red"}, ["colour"]),
        ({"seed": "x", "method": {"adapter": {"type": "lora", "r": 0}}},
         ["seed", "method.adapter.r"]),
        ({"evaluate": {"suites": [{}, {"suite": 3}]}},
         ["evaluate.suites.0.suite", "evaluate.suites.0.metric", "evaluate.suites.1.suite",
          "evaluate.suites.1.metric"]),
        ({"register": {"alias": 3, "hue": 1}}, ["register.name", "register.alias", "register.hue"]),
        ({"parallelism": "all"}, ["parallelism"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_left_out_with_what_misses_it(
    changes: dict[str, Any], wheres: list[str]
) -> None:
    found, named = left_of(**changes)
    assert named == wheres
    kept = {name: value for name, value in changes.items() if name == "method"}
    expected = spec.parse({**SOUND, **({"method": {"adapter": {"type": "lora"}}} if kept else {})})
    assert found == expected


@pytest.mark.parametrize(
    ("changed", "where"), [({"schedule": {"epochs": 1}}, "schedule"), ({"name": "A b"}, "name")]
)
def test_what_says_nothing_of_rows_hides_none_of_their_problems(
    changed: dict[str, Any], where: str
) -> None:
    found, problems = understood({**SOUND, **changed}, source="it")
    assert found is not None
    assert found.data.train.rows == "train.jsonl"
    assert [each.where for each in problems] == [where]


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({**SOUND, "data": None}, "data"),
        ({**SOUND, "version": 2, "newfangled": True}, "version"),
        ({**SOUND, "serve": {}}, "the whole"),
        ("text", "the whole"),
    ],
)
def test_what_cannot_be_done_without_leaves_nothing(values: Any, where: str) -> None:
    found, problems = understood(values, source="it")
    assert found is None
    assert [each.where for each in problems] == [where]
