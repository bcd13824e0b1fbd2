"""Suites: YAML that is read, refused with the nearest name, bounded, and written back."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidRequest, TooLarge
from infra.expectations import Suite, parse_suite, read_suite, yaml_text
from infra.expectations.suite import RULES, build_suite

EVERY_RULE = """
name: every-rule
description: one of each
key: [id]
checks:
  - {rule: columns, columns: {id: integer, name: {type: string, optional: true}, at: }}
  - {rule: rows, min: 1}
  - {rule: nulls, column: id, name: ids are there}
  - {rule: unique, columns: [id, day], severity: warning}
  - {rule: range, column: at, min: 2024-01-01, max: 2024-12-31T23:00:00Z}
  - {rule: categories, column: land, values: [NO, DE, 010, 12:30], max_failing_share: 0.01}
  - {rule: pattern, column: code, regex: '^\\d{5}$', where: land == 'DE'}
  - {rule: statistic, column: age, statistic: mean, min: 20, max: 60.5}
  - {rule: freshness, column: at, max_age: 36h, time_zone: Europe/Oslo}
  - {rule: expression, expression: start <= end}
  - {rule: length, column: text, unit: words, max: 100}
  - {rule: language, column: text, languages: [en, nb]}
  - {rule: duplicates, column: text, similarity: 0.8}
  - {rule: pii, columns: [text], kinds: [email, iban]}
  - {rule: chat, column: messages}
"""

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.sampled_from(["NO", "010", "1e5", "12:30", "null", "~", "2024-01-01", "1.", "-", "<<"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_every_rule_is_read_and_written_back() -> None:
    suite = parse_suite(EVERY_RULE)
    assert {check.rule for check in suite.checks} == set(RULES)
    assert len(RULES) == 15
    assert parse_suite(suite.to_yaml()) == suite
    assert suite.checks[5].values == ("NO", "DE", "010", "12:30")  # type: ignore[union-attr]
    assert suite.checks[4].min == date(2024, 1, 1)  # type: ignore[union-attr]
    assert suite.checks[4].max == datetime(2024, 12, 31, 23, tzinfo=UTC)  # type: ignore[union-attr]


def test_digest_is_of_what_decides_and_not_of_the_words() -> None:
    suite = parse_suite(EVERY_RULE)
    assert suite.digest == parse_suite(EVERY_RULE.replace("one of each", "other words")).digest
    assert suite.digest != parse_suite(EVERY_RULE.replace("min: 20,", "min: 21,")).digest
    dated = "{rule: categories, column: a, values: [2024-01-31]}"
    digests = {
        parse_suite(f"{{name: x, checks: [{line}]}}").digest
        for line in (dated, dated.replace("2024-01-31", "'2024-01-31'"))
    }
    assert len(digests) == 2
    assert suite.digest.startswith("sha256:")
    assert len(suite.digest) == 71


@given(PLAIN)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_as_it_was(value: Any) -> None:
    assert yaml_text.parse(yaml_text.write(value)) == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{rule: range, column: a, mni: 1}", "(range): unknown key 'mni'; did you mean 'min'?"),
        ("{rule: rnage, column: a}", "check 1: unknown rule 'rnage'; did you mean 'range'?"),
        ("{column: a}", "check 1: it needs a 'rule', one of columns, rows"),
        ("{rule: columns, columns: {a: {typ: integer}}}", "unknown key 'typ'; did you mean 'type'"),
        ("{rule: columns, columns: {a: intger}}", "no type 'intger'; did you mean 'integer'"),
        ("{rule: nulls}", "check 1 (nulls): column: field required"),
        ("{rule: range, column: a}", "give min, max or both"),
        ("{rule: range, column: a, min: 2, max: 1}", "min 2 is above max 1"),
        ("{rule: range, column: a, min: 1, max: 2024-01-01}", "cannot be compared"),
        ("{rule: range, column: a, min: soon}", "'soon' is neither a number nor a date"),
        ("{rule: range, column: a, min: true}", "check 1 (range): min"),
        ("{rule: pattern, column: a, regex: '(?<=x)y'}", "look-around"),
        ("{rule: pattern, column: a, regex: '('}", "unclosed group"),
        ("{rule: expression, expression: 'a <'}", "is not an expression"),
        ("{rule: expression, expression: '1 < 2'}", "reads no column"),
        ("{rule: nulls, column: a, where: 'lenght(b) > 1'}", "did you mean 'length'?"),
        ("{rule: columns, columns: {a: }, where: a > 1}", "'where' means nothing here"),
        ("{rule: freshness, column: a, max_age: 3 fortnights}", "such as 36h"),
        ("{rule: freshness, column: a, max_age: 1d, time_zone: Oslo}", "not a time zone"),
        ("{rule: freshness, column: a, max_age: 1d, time_zone: ../../etc}", "not a time zone"),
        ("{rule: pii, columns: [a], kinds: [emial]}", "no kind 'emial'; there are email"),
        ("{rule: duplicates, column: a, similarity: 0.1}", "greater than or equal to 0.5"),
        ("{rule: nulls, column: a, max_failing_share: 1.5}", "less than or equal to 1"),
        ("{rule: nulls, column: a, max_failing_share: .nan}", "max_failing_share"),
        ("{rule: categories, column: a, values: []}", "at least 1 item"),
        ("just text", "check 1"),
    ],
)  # fmt: skip
def test_wrong_check_is_named_with_what_to_do(line: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_suite(f"name: x\nchecks:\n  - {line}\n")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "holds no mapping"),
        ("", "holds no mapping"),
        ("name: x", "checks: field required"),
        ("name: x\nchecks: []", "at least 1 item"),
        ("name: ../x\nchecks: [{rule: rows, min: 1}]", "name:"),
        ("name: x\ncheks: []\nchecks: [{rule: rows, min: 1}]", "'cheks'; did you mean 'checks'?"),
        ("name: x\nname: y", "the key 'name' stands twice (line 2, column 1)"),
        ("name: [x", "is not YAML"),
        ("name: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("name: x\nchecks: 2024-13-45", "cannot be"),
        (f"name: {'1' * 5000}", "cannot be"),
        ("name: \x00", "is not YAML"),
        ("? [a, {b: c}]\n: d", "is not YAML"),
        ("<<: {name: x}\nchecks: [{rule: rows, min: 1}]", "unknown key '<<'"),
    ],
)  # fmt: skip
def test_text_that_is_no_suite_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_suite(text)
    assert words in caught.value.message


def test_hostile_yaml_is_refused_at_once() -> None:
    started = time.perf_counter()
    bomb = "a0: &a0 [x,x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]\n" for n in range(1, 40))
    with pytest.raises(InvalidRequest, match="has the alias"):
        parse_suite(bomb)
    with pytest.raises(InvalidRequest, match="has the alias"):
        parse_suite("name: &x [*x]")
    with pytest.raises(TooLarge, match="nested deeper"):
        parse_suite("[" * 100_000)
    with pytest.raises(TooLarge, match="nested deeper"):
        parse_suite("".join(f"{' ' * n}a:\n" for n in range(300)))
    with pytest.raises(TooLarge, match="characters"):
        parse_suite("x" * 2_000_000)
    assert time.perf_counter() - started < 10


def test_more_checks_than_allowed_are_refused() -> None:
    checks = [{"rule": "rows", "min": 1}] * 1_001
    with pytest.raises(InvalidRequest, match="at most 1000 items"):
        build_suite({"name": "x", "checks": checks})


@given(st.text(alphabet="{}[]:,-&*!|>'\"%@`#?~ \n\tabc01<", max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        parse_suite(text)


def test_ours_is_a_subset_of_what_other_readers_take() -> None:
    assert yaml.safe_load(parse_suite(EVERY_RULE).to_yaml())["name"] == "every-rule"


def test_json_schema_names_every_rule_and_forbids_other_keys() -> None:
    schema = Suite.model_json_schema()
    text = json.dumps(schema)
    assert all(f'"const": "{rule}"' in text for rule in RULES)
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())


def test_suite_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("\ufeff" + EVERY_RULE, encoding="utf-8")
    assert read_suite(path) == parse_suite(EVERY_RULE)
    ours = tmp_path / "suite.json"
    ours.write_text(json.dumps({"name": "x", "checks": [{"rule": "rows", "min": 1}]}))
    assert read_suite(ours).name == "x"


def test_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read_suite(path)
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(TooLarge, match="bytes"):
        read_suite(path)
    broken = tmp_path / "suite.json"
    broken.write_text("{")
    with pytest.raises(InvalidRequest, match="not JSON"):
        read_suite(broken)
    with pytest.raises(FileNotFoundError):
        read_suite(tmp_path / "none.yaml")
