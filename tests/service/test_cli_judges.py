"""`ragstone eval judge`, and suites whose gates rest on judges, over real HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from judge_server import JudgeServer, by_words, judging
from running_server import start
from service.cli.entry import app

WORDS = ("one", "two", "three", "four")
"""Of a reference; how many of them an answer has makes its score, 1 to 5."""
SUITE = """
name: counted
dataset: {file: cases.jsonl}
target: {kind: recorded, file: outputs.jsonl}
calls: calls
metrics:
  - {metric: judge_rubric, name: right, with: {model: rules}}
gates:
  - {metric: right, floor: 0.5}
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    with judging() as found:
        monkeypatch.setenv("JUDGE_URL", found.url.removesuffix("/v1"))
        yield found


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    reference = " ".join(WORDS)
    cases = [{"id": f"q{n}", "question": f"Count {n}.", "answer": reference} for n in range(40)]
    write("cases.jsonl", cases)
    write("outputs.jsonl", [{"id": row["id"], "text": " ".join(WORDS[:3])} for row in cases])
    write("labels.jsonl", labels())
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")


def labels(count: int = 120) -> list[dict[str, Any]]:
    """People say what the rules say, but one time in twelve."""
    return [
        {
            "id": f"l{n}",
            "question": "Count.",
            "answer": " ".join(WORDS),
            "output": " ".join(WORDS[: n % 5]) or "nothing",
            "label": 1 + (n % 5 if n % 12 else (n + 1) % 5),
        }
        for n in range(count)
    ]


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["eval", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def agree(*words: str, model: str = "rules") -> Any:
    return run_json("judge", "agree", "labels.jsonl", "--model", model, *words)


def kept(version: str, folder: str) -> dict[str, bytes]:
    result = CliRunner().invoke(app, ["artifacts", "checkout", version, folder])
    assert result.exit_code == 0, result.stderr
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.usefixtures("server")
def test_card_says_how_far_a_judge_agrees_with_people() -> None:
    card = agree()
    assert card["agreement"]["items"] == card["planned"] == 120
    assert card["agreement"]["share"] == pytest.approx(110 / 120)
    kappa = card["agreement"]["kappa"]
    assert 0.6 < kappa["low"] < kappa["estimate"] < kappa["high"] < 1
    assert card["objection"] == ""
    assert sum(count for *_, count in card["confusion"]) == 120
    files = kept(card["card"], "card")
    rows = [json.loads(line) for line in files["rated.jsonl"].splitlines()]
    assert [(row["label"], row["judge"]) for row in rows[:3]] == [
        ("2", "1"),
        ("2", "2"),
        ("3", "3"),
    ]
    assert json.loads(files["card.json"])["rubric"]["name"] == "correctness"
    assert [row["card"] for row in run_json("judge", "cards")] == [card["card"]]
    said = run("judge", "agree", "labels.jsonl", "--model", "rules").stdout
    assert "may decide a gate" in said
    assert f"kept as {card['card']}" in said


@pytest.mark.usefixtures("server")
def test_what_is_scored_without_the_judge_says_nothing_of_it() -> None:
    refusals = [
        {**row, "id": f"r{n}", "output": "I do not know."} for n, row in enumerate(labels())
    ]
    write("labels.jsonl", [*labels(), *({**row, "label": 1} for row in refusals)])
    card = agree()
    assert card["agreement"]["items"] == card["planned"] == 120
    assert card["agreement"]["share"] == pytest.approx(110 / 120)
    rows = [json.loads(line) for line in kept(card["card"], "card")["rated.jsonl"].splitlines()]
    assert [row["judge"] for row in rows if row["id"].startswith("r")] == [None] * 120
    write("labels.jsonl", refusals)
    said = run("judge", "agree", "labels.jsonl", "--model", "rules", code=1).stderr
    assert "was asked of none of 120 outputs" in said


@pytest.mark.usefixtures("server")
def test_pairs_that_are_settled_without_the_judge_say_nothing_of_it() -> None:
    rows = [
        {
            "id": f"p{n}",
            "question": "one two three",
            "output": "one two" if n % 3 else "one",
            "other": ["one", "I do not know.", "one two"][n % 3],
            "label": ["tie", "output", "tie"][n % 3],
        }
        for n in range(120)
    ]
    asked = {**rows[0], "output": "one two", "other": "two"}
    more = [{**asked, "id": label, "label": label} for label in ("output", "tie")]
    write("labels.jsonl", [*rows, *more])
    card = agree("--rubric", "preference")
    assert card["agreement"]["items"] == card["planned"] == 2


def test_same_labels_are_not_rated_twice_and_make_the_same_card(server: JudgeServer) -> None:
    first = agree()
    asked = len(server.asked)
    assert asked
    assert agree() == first
    assert len(server.asked) == asked


def test_gate_on_a_judge_is_refused_before_the_run_until_it_is_proven(server: JudgeServer) -> None:
    for command in ("run", "validate"):
        said = run(command, "suite.yaml", code=3 if command == "run" else 1).stderr
        assert "nobody has held it against people" in said
        assert "ragstone eval judge agree LABELS --rubric correctness --model rules;" in said
    assert not server.asked
    card = agree()
    found = run_json("run", "suite.yaml")
    assert found["verdict"] == "pass"
    lineage = CliRunner().invoke(app, ["artifacts", "lineage", found["evaluation"], "--json"])
    assert card["card"].split("@")[0] in lineage.stdout


def test_judge_that_disagrees_decides_nothing(server: JudgeServer) -> None:
    server.rate = lambda shown, _: {"reasoning": "", "score": 1 + len(shown["answer"]) % 5}
    card = agree()
    assert card["agreement"]["kappa"]["low"] < 0.6
    assert "0.6 is needed" in card["objection"]
    asked = len(server.asked)
    assert "0.6 is needed" in run("run", "suite.yaml", code=3).stderr
    assert len(server.asked) == asked
    said = run("judge", "agree", "labels.jsonl", "--model", "rules").stdout
    assert "may not decide a gate" in said


def test_judge_that_leaves_out_what_is_hard_decides_nothing(server: JudgeServer) -> None:
    def rate(shown: dict[str, str], seed: int) -> dict[str, Any]:
        rating = by_words(shown, seed)
        return {**rating, "score": 9} if shown["answer"] == "one two" else rating

    server.rate = rate
    write("labels.jsonl", labels(160))
    card = agree()
    assert card["unrated"] == {"error": 32}
    assert "rated 80.0% of the labels" in card["objection"]
    assert "rated 80.0% of the labels" in run("run", "suite.yaml", code=3).stderr


def test_another_model_or_rubric_has_no_card_yet(server: JudgeServer) -> None:
    agree(model="another")
    run("judge", "show", "correctness")
    text = run("judge", "show", "correctness").stdout
    Path("mine.yaml").write_text(text.replace("name: correctness", "name: mine"), "utf-8")
    agree("--rubric", "mine.yaml")
    said = run("run", "suite.yaml", code=3).stderr
    assert "nobody has held it against people" in said
    Path("suite.yaml").write_text(SUITE.replace("rules}", "rules, rubric: mine.yaml}"), "utf-8")
    assert run_json("run", "suite.yaml")["verdict"] == "pass"
    Path("mine.yaml").write_text(Path("mine.yaml").read_text() + "# a word\n", "utf-8")
    assert run_json("run", "suite.yaml")["verdict"] == "pass"  # a comment is not told to judges
    changed = Path("mine.yaml").read_text().replace("not style", "neither style")
    Path("mine.yaml").write_text(changed, "utf-8")
    said = run("run", "suite.yaml", code=3).stderr
    assert "--rubric mine.yaml --model rules" in said


def test_golden_cases_may_be_judged_by_a_rubric_of_ones_own(server: JudgeServer) -> None:
    text = run("judge", "show", "correctness").stdout
    Path("mine.yaml").write_text(text.replace("name: correctness", "name: mine"), "utf-8")
    golden = "checks: [{check: golden, with: {metric: right, at_least: 0.7}, action: warn}]\n"
    suite = SUITE.replace("rules}", "rules, rubric: mine.yaml}").partition("gates:")[0] + golden
    Path("suite.yaml").write_text(suite, "utf-8")
    [finding] = run_json("run", "suite.yaml")["findings"]
    assert (finding["verdict"], finding["reason"]) == ("pass", "all 40 golden trials are right")


def test_stored_rubric_is_a_version(server: JudgeServer) -> None:
    text = run("judge", "show", "helpfulness").stdout.replace("name: helpfulness", "name: kind")
    Path("kind.yaml").write_text(text, "utf-8")
    stored = run_json("judge", "put", "kind.yaml")
    assert stored["reference"] == "rubric/kind@v1"
    rows = {row["rubric"]: row["digest"] for row in run_json("judge", "rubrics")}
    assert rows["rubric/kind@v1"] == stored["digest"]
    assert set(rows) >= {"correctness", "preference"}
    assert run("judge", "show", "kind@v1").stdout == text
    server.rate = lambda *_: {"reasoning": "", "score": 4}
    suite = SUITE.replace("rules}", "rules, rubric: rubric/kind@v1}").partition("gates:")[0]
    Path("suite.yaml").write_text(suite, "utf-8")
    assert run_json("run", "suite.yaml")["metrics"][0]["mean"] == 0.75
    Path("wrong.yaml").write_text(text.replace("scale:", "scales:"), "utf-8")
    assert "did you mean 'scale'" in run("judge", "put", "wrong.yaml", code=1).stderr
    missing = SUITE.replace("rules}", "rules, rubric: rubric/kindly@v1}")
    Path("suite.yaml").write_text(missing, "utf-8")
    assert "kindly" in run("run", "suite.yaml", code=3).stderr


def test_suite_with_its_calls_runs_again_without_a_judge(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    agree()
    first = run_json("run", "suite.yaml")
    files = kept(first["evaluation"], "first")
    asked = len(server.asked)
    monkeypatch.delenv("JUDGE_URL")
    shutil.copytree(".ragstone", "elsewhere")
    shutil.rmtree(".ragstone/evaluations")
    again = run_json("run", "suite.yaml")
    same = kept(again["evaluation"], "again")
    for name in ("trials.jsonl", "summary.json", "evaluation.json"):
        assert same[name] == files[name]
    assert len(server.asked) == asked
    shutil.rmtree("calls")
    assert run_json("run", "suite.yaml", code=3)["verdict"] == "infrastructure"


def test_judge_that_is_down_is_no_verdict(server: JudgeServer) -> None:
    agree()
    server.status = 400
    found = run_json("run", "suite.yaml", code=3)
    assert found["verdict"] == "infrastructure"
    assert found["metrics"][0]["error"] == 40
    assert found["metrics"][0]["mean"] is None


def test_answers_are_preferred_to_those_of_the_baseline(server: JudgeServer) -> None:
    suite = SUITE.replace("judge_rubric, name: right", "judge_pairwise, name: better").replace(
        "rules}", "rules, against: baseline}"
    )
    suite = suite.replace("{metric: right,", "{metric: better, action: warn,")
    suite += "seed: 3\n"
    Path("suite.yaml").write_text(suite, "utf-8")
    first = run_json("run", "suite.yaml")
    assert first["metrics"][0]["unscored"] == 40
    rows = [{"id": f"q{n}", "text": "Count " + "0123456789"[: n % 3]} for n in range(40)]
    write("outputs.jsonl", [{**row, "text": f"Count {n}."} for n, row in enumerate(rows)])
    found = run_json("run", "suite.yaml", "--baseline", first["evaluation"])
    assert found["metrics"][0]["mean"] == 1.0
    assert found["metrics"][0]["scored"] == 40
    assert len(server.asked) == 80


def test_pairs_are_labelled_by_which_is_better(server: JudgeServer) -> None:
    rows = [
        {
            "id": f"p{n}",
            "question": "one two three",
            "output": ["one two", "one", "two"][n % 3],
            "other": ["one", "two one", "three"][n % 3],
            "label": ["output", "other", "tie"][n % 3],
        }
        for n in range(120)
    ]
    write("labels.jsonl", rows)
    card = agree("--rubric", "preference")
    assert card["agreement"]["share"] == 1.0
    assert card["position_inconsistency"] == 0.0
    assert card["weights"] == "none"
    server.rate = lambda *_: {"reasoning": "", "better": "first"}
    card = agree("--rubric", "preference", "--with", "samples=3", "--with", "temperature=0.5")
    assert card["position_inconsistency"] == 1.0
    assert card["agreement"]["kappa"]["estimate"] == 0.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": 6}, "the label 6; the rubric 'correctness' has 1, 2, 3, 4, 5"),
        ({"label": None}, "the label None"),
        ({"label": True}, "the label True"),
        ({"output": ""}, "in the column 'output'"),
        ({"passages": 7}, "passages is 7"),
    ],
)
def test_row_that_is_no_label_is_told(change: dict[str, Any], said: str) -> None:
    write("labels.jsonl", [*labels(), {**labels(1)[0], "id": "wrong", **change}])
    found = run("judge", "agree", "labels.jsonl", "--model", "rules", code=1).stderr
    assert "Case 'wrong'" in found
    assert said in found


def test_wrong_options_are_told() -> None:
    words = ("judge", "agree", "labels.jsonl", "--model", "rules")
    assert "no NAME=VALUE" in run(*words, "--with", "samples", code=2).stderr
    assert "unknown key 'sampels'" in run(*words, "--with", "sampels=3", code=1).stderr
    assert "did you mean 'correctness'" in run(*words, "--rubric", "corectness", code=1).stderr
    assert "labels.json" in run("judge", "agree", "labels.json", "--model", "m", code=1).stderr


@pytest.mark.usefixtures("server")
def test_people_who_always_say_the_same_tell_nothing() -> None:
    same = {"output": "one two three four", "label": 5}
    write("labels.jsonl", [{**row, **same} for row in labels()])
    said = run("judge", "agree", "labels.jsonl", "--model", "rules", code=1).stderr
    assert "kappa is not defined" in said


def test_model_that_is_served_here_can_judge(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstreams = {"main": {"urls": [server.url.removesuffix("/v1")]}}
    routes = {"our-judge": {"targets": [{"upstream": "main", "model": "rules"}]}}
    (tmp_path / "served").mkdir()
    running = start(
        tmp_path / "served",
        RAGSTONE_GATEWAY__UPSTREAMS=json.dumps(upstreams),
        RAGSTONE_GATEWAY__ROUTES=json.dumps(routes),
    )
    try:
        running.wait_until_ready()
        monkeypatch.setenv("JUDGE_URL", running.url)
        card = agree(model="our-judge")
    finally:
        running.stop()
    assert card["model"] == "our-judge"
    assert card["agreement"]["items"] == 120
    asked = server.asked[0]
    assert asked["model"] == "rules"
    assert asked["response_format"]["json_schema"]["strict"] is True
