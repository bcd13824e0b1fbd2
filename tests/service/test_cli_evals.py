"""`ragstone eval`: run, validate, compare, list, show, and what the exit codes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.entry import app

DOCUMENTS = {
    "leave.md": "Employees have 28 days of paid leave a year. Leave is asked for in the portal.",
    "travel.md": "Trains are booked in second class. Flights need the approval of the manager.",
    "pumps.md": "The pump of hall 3 was replaced on 3 May. The old one leaked oil.",
}
CASES = [
    ("leave", "How many days of paid leave does an employee have?", "28 days", "leave.md"),
    ("portal", "Where is leave asked for?", "portal", "leave.md"),
    ("trains", "In which class are trains booked?", "second class", "travel.md"),
    ("flights", "Whose approval do flights need?", "manager", "travel.md"),
    ("pump", "When was the pump of hall 3 replaced?", "3 May", "pumps.md"),
    ("oil", "What did the old pump leak?", "oil", "pumps.md"),
]
SUITE = """
name: handbook
dataset: {file: cases.jsonl}
target: {kind: collection, collection: handbook}
metrics: [contains, abstention, citation_precision, retrieval_recall, latency, tokens]
gates:
  - {metric: abstention, floor: FLOOR}
"""


@pytest.fixture(autouse=True)
def _handbook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    Path("documents").mkdir()
    for name, text in DOCUMENTS.items():
        Path("documents", name).write_text(text, encoding="utf-8")
    rows = [
        {"id": name, "question": question, "answer": answer, "relevant": document}
        for name, question, answer, document in CASES
    ]
    rows.append({"id": "moon", "question": "How many penguins live on Mars?", "answerable": False})
    Path("cases.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    write_suite(0.3)
    assert CliRunner().invoke(app, ["ingest", "documents", "-c", "handbook"]).exit_code == 0


def write_suite(floor: float, **replaced: str) -> None:
    text = SUITE.replace("FLOOR", str(floor))
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    Path("suite.yaml").write_text(text, encoding="utf-8")


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["eval", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def files(version: str) -> dict[str, bytes]:
    """Lay the files of a stored evaluation out and return what is in them."""
    words = ["artifacts", "checkout", version, version.replace("/", "-")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    folder = Path(version.replace("/", "-"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_collection_is_evaluated_and_passes() -> None:
    found = run_json("run", "suite.yaml")
    assert (found["verdict"], found["evaluation"]) == ("pass", "evaluation/handbook@v1")
    means = {row["metric"]: row["mean"] for row in found["metrics"]}
    assert means["citation_precision"] == 1
    assert means["retrieval_recall"] == 1
    assert means["contains"] > 0.5
    assert means["tokens"] > 0
    text = run("run", "suite.yaml").stdout
    assert "verdict pass" in text
    assert "abstention floor 0.3" in text


def test_same_suite_run_twice_gives_the_same_bytes() -> None:
    for _ in range(2):
        run("run", "suite.yaml")
    first, second = (files(f"evaluation/handbook@v{number}") for number in (1, 2))
    for name in ("trials.jsonl", "summary.json", "evaluation.json"):
        assert first[name] == second[name]
    assert b'"28 days' in first["trials.jsonl"] or b"28 days" in first["trials.jsonl"]
    assert b"latency_seconds" not in first["trials.jsonl"]


def test_failed_gate_exits_with_1_and_is_kept() -> None:
    write_suite(0.3, **{"abstention, floor: 0.3": "citation_precision, ceiling: 0.1"})
    run("run", "suite.yaml", code=3)  # better when larger: a ceiling makes no sense
    write_suite(0.3, **{"metric: abstention, floor: 0.3": "metric: latency, ceiling: 0.000001"})
    result = run("run", "suite.yaml", code=2)
    assert "hardly any case differs" in result.stdout or "inconclusive" in result.stdout
    write_suite(0.8, **{"collection, collection: handbook": "constant, answerable: false"})
    run("run", "suite.yaml", "--underpowered", code=1)
    assert [row["verdict"] for row in run_json("list")] == ["fail", "inconclusive"]


def test_gate_that_cannot_be_told_exits_with_2() -> None:
    write_suite(0.9)
    result = run("run", "suite.yaml", "--underpowered", code=2)
    assert "needs 29 cases, and has 7" in result.stderr
    assert "verdict underpowered" in result.stdout


def test_suite_with_too_few_cases_is_not_run_and_says_how_many_it_takes() -> None:
    gate = {"metric: abstention, floor: 0.3": "metric: abstention, margin: 0.03"}
    write_suite(0.3, **gate)
    result = run("run", "suite.yaml", code=2)
    assert "needs 687 cases if 10% of them change, 1,374 if 20%" in result.stderr
    assert "--underpowered" in result.stderr
    assert run_json("list") == []


def test_threshold_that_no_score_can_show_is_refused_with_its_key() -> None:
    write_suite(0.3, **{"abstention, floor: 0.3": "latency, floor: 5"})
    told = run("run", "suite.yaml", code=3).stderr.strip()
    assert told.startswith("ragstone: Suite 'handbook', gates.0.floor: ")
    write_suite(5)
    told = run("run", "suite.yaml", code=3).stderr.strip()
    assert "gates.0.floor: it is 5.0, and 'abstention' is between 0 and 1" in told
    assert "\n" not in told
    assert "gates.0.floor" in run("validate", "suite.yaml", code=1).stderr


def test_error_that_nobody_foresaw_is_no_failed_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in breaks on being asked for its version: Python would exit with 1."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("odd_metric.py").write_text(
        "class Odd:\n"
        "    @property\n"
        "    def version(self):\n"
        "        return 1 / 0\n"
        "    async def score(self, case, output, context):\n"
        "        raise NotImplementedError\n"
        "def build(parameters):\n"
        "    return Odd()\n"
    )
    write_suite(0.3, contains="odd_metric.build")
    result = run("run", "suite.yaml", code=3)
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "suit.yaml"], "No suite 'suit.yaml'; did you mean 'suite.yaml'?"),
        (["run", "suite.yaml", "--nosuch"], "--nosuch"),
        (["run"], "SUITE"),
        (["run", "suite.yaml", "--baseline", "evaluation/other"], "No evaluation"),
        (["compare", "handbook@v1", "handbook@v2"], "No evaluation"),
    ],
)
def test_what_keeps_a_verdict_from_being_found_exits_with_3(words: list[str], message: str) -> None:
    assert message in run(*words, code=3).stderr


def test_suite_that_is_wrong_is_named_with_file_and_line() -> None:
    write_suite(0.3, contains="contians")
    for word, code in (("run", 3), ("validate", 1)):
        message = run(word, "suite.yaml", code=code).stderr
        assert "suite.yaml, line 5: metrics.0.metric: unknown metric 'contians'" in message
        assert "did you mean 'contains'?" in message
    write_suite(0.3, **{"collection: handbook}": "collection: handbok}"})
    for word, code in (("run", 3), ("validate", 1)):
        (line,) = run(word, "suite.yaml", code=code).stderr.splitlines()
        assert "did you mean 'handbook'?" in line
        assert "'ragstone ingest FOLDER -c handbok' makes it, 'ragstone demo' one to try" in line


def test_judge_that_nothing_is_kept_of_is_refused_offline_in_one_line() -> None:
    write_suite(0.3)
    run("run", "suite.yaml", "--offline")  # nothing in it asks anybody
    judge = "{metric: ragas_faithfulness, with: {model: m}}"
    write_suite(0.3, contains=f"{judge}", metrics="calls: answers\nmetrics")
    (line,) = run("run", "suite.yaml", "--offline", code=3).stderr.splitlines()
    assert "Metrics ask a judge (ragas_faithfulness)" in line
    assert "answers' keeps no answer of one; run the suite once without --offline" in line


def test_validate_counts_cases_and_asks_nothing() -> None:
    found = run_json("validate", "suite.yaml")
    assert (found["cases"], found["trials"], found["slices"]) == (7, 7, {"all": 7})
    assert found["shortages"] == []


def test_baseline_of_the_suite_may_be_missing_before_the_first_run() -> None:
    gate = {"metric: abstention, floor: 0.3": "metric: abstention, margin: 0.9"}
    write_suite(0.3, **gate)
    text = Path("suite.yaml").read_text() + "baseline: evaluation/handbook@baseline\n"
    Path("suite.yaml").write_text(text)
    first = run("run", "suite.yaml", code=2)
    assert "There is nothing to compare with" in first.stderr
    assert "ragstone artifacts tag evaluation/handbook@v1 baseline" in first.stderr
    words = ["artifacts", "tag", "evaluation/handbook@v1", "baseline"]
    assert CliRunner().invoke(app, words).exit_code == 0
    found = run_json("run", "suite.yaml", code=0)
    assert found["baseline"] == "evaluation/handbook@v1"


def test_changed_documents_are_compared_case_by_case() -> None:
    run("run", "suite.yaml")
    Path("documents", "leave.md").write_text("Leave is a matter of trust.", encoding="utf-8")
    assert CliRunner().invoke(app, ["ingest", "documents", "-c", "handbook"]).exit_code == 0
    found = run_json("run", "suite.yaml")
    assert found["evaluation"] == "evaluation/handbook@v2"
    words = ("compare", "handbook@v1", "evaluation/handbook@v2")
    compared = run_json(*words)
    changed = {(one["metric"], one["case"]) for one in compared["changes"]}
    assert ("contains", "leave") in changed
    row = next(row for row in compared["differences"] if row["metric"] == "contains")
    assert row["difference"] < 0
    assert "leave" in run(*words).stdout


def test_golden_case_that_failed_is_no_pass_beside_an_earlier_evaluation() -> None:
    golden = "{check: golden, with: {metric: contains, at_most: 0.5}}"
    write_suite(0.3, **{"target:": f"checks: [{golden}]\ntarget:"})
    for _ in range(2):
        run("run", "suite.yaml", code=1)
    compared = run_json("compare", "handbook@v1", "handbook@v2", code=1)
    (finding,) = compared["judgement"]["findings"]
    assert (compared["judgement"]["verdict"], finding["verdict"]) == ("fail", "fail")


def test_baseline_of_other_cases_is_refused_and_loses_nothing() -> None:
    write_suite(0.3, **{"metric: abstention, floor: 0.3": "metric: abstention, margin: 0.9"})
    run("run", "suite.yaml", code=2)
    with Path("cases.jsonl").open("a") as file:
        file.write('\n{"id": "new", "question": "Who?", "answerable": false}')
    result = run("run", "suite.yaml", "--baseline", "handbook@v1", code=3)
    assert "other cases" in result.stderr
    assert len(run_json("list")) == 1


def test_evaluations_are_listed_and_shown() -> None:
    assert "No evaluation is stored" in run("list").stderr
    run("run", "suite.yaml")
    assert "evaluation/handbook@v1" in run("list").stdout
    assert "abstention" in run("show", "handbook").stdout
    assert run_json("show", "handbook@v1")["verdict"] == "pass"
    assert run_json("show", "handbook", "--case", "leave")[0]["case"]["id"] == "leave"
    assert "28 days" in run("show", "handbook", "--case", "leave").stdout
    assert "did you mean 'leave'" in run("show", "handbook", "--case", "leaves", code=1).stderr


def test_schema_is_printed() -> None:
    assert "exact_match" in run("schema").stdout


def test_reports_are_written_beside_a_run_and_again_from_the_store() -> None:
    words = ("--html", "out/page.html", "--junit", "out/junit.xml", "--markdown", "out/pull.md")
    run("run", "suite.yaml", *words)
    written = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert set(written) == {"page.html", "junit.xml", "pull.md"}
    for path in Path("out").iterdir():
        path.unlink()
    run("report", "handbook", *words)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == written
    assert b"How many days of paid leave" not in written["junit.xml"]
    assert b"handbook.cases" in written["junit.xml"]


def test_report_lists_what_was_lost_against_the_baseline_also_from_the_store() -> None:
    gate = {"metric: abstention, floor: 0.3": "metric: contains, margin: 0.9"}
    write_suite(0.3, **gate)
    run("run", "suite.yaml", code=2)  # there is no baseline yet
    Path("documents", "leave.md").write_text("Leave is a matter of trust.", encoding="utf-8")
    assert CliRunner().invoke(app, ["ingest", "documents", "-c", "handbook"]).exit_code == 0
    words = ("--baseline", "handbook@v1", "--html", "now.html", "--markdown", "now.md")
    run("run", "suite.yaml", *words)
    page = Path("now.html").read_text(encoding="utf-8")
    lost = page[page.index("Lost against the baseline") :]
    assert "How many days of paid leave" in lost[: lost.index("</details>")]
    assert "contains 1 to 0" in Path("now.md").read_text(encoding="utf-8")
    run("report", "handbook", "--html", "again.html")
    assert Path("again.html").read_text(encoding="utf-8") == page


def write_errors(name: str, wrong: int, cases: int = 500) -> str:
    path = Path(f"{name}.jsonl")
    rows = (json.dumps({"error": int(number < wrong)}) for number in range(cases))
    path.write_text("\n".join(rows), encoding="utf-8")
    return path.name


def test_diagnosis_of_files_names_the_largest_part_and_what_helps() -> None:
    counts = {"train": 15, "train-val": 25, "test-val": 120, "test": 125}
    sets = [
        word for name, wrong in counts.items() for word in (f"--{name}", write_errors(name, wrong))
    ]
    found = run_json("diagnose", *sets, "--best", "0.02")
    shares = {part["source"]: part["share"]["estimate"] for part in found["parts"]}
    assert shares == pytest.approx(
        {
            "irreducible": 0.02,
            "avoidable bias": 0.01,
            "variance": 0.02,
            "shift": 0.19,
            "validation overfitting": 0.01,
        }
    )
    assert "shift: train on cases like those that will come" in found["summary"]
    text = run("diagnose", *sets).stdout
    assert "--best takes it out" in text
    assert "train on cases like those" in text
    told = run("diagnose", *sets[:-1], "nosuch.jsonl", code=1).stderr
    assert "No file of errors 'nosuch.jsonl'" in told


def test_diagnosis_of_an_evaluation_reads_its_slices() -> None:
    rows = [
        {"id": str(number), "question": "?", "answer": "yes", "set": number % 4}
        for number in range(80)
    ]
    Path("cases.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    slices = "\n".join(f"  - {{name: s{n}, where: {{set: {n}}}}}" for n in range(4))
    Path("suite.yaml").write_text(
        "name: sets\ndataset: {file: cases.jsonl}\ntarget: {kind: constant, text: 'yes'}\n"
        f"metrics: [exact_match]\nslices:\n{slices}\n"
    )
    run("run", "suite.yaml")
    names = zip(("--train", "--train-val", "--test-val", "--test"), range(4), strict=True)
    sets = [word for option, n in names for word in (option, f"s{n}")]
    found = run_json("diagnose", "sets", *sets, "--metric", "exact_match")
    assert found["error"]["estimate"] == 0
    assert "with --metric" in run("diagnose", "sets", *sets, code=1).stderr
    assert "of an evaluation" in run("diagnose", *sets, "--metric", "exact_match", code=1).stderr
    words = ("diagnose", "sets", *sets[:-1], "s9", "--metric", "exact_match")
    assert "No slice 's9'" in run(*words, code=1).stderr


def test_labels_of_a_file_are_inspected() -> None:
    rows = [
        {
            "id": f"r{number}",
            "label": "ham" if number % 2 != (number % 40 == 0) else "spam",
            "probabilities": {"ham": 0.9, "spam": 0.1} if number % 2 else {"ham": 0.1, "spam": 0.9},
            "ann": "ham" if number % 2 else "spam",
            "bob": "ham" if number % 2 or number % 10 == 0 else "spam",
        }
        for number in range(200)
    ]
    Path("labels.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ("labels", "labels.jsonl", "--annotator", "ann", "--annotator", "bob")
    found = run_json(*words)
    assert {each["row"] for each in found["suspects"]} == {f"r{n}" for n in range(0, 200, 40)}
    assert {(each["label"], each["suggested"]) for each in found["suspects"]} == {("ham", "spam")}
    assert found["pairs"][0]["agreement"]["kappa"]["estimate"] == pytest.approx(0.8)
    text = run(*words, "--most", "2").stdout
    assert "5 of 200 labels are doubtful" in text
    assert text.count("spam") == 2
    assert "good enough" in text
    assert "No file of labels" in run("labels", "label.jsonl", code=1).stderr


def test_report_without_a_file_is_a_page_named_after_the_evaluation() -> None:
    run("run", "suite.yaml")
    run("report", "handbook@v1")
    page = Path("handbook-v1.html").read_text(encoding="utf-8")
    assert "evaluation/handbook@v1" in page


def test_reports_are_written_when_a_gate_fails() -> None:
    write_suite(0.99)
    words = ["eval", "run", "suite.yaml", "--underpowered", "--junit", "junit.xml"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code in {1, 2}
    assert b"<failure" in Path("junit.xml").read_bytes()
