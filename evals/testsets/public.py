"""Test sets from public data: documents and cases for the shipped suites, of files that one has."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evals.suite import SHIPPED
from evals.testsets import review
from infra.errors import NotFound
from infra.plugins import require

Row = Mapping[str, Any]
ADULT_TRAINED_ON = 20_000
"""Rows; more make the accuracy no better and take longer."""
_WORDS_OF_SUPPORT = ("supported", "unsupported")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written."""

    suite: Path
    cases: int
    documents: int
    """In the folder `documents` beside the suite; 0 where a suite has none."""


def prepare(name: str, data: Path, folder: Path) -> Prepared:
    """Write a suite with its cases, and its documents, from a folder of public data.

    Args:
        name: of the shipped suite.
        data: laid out as `retrieval/scifact`, `qa/squad_v2`, `tabular/adult`, `groundedness`.
        folder: to write to; what is there by these names is replaced.

    Raises:
        NotFound: there is no such suite, or the data lack one of its files; names it.
        MissingDependency: an extra is needed to make it.
    """
    if name not in _MAKERS:
        raise NotFound("suite of public data", name, among=_MAKERS, are_few=True)
    needed, make = _MAKERS[name]
    for each in needed:
        if not (data / each).is_file():
            raise NotFound("file of public data", str(data / each))
    folder.mkdir(parents=True, exist_ok=True)
    cases, documents = make(data, folder)
    suite = folder / f"{name}.yaml"
    suite.write_text((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return Prepared(suite, cases, documents)


def _scifact(data: Path, folder: Path) -> tuple[int, int]:
    root = data / "retrieval" / "scifact"
    documents = (
        (f"{row['_id']}.txt", f"{row['title']}\n\n{row['text']}\n")
        for row in _lines(root / "corpus.jsonl.gz")
    )
    texts = {row["_id"]: row["text"] for row in _lines(root / "queries.jsonl.gz")}
    relevant: dict[str, dict[str, float]] = {}
    for row in _lines(root / "qrels" / "test.jsonl.gz"):
        if row["score"]:
            grades = relevant.setdefault(row["query-id"], {})
            grades[f"{row['corpus-id']}.txt"] = float(row["score"])
    cases = (
        {"id": key, "question": texts[key], "relevant": grades} for key, grades in relevant.items()
    )
    return _write_cases(folder, "scifact", cases), _write_documents(folder, documents)


def _squad(data: Path, folder: Path) -> tuple[int, int]:
    root = data / "qa" / "squad_v2"
    documents = (
        (_file_of(row["id"]), f"{row['title']}\n\n{row['text']}\n")
        for row in _lines(root / "corpus.jsonl.gz")
    )
    cases = (
        {
            "id": row["id"],
            "question": row["question"].strip(),
            "answer": row["answers"] or None,
            "answerable": row["answerable"],
            "relevant": _file_of(row["doc_id"]) if row["answerable"] else None,
            "cluster": row["doc_id"].partition("#")[0],
        }
        # Every 13th: of all topics, 600 in all.
        for row in list(_lines(root / "questions.jsonl.gz"))[::13]
        if row["question"].strip()
    )
    return _write_cases(folder, "squad", cases), _write_documents(folder, documents)


def _adult(data: Path, folder: Path) -> tuple[int, int]:
    """Write the test rows, and what a classifier makes of them that is trained on the others."""
    ensemble = require("sklearn.ensemble", extra="evals")
    preprocessing = require("sklearn.preprocessing", extra="evals")
    root = data / "tabular" / "adult"
    train = list(_csv(root / "train.csv.gz"))[:ADULT_TRAINED_ON]
    test = list(_csv(root / "test.csv.gz"))
    columns = [name for name in train[0] if name != "income"]
    words = [name for name in columns if isinstance(train[0][name], str)]
    encoder = preprocessing.OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1
    ).fit([[row[name] for name in words] for row in train])

    def features(rows: list[dict[str, Any]]) -> list[list[float]]:
        coded = encoder.transform([[row[name] for name in words] for row in rows])
        numbers = [name for name in columns if name not in words]
        return [
            [*codes, *(row[name] for name in numbers)]
            for codes, row in zip(coded, rows, strict=True)
        ]

    model = ensemble.HistGradientBoostingClassifier(random_state=0)
    model.fit(features(train), [row["income"] for row in train])
    shares = model.predict_proba(features(test))
    labels = [str(each) for each in model.classes_]
    outputs = (
        {"id": str(number), "prediction": dict(zip(labels, map(float, each), strict=True))}
        for number, each in enumerate(shares, 1)
    )
    review.write(folder / "adult-outputs.jsonl", outputs)
    rows = ({"id": str(number), **row} for number, row in enumerate(test, 1))
    return _write_cases(folder, "adult", rows), 0


def _groundedness(data: Path, folder: Path) -> tuple[int, int]:
    """Write claims with their contexts, and how much of each the words of its context carry."""
    from evals.support import supported

    rows = [*_claims("climate", data / _CLIMATE), *_claims("scifact", data / _PAIRS)]
    outputs = []
    for row in rows:
        found = supported([row["claim"]], [row["context"]], None)[0].support
        shares = dict(zip(_WORDS_OF_SUPPORT, (found, 1 - found), strict=True))
        outputs.append({"id": row["id"], "prediction": shares})
    review.write(folder / "groundedness-outputs.jsonl", outputs)
    return _write_cases(folder, "groundedness", rows), 0


def _claims(source: str, path: Path) -> Iterator[dict[str, Any]]:
    for row in _lines(path):
        yield {
            "id": f"{source}-{row['id']}",
            "claim": row["response"],
            "context": row["context"],
            "label": _WORDS_OF_SUPPORT[int(row["label"])],
            "source": source,
            "cluster": f"{source}-{row['id'].partition('|')[0]}",
        }


def _write_documents(folder: Path, documents: Iterable[tuple[str, str]]) -> int:
    place = folder / "documents"
    place.mkdir(exist_ok=True)
    count = 0
    for name, text in documents:
        (place / name).write_text(text, encoding="utf-8")
        count += 1
    return count


def _write_cases(folder: Path, name: str, cases: Iterable[Row]) -> int:
    rows = list(cases)
    review.write(folder / f"{name}.jsonl", rows)
    return len(rows)


def _file_of(paragraph: str) -> str:
    return f"{paragraph.replace('/', '_').replace('#', '-')}.txt"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        for line in file:
            yield orjson.loads(line)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: int(value) if _is_whole(value) else value for name, value in row.items()}


def _is_whole(value: str) -> bool:
    return value.removeprefix("-").isdigit()


_CLIMATE = "groundedness/climate_fever_pairs.jsonl.gz"
_PAIRS = "retrieval/scifact/claim_pairs.jsonl.gz"
_MAKERS: Mapping[str, tuple[tuple[str, ...], Callable[[Path, Path], tuple[int, int]]]] = {
    "scifact": (
        (
            "retrieval/scifact/corpus.jsonl.gz",
            "retrieval/scifact/queries.jsonl.gz",
            "retrieval/scifact/qrels/test.jsonl.gz",
        ),
        _scifact,
    ),
    "squad": (("qa/squad_v2/corpus.jsonl.gz", "qa/squad_v2/questions.jsonl.gz"), _squad),
    "adult": (("tabular/adult/train.csv.gz", "tabular/adult/test.csv.gz"), _adult),
    "groundedness": ((_CLIMATE, _PAIRS), _groundedness),
}
