"""What goes wrong in `ragstone eval run`: the exit code, and one line that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.contracts import Interaction
from judge_server import JudgeServer, judging
from service.cli.entry import app
from service.cli.session import opened

pytestmark = pytest.mark.usefixtures("migrated_here")
WORDS = ("one", "two", "three", "four")
SUITE = """
name: counted
dataset: {file: cases.jsonl, fields: {answer_field}}
target: {kind: constant, text: one two three}
metrics: [METRICS]
gates:
  - {metric: GATED, floor: 0.5}
"""
PLAIN = ("exact_match, contains", "contains")
RATED = ("{metric: judge_rubric, name: right, with: {model: rules}}", "right")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    with judging() as found:
        monkeypatch.setenv("JUDGE_URL", found.url.removesuffix("/v1"))
        yield found


@pytest.fixture(autouse=True)
def _files() -> None:
    write_cases()
    write_suite(*PLAIN)


def write_cases(**changed: Any) -> None:
    rows = [
        {"id": f"q{n}", "question": f"Count {n}.", "answer": "two", "part": n % 2, **changed}
        for n in range(40)
    ]
    write("cases.jsonl", rows)


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def write_suite(metrics: str, gated: str, more: str = "") -> None:
    text = SUITE.replace("METRICS", metrics).replace("GATED", gated)
    Path("suite.yaml").write_text(text.replace("{answer_field}", "{}") + more, encoding="utf-8")


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def evaluate(*words: str, code: int) -> Any:
    return json.loads(run("eval", "run", "suite.yaml", *words, "--json", code=code).stdout)


def refusal(*words: str) -> str:
    """Return the one line that a run that cannot be made prints; nothing is kept."""
    before = len(json.loads(run("eval", "list", "--json").stdout))
    told: str = run("eval", "run", "suite.yaml", *words, code=3).stderr.strip()
    assert told.startswith("ragstone: ")
    assert "\n" not in told
    assert len(json.loads(run("eval", "list", "--json").stdout)) == before
    return told


def garbage(server: JudgeServer) -> None:
    server.says = "Well, I would say four out of five!"


def silence(server: JudgeServer) -> None:
    server.seconds = 1.0


def decline(server: JudgeServer) -> None:
    server.says, server.message = "", {"refusal": "I would rather not."}


@pytest.mark.parametrize(
    ("fault", "state", "words"),
    [
        (garbage, "error", "I would say four"),
        (silence, "error", "did not answer within 0.5 s"),
        (decline, "refused", "I would rather not."),
    ],
)
def test_judge_that_fails_scores_nothing_loses_no_case_and_gives_no_verdict(
    fault: Callable[[JudgeServer], None], state: str, words: str, server: JudgeServer
) -> None:
    prove_judge()
    seconds = "judge_seconds: 0.5" if fault is silence else "judge_seconds: 60"
    metric, gated = RATED
    write_suite(metric.replace("model: rules", f"model: rules, {seconds}"), gated)
    fault(server)
    found = evaluate(code=3)
    assert found["verdict"] == "infrastructure"
    [decision] = found["decisions"]
    assert "0 of 40" in decision["reason"] or "0.0%" in decision["reason"]
    [row] = found["metrics"]
    assert (row["mean"], row["scored"], row[state]) == (None, 0, 40)
    assert found["failures"] == 0  # the outputs are all there
    told = run("eval", "show", "counted", "--case", "q7").stdout
    assert f"right: {state} (" in told
    assert words in told


def test_run_is_repeated_without_its_judge_to_the_byte(server: JudgeServer) -> None:
    prove_judge()
    write_suite(*RATED)
    assert evaluate(code=0)["verdict"] == "pass"
    asked = len(server.asked)
    server.status = 500  # as good as gone
    evaluate(code=0)
    assert len(server.asked) == asked
    first, second = (kept(f"evaluation/counted@v{number}") for number in (1, 2))
    assert set(first) >= {"trials.jsonl", "summary.json", "evaluation.json"}
    for name in ("trials.jsonl", "summary.json", "evaluation.json"):
        assert first[name] == second[name]


def test_unknown_metric_is_named_with_its_line() -> None:
    write_suite("exact_mach", "exact_mach")
    told = refusal()
    assert "suite.yaml, line 5: metrics.0.metric: unknown metric 'exact_mach'" in told
    assert told.endswith("did you mean 'exact_match'?")
    write_suite("", "exact_match")
    assert "metrics: needs 1 at least, not []" in run("eval", "run", "suite.yaml", code=3).stderr


def test_empty_slice_is_named() -> None:
    write_suite(*PLAIN, "slices:\n  - {name: odd, where: {part: 7}}\n")
    assert "Slice 'odd' is empty: no case of 'cases.jsonl' has part = 7" in refusal()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"question": ""}, "cases.jsonl, line 4: 'question' is empty"),
        ({"question": None}, "cases.jsonl, line 4: 'question' is empty"),
        ({"id": "q0"}, "cases.jsonl, line 4: the id 'q0' is that of cases.jsonl, line 1 too"),
        ({"answerable": "perhaps"}, "cases.jsonl, line 4: answerable is 'perhaps'"),
    ],
)
def test_row_that_lacks_what_a_case_needs_is_named(changed: dict[str, Any], words: str) -> None:
    rows = [json.loads(line) for line in Path("cases.jsonl").read_text().splitlines()]
    rows[3] |= changed
    write("cases.jsonl", rows)
    assert words in refusal()


def test_columns_that_are_missing_are_named_with_the_nearest() -> None:
    rows = [json.loads(line) for line in Path("cases.jsonl").read_text().splitlines()]
    write("cases.jsonl", [{"queston": row.pop("question"), **row} for row in rows])
    told = refusal()
    assert "cases.jsonl, line 1: no column 'question'" in told
    assert "'queston'" in told
    write_cases()
    text = Path("suite.yaml").read_text().replace("fields: {}", "fields: {expected: anser}")
    Path("suite.yaml").write_text(text)
    assert "No row has the column 'anser' of `expected`; did you mean 'answer'?" in refusal()


def test_case_without_a_reference_is_unscored_and_never_a_zero() -> None:
    rows = [json.loads(line) for line in Path("cases.jsonl").read_text().splitlines()]
    for row in rows[:10]:
        del row["answer"]
    write("cases.jsonl", rows)
    found = evaluate(code=3)
    assert found["verdict"] == "infrastructure"  # 30 of 40 are less than 98 %
    row = next(row for row in found["metrics"] if row["metric"] == "contains")
    assert (row["mean"], row["scored"], row["unscored"]) == (1.0, 30, 10)


def test_baseline_of_another_version_of_the_dataset_is_named() -> None:
    run("datasets", "put", "cases.jsonl", "counts")
    text = Path("suite.yaml").read_text()
    source = "{file: cases.jsonl, fields: {}}"
    assert source in text
    text = text.replace("{metric: contains, floor: 0.5}", "{metric: contains, margin: 0.2}")
    Path("suite.yaml").write_text(text.replace(source, "{artifact: dataset/counts@v1}"))
    evaluate(code=2)
    assert evaluate("--baseline", "counted@v1", code=0)["verdict"] == "pass"
    write_cases(answer="three")
    run("datasets", "put", "cases.jsonl", "counts")
    Path("suite.yaml").write_text(text.replace(source, "{artifact: dataset/counts@v2}"))
    told = refusal("--baseline", "counted@v1")
    assert "The baseline was run on other cases: 'dataset/counts@v1'" in told
    assert "'dataset/counts@v2' as it is now; run the baseline again on these" in told


def prove_judge() -> None:
    """Hold the judge against people, so that gates may rest on it."""
    rows = [
        {
            "id": f"l{n}",
            "question": "Count.",
            "answer": " ".join(WORDS),
            "output": " ".join(WORDS[: n % 5]) or "nothing",
            "label": 1 + n % 5,
        }
        for n in range(120)
    ]
    write("labels.jsonl", rows)
    run("eval", "judge", "agree", "labels.jsonl", "--model", "rules")


def kept(version: str) -> dict[str, bytes]:
    folder = version.replace("/", "-")
    run("artifacts", "checkout", version, folder)
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_recorded_calls_are_compared_from_the_time_that_is_given() -> None:
    with opened() as parts:
        for day, said in ((1, "It was three."), (2, "It is two.")):
            for number in range(30):
                for tag, text in (("live", "It is two."), ("shadow", said)):
                    at = datetime(2026, 1, day, 12, number, tzinfo=UTC)
                    id_ = f"{tag}-{day}-{number}"
                    answered = Interaction(id_, "completion", at, "support", "answered", 200)
                    parts.interactions.add(
                        replace(
                            answered,
                            tag=tag,
                            request_id=f"{day}-{number}",
                            content={"answer": text},
                        )
                    )
        parts.interactions.flush()
    checks = "checks: [{check: shadow, with: {model: support, agreement: 0.7}}]\n"
    write_suite(*PLAIN, more=checks)
    [finding] = evaluate(code=1)["findings"]
    assert finding["evidence"][0] == ["answered by both", "60"]
    [finding] = evaluate("--since", "2026-01-02", code=0)["findings"]
    assert finding["evidence"][:2] == [
        ["since", "2026-01-02T00:00:00+00:00"],
        ["answered by both", "30"],
    ]
    write_suite(*PLAIN)
    assert "the suite has none" in refusal("--since", "2026-01-02")
