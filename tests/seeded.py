"""What seeded regressions are planted in: documents with questions, and a model that obeys."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from infra.sentences import sentence_spans

ROOT = Path(__file__).parent.parent
SQUAD_PARAGRAPHS, SQUAD_QUESTIONS = 120, 150
ADULT_COLUMNS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
_SOURCE = re.compile(
    r"^=== source (\d+) ([0-9a-f]+) ===\n(.*?)\n=== end of source \1 \2 ===$", re.M | re.S
)
_WORD = re.compile(r"\w+")


def write_documentation(folder: Path) -> None:
    """Lay down our own documentation as `documents`, and the questions of the demo on it."""
    shutil.copytree(ROOT / "docs", folder / "documents")
    shutil.copy(ROOT / "evals" / "suites" / "demo.jsonl", folder / "cases.jsonl")


def write_squad(data: Path, folder: Path) -> None:
    """Lay down paragraphs of SQuAD 2.0 as `documents`, and questions that some do not answer."""
    (folder / "documents").mkdir()
    kept = {}
    for row in _rows(data / "qa" / "squad_v2" / "corpus.jsonl.gz")[:SQUAD_PARAGRAPHS]:
        kept[row["id"]] = name = f"{row['id'].replace('#', '-')}.txt"
        (folder / "documents" / name).write_text(row["text"], encoding="utf-8")
    questions = _rows(data / "qa" / "squad_v2" / "questions.jsonl.gz")
    asked = [row for row in questions if row["doc_id"] in kept][:SQUAD_QUESTIONS]
    write_lines(
        folder / "cases.jsonl",
        [
            {
                "id": row["id"],
                "question": row["question"],
                "answerable": row["answerable"],
                "relevant": kept[row["doc_id"]],
                **({"answer": row["answers"]} if row["answerable"] else {}),
            }
            for row in asked
        ],
    )


def write_breast_cancer(folder: Path) -> None:
    """Lay down the table of tumours of scikit-learn as `train.jsonl` and `cases.jsonl`."""
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer(as_frame=True)
    columns = [name.replace(" ", "_") for name in table.feature_names[:10]]
    rows = table.frame.rename(columns=lambda name: name.replace(" ", "_")).to_dict("records")
    _write_table(folder / "train.jsonl", columns, rows[::2], label="target")
    _write_table(folder / "cases.jsonl", columns, rows[1::2], label="target")
    (folder / "columns.json").write_text(json.dumps(columns), encoding="utf-8")


def write_adult(data: Path, folder: Path) -> None:
    """Lay down the numbers of Adult as `train.jsonl` and `cases.jsonl`; 24 % earn more than 50K."""
    for name, file, count in (("train", "train", 3_000), ("cases", "test", 600)):
        with gzip.open(data / "tabular" / "adult" / f"{file}.csv.gz", "rt") as lines:
            rows = [dict(row) for row in islice(csv.DictReader(lines), count)]
        _write_table(folder / f"{name}.jsonl", ADULT_COLUMNS, rows, label="income")
    (folder / "columns.json").write_text(json.dumps(ADULT_COLUMNS), encoding="utf-8")


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def obedient(body: Mapping[str, Any]) -> str:
    """Answer as a model that does what the prompt says, and nothing it does not say.

    It repeats the sentence that shares most words with the question, or three words of it where
    nobody asks for sentences; it cites where it is told to cite, and declines, where it is told to,
    if no sentence shares half of the question's words.
    """
    told = " ".join(each["content"] for each in body["messages"][:-1])
    asked = body["messages"][-1]["content"]
    question = asked[asked.rindex("Question:") :]
    best, share, source = "", 0.0, 0
    for number, _, text in _SOURCE.findall(asked):
        said = " ".join(line.removeprefix("| ") for line in text.splitlines()[1:])
        for start, end in sentence_spans(said):
            overlap = _overlap(question, said[start:end])
            if overlap > share:
                best, share, source = said[start:end], overlap, int(number)
    if share < 0.5 and "do not hold the answer" in told:
        return "NOT_IN_SOURCES"
    said = best if "sentences" in told else " ".join(best.split()[:3])
    return f"{said} [{source}]" if "brackets" in told else said


def _overlap(question: str, sentence: str) -> float:
    wanted = {word.lower() for word in _WORD.findall(question)[1:] if len(word) > 3}
    found = {word.lower() for word in _WORD.findall(sentence)}
    return len(wanted & found) / (len(wanted) or 1)


def _write_table(
    path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, label: str
) -> None:
    write_lines(
        path,
        [
            {**{name: float(row[name]) for name in columns}, "label": str(row[label]).strip(" .")}
            for row in rows
        ],
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
