"""Rules of texts: length, language, duplicates and personal data, on planted and on real rows."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ENGLISH = "The tower was built by order of the king, and it stands beside the river to this day."
GERMAN = (
    "Der Turm wurde auf Befehl des Königs gebaut und steht bis heute neben dem Fluss der Stadt."
)


def test_length_in_characters_and_words(judge: Any) -> None:
    columns = {"t": ["three short words", "", "äöü", None]}
    result = judge(columns, rule="length", column="t", min=1, max=10)
    assert (result.checked, result.failing) == (3, 2)
    assert [sample.reason for sample in result.samples] == ["17 characters", "0 characters"]
    assert result.observed == {"shortest": 0, "longest": 17, "unit": "characters"}
    assert judge(columns, rule="length", column="t", unit="words", max=3).passed
    assert not judge(columns, rule="length", column="t", unit="words", max=2).passed


def test_text_rule_on_numbers_fails_with_the_reason(judge: Any) -> None:
    for rule in ({"rule": "length", "column": "t", "min": 1}, {"rule": "pii", "columns": ["t"]}):
        assert judge({"t": [1]}, **rule).message == "column 't' holds Int64; text is needed"


def test_language(judge: Any) -> None:
    columns = {"t": [ENGLISH, GERMAN, "ok", None]}
    result = judge(columns, rule="language", column="t", languages=["en"])
    assert (result.checked, result.failing) == (2, 1)
    assert result.samples[0].row == 1
    assert result.samples[0].reason == "in 'de'"
    assert result.observed["languages"] == {"en": 1, "de": 1}
    assert judge(columns, rule="language", column="t", languages=["en", "de"]).passed


def test_language_that_cannot_be_told_is_refused(judge: Any) -> None:
    result = judge({"t": [ENGLISH]}, rule="language", column="t", languages=["en", "xx"])
    assert not result.passed
    assert "['xx'] cannot be told" in result.message


def test_languages_of_real_texts_are_told(judge: Any, shared_data: Path) -> None:
    folder = shared_data / "chat" / "demo"
    english = pl.scan_ndjson(folder / "alpaca_en_demo.jsonl.gz").head(150)
    chinese = pl.scan_ndjson(folder / "alpaca_zh_demo.jsonl.gz").head(150)
    frame = pl.concat([english, chinese]).select("output")
    result = judge(frame, rule="language", column="output", languages=["en"])
    assert 135 <= result.observed["languages"]["en"] <= 150
    assert 120 <= result.observed["languages"]["zh"] <= 150  # others are too short to tell
    assert result.failing == result.checked - result.observed["languages"]["en"]


def test_exact_duplicates_but_for_case_and_white_space(judge: Any) -> None:
    columns = {"t": ["One  text", "another", "one text\n", "ONE TEXT", None, None]}
    result = judge(columns, rule="duplicates", column="t")
    assert (result.checked, result.failing) == (4, 2)
    assert [(sample.row, sample.reason) for sample in result.samples] == [
        (2, "as row 0"),
        (3, "as row 0"),
    ]
    assert judge({"t": ["a", "b"]}, rule="duplicates", column="t").passed


def test_duplicate_names_the_row_of_the_whole_table(judge: Any) -> None:
    columns = {"t": ["x", "a", "b", "a"], "use": [False, True, True, True]}
    result = judge(columns, rule="duplicates", column="t", where="use")
    assert [(sample.row, sample.reason) for sample in result.samples] == [(3, "as row 1")]


def test_near_duplicates(judge: Any) -> None:
    words = [f"word{number}" for number in range(60)]
    near = [*words[:30], "changed", *words[31:]]  # 3 of 58 pieces differ: 55 / 61 = 0.90
    far = [*words[:30], *(f"other{number}" for number in range(30))]
    columns = {"t": [" ".join(words), " ".join(far), " ".join(near)]}
    assert judge(columns, rule="duplicates", column="t").passed
    result = judge(columns, rule="duplicates", column="t", similarity=0.9)
    assert [(sample.row, sample.reason) for sample in result.samples] == [(2, "as row 0")]
    assert result.observed == {"exact": 0, "near": 1}
    assert judge(columns, rule="duplicates", column="t", similarity=0.95).passed


def test_near_duplicates_of_text_without_spaces(judge: Any) -> None:
    text = "细胞理论是生物科学的一个理论它认为所有生命体都是由微小的基本单元细胞所构成这是生物学的"
    assert not judge(
        {"t": [text, f"{text}。"]}, rule="duplicates", column="t", similarity=0.9
    ).passed
    assert judge({"t": [text, text[::-1]]}, rule="duplicates", column="t", similarity=0.9).passed


def test_planted_near_duplicates_are_all_found_among_real_texts(
    judge: Any, shared_data: Path
) -> None:
    path = shared_data / "chat" / "gsm8k" / "train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["question"] for _, line in zip(range(400), lines, strict=False)]
    generator = random.Random(7)
    planted = []
    for text in generator.sample(texts, 40):
        words = text.split()
        words[-1] = "planted?"  # at most 3 pieces of n - 2 differ
        planted.append(" ".join(words))
    frame = pl.DataFrame({"t": [*texts, *planted]})
    clean = judge(pl.DataFrame({"t": texts}), rule="duplicates", column="t", similarity=0.7)
    result = judge(frame, rule="duplicates", column="t", similarity=0.7)
    assert result.failing - clean.failing == 40


def test_personal_data_is_found_and_masked_in_the_report(judge: Any) -> None:
    columns = {
        "q": ["write to ada@example.org", "nothing here", None],
        "a": ["fine", "card 4111 1111 1111 1111", "fine"],
    }
    result = judge(columns, rule="pii", columns=["q", "a"])
    assert (result.checked, result.failing) == (3, 2)
    assert result.observed["rows_by_kind"] == {"email": 1, "card": 1}
    assert result.samples[0].values == {"q": "write to <email>", "a": "fine"}
    assert result.samples[1].values == {"q": "nothing here", "a": "card <card>"}
    assert result.samples[1].reason == "holds card"
    assert judge(columns, rule="pii", columns=["q", "a"], kinds=["iban"]).passed


@pytest.mark.parametrize("rule", ["categories", "pattern", "unique", "duplicates"])
def test_no_rule_shows_personal_data(judge: Any, rule: str) -> None:
    options: dict[str, Any] = {
        "categories": {"column": "t", "values": ["x"]},
        "pattern": {"column": "t", "regex": "^x"},
        "unique": {"columns": ["t"]},
        "duplicates": {"column": "t"},
    }
    result = judge({"t": ["ada@example.org", "ada@example.org"]}, rule=rule, **options[rule])
    assert not result.passed
    assert "ada@" not in repr(result)
    assert "<email>" in repr(result)
