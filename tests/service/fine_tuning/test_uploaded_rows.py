"""Uploaded rows: OpenAI's forms become ours, and what cannot be done is refused by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.errors import InvalidRequest
from service.fine_tuning.rows import ending_of, lay_out, translated
from training.examples import sequences, shape_of

USER = {"role": "user", "content": "Hi"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Hello", "Go away"))


def lines(*rows: object) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in rows]


def test_preferences_become_pairs_that_training_reads() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    given = {
        "input": {"messages": [USER], "tools": [tool], "parallel_tool_calls": True},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
    }
    [made] = translated(lines(given), parameter="training_file")
    row = json.loads(made)
    assert row == {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], "tools": [tool]}
    better, worse = sequences(row, shape_of(row, "dpo"))
    assert (better.messages[-1], worse.messages[-1]) == (GOOD, BAD)  # type: ignore[union-attr]


def test_other_rows_stay_as_they_are_to_the_byte() -> None:
    kept = [*lines({"messages": [USER, GOOD]}), b"\n", b'{"weight": oops\n', b'["weight"]\n', b"x"]
    found = list(translated(kept, parameter="training_file"))
    assert found[:3] == kept[:3]
    assert [each.strip() for each in found[3:]] == [b'["weight"]', b"x"]


def test_a_message_that_is_not_to_be_learned_is_refused_by_its_row() -> None:
    left_out = {"messages": [USER, {**GOOD, "weight": 0}, USER, {**GOOD, "weight": 1}]}
    rows = [*lines({"messages": [USER, GOOD]}), b"\n", *lines(left_out)]
    with pytest.raises(InvalidRequest, match=r"training_file row 2: a message of weight 0") as said:
        list(translated(rows, parameter="training_file"))
    assert said.value.parameter == "training_file"


def test_rows_are_laid_out_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = tmp_path / "blob", tmp_path / "training.jsonl"
    source.write_bytes(b"".join(lines({"messages": [{**GOOD, "weight": 2}]})))
    with pytest.raises(InvalidRequest):
        lay_out(source, target, parameter="training_file")
    assert not target.exists()
    source.write_bytes(b"PAR1")
    parquet = tmp_path / f"training{ending_of('Rows.PARQUET')}"
    lay_out(source, parquet, parameter="training_file")
    assert parquet.read_bytes() == b"PAR1"
    assert ending_of("rows.txt") == ".jsonl"
