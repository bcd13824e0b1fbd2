"""Suites: read from YAML, and refused with the line and the nearest name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evals.suite import SHIPPED, parse, read, schema
from infra.errors import InvalidRequest, NotFound, TooLarge

GOOD = """\
name: faq
dataset:
  file: faq.jsonl
  fields: {input: question, cluster: document}
target: {kind: collection, collection: faq}
metrics:
  - exact_match
  - {metric: retrieval_ndcg, name: ndcg5, with: {k: 5}}
slices:
  - {name: german, where: {language: de}, protected: true}
gates:
  - {metric: exact_match, floor: 0.8}
  - {metric: ndcg5, slice: german, margin: 0.03, alpha: 0.1}
"""


def refused(text: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse(text, source="faq.yaml")
    return caught.value.message


def test_suite_is_read_with_its_defaults() -> None:
    suite = parse(GOOD)
    assert [each.name for each in suite.metrics] == ["exact_match", "ndcg5"]
    assert suite.metrics[1].parameters == {"k": 5}
    assert suite.gates[0].slice == "all"
    assert (suite.repeats, suite.min_coverage, suite.target.kind) == (1, 0.98, "collection")


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("dataset:", "datset:", 2, "datset: unknown key 'datset'; did you mean 'dataset'?"),
        ("cluster:", "clusters:", 4, "unknown key 'clusters'; did you mean 'cluster'?"),
        ("collection: faq", "colection: faq", 5, "did you mean 'collection'?"),
        ("kind: collection", "kind: colection", 5, "unknown kind 'colection'; did you mean"),
        ("- exact_match", "- exactmatch", 7, "unknown metric 'exactmatch'; did you mean"),
        ("with: {k", "wiht: {k", 8, "unknown key 'wiht'; did you mean 'with'?"),
        ("protected: true", "protected: maybe", 10, "slices.0.protected: "),
        ("floor: 0.8", "flor: 0.8", 12, "unknown key 'flor'; did you mean 'floor'?"),
        ("floor: 0.8", "floor: 0.8, margin: 1", 12, "one of `margin`, `gain`, `floor`, `ceiling`"),
        ("slice: german", "slice: germn", 1, "gates.1: unknown slice 'germn'; did you mean"),
        ("metric: ndcg5,", "metric: ndcg,", 1, "gates.1: unknown metric 'ndcg'; did you mean"),
        ("alpha: 0.1", "alpha: 2", 13, "gates.1.alpha: "),
        ("name: german", "name: all", 1, "slices: 'all' stands twice"),
        ("name: faq", "name: a b", 1, "name: "),
        ("  file: faq.jsonl", "  split: test", 3, "needs either `file` or `artifact`"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_the_nearest_name(
    old: str, new: str, line: int, words: str
) -> None:
    assert old in GOOD
    message = refused(GOOD.replace(old, new, 1))
    assert f"faq.yaml, line {line}: " in message
    assert words in message


def test_text_that_is_no_suite_is_refused() -> None:
    for text in ("", "- a", "name: [", "3", "name: faq\nname: faq"):
        assert "faq.yaml" in refused(text)
    with pytest.raises(TooLarge):
        parse("a: " + "[" * 200)


def test_digest_is_of_what_decides_scores_and_verdicts() -> None:
    same = parse("description: For people.\nconcurrency: 9\n" + GOOD)
    assert same.digest == parse(GOOD).digest
    assert parse("seed: 1\n" + GOOD).digest != same.digest


def test_shipped_suites_can_be_read_by_name() -> None:
    shipped = sorted(SHIPPED.glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert read(Path(path.stem)).name == path.stem


def test_missing_suite_is_named_with_the_nearest() -> None:
    Path("answers.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(NotFound, match="did you mean 'answers.yaml'"):
        read(Path("answer.yaml"))


def test_schema_is_json_and_knows_the_metrics() -> None:
    found: Any = json.loads(json.dumps(schema()))
    assert "exact_match" in json.dumps(found["properties"]["metrics"])
    assert found["additionalProperties"] is False
