"""What was made worse on purpose is caught by the gate of a suite; what was left alone passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import seeded
from chat_server import serving
from service.cli.entry import app
from service.generation.templates import shipped_text
from tiny_llm import write_adapter, write_llm

CASES = 90
SUITE = """
name: documents
dataset: {file: cases.jsonl}
target: {kind: collection, collection: documents}
metrics: [contains, abstention, citation_precision, {metric: retrieval_recall, with: {k: 8}}]
slices:
  - {name: answerable, where: {answerable: true}}
gates:
  - {metric: contains, slice: answerable, margin: 0.15}
baseline: evaluation/documents@baseline
"""
TRUNCATES = "def begins(text):\n    return [text[:300]]\n"
"""A splitter that loses what comes after the first lines of a document."""
TERSE = """
task: answer
system: Answer the question. If you cannot, say {refusal}.
user: |
  {sources}

  Question: {question}
"""
CLASSIFIER = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

SHUFFLED = False
rows = pd.read_json("train.jsonl", lines=True)
labels = rows.pop("label").to_numpy()
if SHUFFLED:
    labels = np.random.default_rng(0).permutation(labels)
columns = list(rows)
table = rows.to_numpy()
mean, sd = table.mean(0), table.std(0)
model = LogisticRegression(max_iter=500).fit((table - mean) / sd, labels)

def predict(features):
    row = (np.array([[features[name] for name in columns]]) - mean) / sd
    return {str(name): float(p) for name, p in zip(model.classes_, model.predict_proba(row)[0])}
"""


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    monkeypatch.setenv("RAGSTONE_GROUNDEDNESS__WHEN", "off")
    monkeypatch.syspath_prepend(str(Path.cwd()))


@pytest.fixture(params=["documentation", "squad_v2"])
def documents(request: pytest.FixtureRequest) -> None:
    """A collection `documents` of real texts, with `cases.jsonl` of real questions on them."""
    if request.param == "documentation":
        seeded.write_documentation(Path())
    else:
        seeded.write_squad(request.getfixturevalue("shared_data"), Path())
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")
    run("ingest", "documents", "-c", "documents")


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def evaluate(code: int) -> Any:
    return json.loads(run("eval", "run", "suite.yaml", "--json", code=code).stdout)


def require_caught(worsen: Callable[[], object], by: str = "contains") -> Any:
    """Run the suite as it is, again, and worsened; return what the last run found.

    Args:
        worsen: makes what is evaluated worse.
        by: the metric whose gate sees it.
    """
    first = evaluate(code=2)["evaluation"]  # there is nothing to compare with yet
    run("artifacts", "tag", first, "baseline")
    assert evaluate(code=0)["verdict"] == "pass"
    worsen()
    found = evaluate(code=1)
    assert found["verdict"] == "fail"
    assert found["baseline"] == first
    assert verdicts(found)[by] == "fail"
    return found


def verdicts(found: Any) -> dict[str, str]:
    """Return what each gate said, by its metric."""
    return {each["gate"]["metric"]: each["verdict"] for each in found["decisions"]}


@pytest.mark.usefixtures("documents")
def test_chunker_that_loses_text_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def worsen() -> None:
        Path("broken_splitter.py").write_text(TRUNCATES, encoding="utf-8")
        monkeypatch.setenv("RAGSTONE_RETRIEVAL__SPLITTER", "broken_splitter.begins")
        run("ingest", "documents", "-c", "truncated")
        replace("suite.yaml", "collection: documents", "collection: truncated")

    require_caught(worsen)


@pytest.mark.usefixtures("documents")
def test_prompt_that_asks_for_less_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(seeded.obedient) as model:
        upstreams = {"here": {"urls": [model.url]}}
        routes = {"writer": {"targets": [{"upstream": "here"}]}}
        monkeypatch.setenv("RAGSTONE_GATEWAY__UPSTREAMS", json.dumps(upstreams))
        monkeypatch.setenv("RAGSTONE_GATEWAY__ROUTES", json.dumps(routes))
        replace("suite.yaml", "collection: documents", "collection: documents, generator: writer")
        for number, text in enumerate((shipped_text("answer"), TERSE), 1):
            Path(f"prompt-{number}.yaml").write_text(text, encoding="utf-8")
            run("prompts", "put", f"prompt-{number}.yaml", "answer")
        run("prompts", "use", "answer@v1")
        found = require_caught(lambda: run("prompts", "use", "answer@v2"))
        means = {(row["metric"], row["slice"]): row["mean"] for row in found["metrics"]}
        assert means["citation_precision", "all"] == 0  # nobody asked for citations either
        run("prompts", "use", "answer@v1")
        assert evaluate(code=0)["verdict"] == "pass"


def test_adapter_whose_weights_are_in_disorder_is_caught(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    base = write_llm(tmp_path / "base")
    Path("ragstone.toml").write_text(
        '[gateway.upstreams.tiny]\nplugin = "transformers_local"\n'
        f'options = {{ model = "{base}", served_name = "tiny" }}\n'
        "[gateway.routes.triage]\n"
        'targets = [{ upstream = "tiny", adapter = "adapter/triage@production" }]\n'
    )
    seeded.write_lines(
        Path("cases.jsonl"),
        [
            {"id": f"t{n}", "question": f"Ticket {n}: the lift is stuck.", "answer": "AAAA"}
            for n in range(CASES)
        ],
    )
    Path("suite.yaml").write_text(
        "name: triage\ndataset: {file: cases.jsonl}\n"
        "target: {kind: model, model: triage, max_tokens: 4}\nmetrics: [exact_match]\n"
        "gates: [{metric: exact_match, margin: 0.1}]\nbaseline: evaluation/triage@baseline\n"
    )
    put_adapter(write_adapter(tmp_path / "trained", base, "A"))

    def worsen() -> None:
        put_adapter(in_disorder(write_adapter(tmp_path / "broken", base, "A")))

    require_caught(worsen, by="exact_match")


@pytest.fixture(params=["tumours", "incomes"])
def table(request: pytest.FixtureRequest) -> str:
    """Rows of a classical model, `train.jsonl` and `cases.jsonl`, and a model for each half."""
    if request.param == "tumours":
        seeded.write_breast_cancer(Path())
    else:
        seeded.write_adult(request.getfixturevalue("shared_data"), Path())
    name = str(request.param)
    Path(f"{name}_good.py").write_text(CLASSIFIER, encoding="utf-8")
    Path(f"{name}_bad.py").write_text(CLASSIFIER.replace("SHUFFLED = False", "SHUFFLED = True"))
    Path("suite.yaml").write_text(
        f"name: {name}\ndataset:\n  file: cases.jsonl\n"
        f"  fields: {{input: {Path('columns.json').read_text('utf-8')}, expected: label}}\n"
        f"target: {{kind: function, call: {name}_good.predict}}\n"
        "metrics: [accuracy, macro_f1, brier]\n"
        "gates: [{metric: accuracy, margin: 0.1}, {metric: macro_f1, margin: 0.1}]\n"
        f"baseline: evaluation/{name}@baseline\n"
    )
    return name


def test_classifier_that_learned_labels_in_disorder_is_caught(table: str) -> None:
    """The same code, data and seed, but the labels of the training set were shuffled.

    Three of four incomes are below 50,000: who always says so loses little accuracy.
    """
    found = require_caught(
        lambda: replace("suite.yaml", f"{table}_good", f"{table}_bad"), by="macro_f1"
    )
    assert verdicts(found)["accuracy"] == {"tumours": "fail", "incomes": "pass"}[table]


def put_adapter(folder: Path) -> None:
    """Store an adapter and have production point at it."""
    stored = json.loads(run("artifacts", "put", str(folder), "adapter/triage", "--json").stdout)
    run("artifacts", "tag", str(stored["reference"]), "production")


def in_disorder(folder: Path) -> Path:
    """Shuffle the rows of every matrix that leads out of an adapter, as a wrong export would."""
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    chance = np.random.default_rng(0)
    weights = {
        name: chance.permutation(matrix) if "lora_B" in name else matrix
        for name, matrix in load_file(path).items()
    }
    save_file(weights, path)
    return folder


def replace(name: str, old: str, new: str) -> None:
    path = Path(name)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
