"""Names and values that are none, are huge, or hold what should not be kept."""

from __future__ import annotations

import json
import math
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidRequest, TooLarge
from infra.tracking import limits
from infra.tracking.buffer import Buffer
from infra.tracking.limits import MAX_TEXT_CHARACTERS, check_key, cut
from infra.tracking.parameters import as_json, decode, encode, flatten, plain
from infra.tracking.redaction import HIDDEN, hide, hide_in_command
from infra.tracking.tracker import Tracker

BAD_KEYS = [
    "",
    " \n",
    "/loss",
    "loss/",
    "a//b",
    "../loss",
    "a/../b",
    ".",
    "a\0b",
    "é",
    "a" * 251,
    7,
]
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_metric_name_is_refused_where_it_is_logged(local: Tracker, key: Any) -> None:
    with local.run("test") as run:
        with pytest.raises(InvalidRequest, match="cannot name a metric"):
            run.log({"fine": 1.0, key: 1.0})
        with pytest.raises(InvalidRequest, match="cannot name a tag"):
            run.tag({key: 1})
    assert list(local.runs.series(run.id)) == []  # nor was the good one beside it logged


@pytest.mark.parametrize("key", ["loss", "train/loss", "eval/precision@5", "top 1 (%)", "a.b:c"])
def test_usual_metric_names_are_taken(key: str) -> None:
    assert check_key(key, what="metric") == key


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1.0], {}, np.ones(3), 10**400, object()])
def test_value_that_is_no_number_is_refused(local: Tracker, value: Any) -> None:
    with local.run("test") as run, pytest.raises(InvalidRequest, match="not a number|the text"):
        run.log({"loss": value})


@pytest.mark.parametrize("value", [1, True, np.float32(0.5), np.int64(3), np.array(2.0)])
def test_numbers_of_other_libraries_are_taken(value: Any) -> None:
    buffer = Buffer()
    buffer.add({"x": value}, step=None, at=0.0)
    assert len(buffer.take()["x"]) == 24


@pytest.mark.parametrize("step", [0.5, "1", 2**63, -(2**63) - 1])
def test_step_that_is_no_whole_number_of_64_bits_is_refused(local: Tracker, step: Any) -> None:
    with local.run("test") as run, pytest.raises(InvalidRequest, match="Step"):
        run.log({"loss": 1.0}, step=step)


@pytest.mark.parametrize("kind", ["", "SFT", "a b", "a" * 65, "ä", None])
def test_bad_kind_is_refused(local: Tracker, kind: Any) -> None:
    with pytest.raises(InvalidRequest, match="not a kind of run"):
        local.run(kind)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a" * 256, "\x1b[31m", "\ud800"])
def test_bad_name_is_refused(local: Tracker, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a run"):
        local.run("test", name=name)


def test_any_printable_name_is_taken(local: Tracker) -> None:
    with local.run("test", name=" ragstone ✓ 'first' % try ") as run:
        pass
    assert local.runs.find("ragstone ✓ 'first' % try").id == run.id


def test_huge_texts_are_cut_and_say_so(local: Tracker) -> None:
    huge = "x" * 10_000_000
    other = huge + "y"
    with local.run("test", parameters={"a": huge, "b": other, "c": [huge]}) as run:
        run.tag({"note": huge})
    record = local.runs.get(run.id)
    texts = [record.parameters["a"], record.parameters["b"], record.tags["note"]]
    assert all(len(text) == MAX_TEXT_CHARACTERS for text in texts)
    assert "[10000000 characters, sha256:" in texts[0]
    assert texts[0] != texts[1]  # what differs still does
    assert len(encode(record.parameters)) < 4 * MAX_TEXT_CHARACTERS


def test_reason_of_a_failure_is_bounded(local: Tracker) -> None:
    run = local.run("test")
    run.end("failed", "x" * 1_000_000)
    reason = local.runs.get(run.id).exit_reason
    assert reason is not None
    assert len(reason) == limits.MAX_REASON_CHARACTERS


def test_texts_no_database_holds_are_mended(tracker: Tracker) -> None:
    told = {"a\0": "b\0\ud800", "n": math.nan}
    with tracker.run("test", parameters=told, tags={"t": "\0"}) as run:
        pass
    record = tracker.runs.get(run.id)
    assert record.tags == {"t": "\N{REPLACEMENT CHARACTER}"}
    assert record.parameters["a\N{REPLACEMENT CHARACTER}"] == "b\N{REPLACEMENT CHARACTER}?"
    assert math.isnan(record.parameters["n"])


def test_too_much_of_anything_is_refused(local: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLarge, match="parameters"):
        local.run("test", parameters={str(n): n for n in range(limits.MAX_PARAMETERS + 1)})
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(InvalidRequest, match="nest deeper"):
        local.run("test", parameters=deep)
    with local.run("test") as run:
        run.log({f"m{n}": n for n in range(limits.MAX_SERIES)})
        with pytest.raises(TooLarge, match="'one more' is refused"):
            run.log({"one more": 1})
        with pytest.raises(TooLarge, match="tags"):
            run.tag({f"t{n}": n for n in range(limits.MAX_TAGS + 1)})
    assert len(local.runs.series(run.id)) == limits.MAX_SERIES


def test_two_parameters_of_one_flat_name_are_refused(local: Tracker) -> None:
    with pytest.raises(InvalidRequest, match=r"called 'a\.b'"):
        local.run("test", parameters={"a": {"b": 1}, "a.b": 2})


def test_parameters_of_any_kind_become_something_that_can_be_kept() -> None:
    class Colour(Enum):
        RED = 1

    told: dict[Any, Any] = {
        "path": Path("a") / "b",
        "colour": Colour.RED,
        "set": {3, 1},
        "tuple": (1, 2.5),
        "array": np.arange(2),
        "scalar": np.float32(0.5),
        "big": 2**70,
        7: "a number for a name",
    }
    assert plain(told) == {
        "path": "a/b",
        "colour": "Colour.RED",
        "set": [1, 3],
        "tuple": [1, 2.5],
        "array": "[0 1]",
        "scalar": 0.5,
        "big": hex(2**70),
        "7": "a number for a name",
    }


@given(st.dictionaries(st.text(min_size=1), NESTED, max_size=5))
def test_whatever_is_accepted_is_read_back_and_is_json(told: dict[str, Any]) -> None:
    try:
        kept = plain(told)
    except InvalidRequest:  # an empty name, or two names that are one when flat
        return
    assert encode(decode(encode(kept))) == encode(kept)
    assert encode(plain(kept)) == encode(kept)
    json.loads(encode(as_json(kept)), parse_constant=pytest.fail)
    assert all(not isinstance(value, dict) or not value for value in flatten(kept).values())


def test_secrets_are_not_recorded(local: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train.py", "--api-key", "s3cret", "--hf-token=s3cret", "--max-tokens", "9"]
    monkeypatch.setattr(sys, "orig_argv", [*words, "s3://me:s3cret@host/x", "sk-s3cret0123456789"])
    told = {
        "model": {"api_key": "s3cret", "max_tokens": 9, "pad_token": "<pad>", "password": None},
        "url": "postgresql://me:s3cret@host/db",
        "DB_PASSWORD": "s3cret",
        "token": "s3cret",
    }
    run = local.run("test", parameters=told, tags={"from": "https://a:s3cret@host"})
    run.end("failed", "cannot reach https://a:s3cret@host/x")
    record = local.runs.get(run.id)
    assert "s3cret" not in repr(record)
    assert record.parameters["model"] == {
        "api_key": HIDDEN,
        "max_tokens": 9,
        "pad_token": "<pad>",
        "password": None,
    }
    assert record.command[4:6] == ("--max-tokens", "9")


def test_command_keeps_what_is_no_secret() -> None:
    assert hide_in_command(["a", "--password", "--verbose", "x"]) == [
        "a",
        "--password",
        "--verbose",
        "x",
    ]
    assert hide("see https://host/a@b") == "see https://host/a@b"


@given(st.text(max_size=300), st.integers(150, 400))
def test_cutting_bounds_a_text_and_leaves_a_short_one(text: str, limit: int) -> None:
    shown = cut(text, limit)
    assert len(shown) <= limit
    assert shown == text or len(text) > limit
