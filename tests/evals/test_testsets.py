"""Test sets: questions by templates, review states, what was asked, and leakage into training."""

from __future__ import annotations

import random
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.testsets import asked, grounded, leakage, review, templates
from evals.trial import Case, Output
from infra.contracts import Interaction, Passage
from infra.errors import InvalidRequest, NotFound
from scripted_evals import Scripted, carry_out, make_plan, right, write_rows

BRIDGE = (
    "The Arno bridge was opened in May 1890. It is painted every year. "
    "The bridge has 48 arches of stone. The bridge was designed by Ada Lane. "
    "The Arno bridge is a crossing for trains and people. Nothing else is known."
)


def passage(text: str, number: int = 1, **changes: Any) -> Passage:
    given: dict[str, Any] = {
        "chunk_id": number,
        "document_id": f"file-{number}",
        "document_version": 1,
        "collection": "bridges",
        "source": f"file:///docs/{number}.md",
        "title": "",
        "start_char": 0,
        "end_char": len(text),
        "text": text,
        "score": 0.0,
    }
    return Passage(**{**given, **changes})


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        (
            "The Arno bridge was opened in May 1890.",
            "When was the Arno bridge opened?",
            "May 1890",
        ),
        (
            "Employees have 28 days of paid leave a year.",
            "How many days of paid leave a year do employees have?",
            "28",
        ),
        ("The bridge was designed by Ada Lane.", "By whom was the bridge designed?", "Ada Lane"),
        (
            "The archive is kept in the cellar of hall 3.",
            "What is left out here: “The archive is kept in the cellar of hall ____.”",
            "3",
        ),
        ("The old pump was stored in the yard.", "Where was the old pump stored?", "in the yard"),
        (
            "The Arno bridge is a crossing for trains and people.",
            "What is the Arno bridge?",
            "a crossing for trains and people",
        ),
        ("Paris was taken on 25 August 1944 again.", "When was Paris taken?", "25 August 1944"),
    ],
)
def test_templates_ask_for_what_a_sentence_states(
    sentence: str, question: str, answer: str
) -> None:
    found = templates.ask(sentence, f"{sentence} All employees know.")[0]
    assert found.question == question
    assert sentence[found.start : found.end] == answer


@pytest.mark.parametrize(
    "sentence",
    [
        "It was opened in May 1890 by the king.",
        "This is a sentence about nothing in particular.",
        "However, the bridge has 48 arches.",
        "Among the largest bridges is the one at Arno.",
        "The reason for this shift is a change of mind.",
        "Is the bridge a crossing for trains?",
        "The bridge",
        "",
        "a" * 5_000,
        "The bridge has 48 arches\nand stands.",
    ],
)
def test_what_means_nothing_by_itself_is_not_asked_about(sentence: str) -> None:
    assert templates.ask(sentence) == []


@given(st.text(max_size=300), st.text(max_size=50))
def test_no_text_makes_templates_crash_and_answers_lie_within(sentence: str, around: str) -> None:
    for found in templates.ask(sentence, around):
        assert 0 <= found.start < found.end <= len(sentence)


def test_cases_name_document_chunk_and_the_span_of_their_answer() -> None:
    start = 1_000
    rows = grounded.propose([passage(BRIDGE, 7, start_char=start)], 5)
    assert len(rows) == 1
    row = rows[0]
    assert (row["document"], row["chunk"], row["relevant"]) == ("file-7", 7, "file:///docs/7.md")
    assert row["cluster"] == "file-7"
    assert row["answerable"] is True
    assert row["review_state"] == "proposed"
    answer = BRIDGE[row["answer_start"] - start : row["answer_end"] - start]
    assert answer == row["answer"] == "May 1890"
    evidence = BRIDGE[row["evidence_start"] - start : row["evidence_end"] - start]
    assert evidence == row["evidence"]
    assert row["answer"] in evidence


def test_sentence_that_a_chunk_cut_at_its_beginning_is_not_asked_about() -> None:
    cut = "bridge was opened in May 1890. The pump has 3 valves of brass."
    rows = grounded.propose([passage(cut, start_char=500)], 5)
    assert [row["answer"] for row in rows] == ["3"]


def test_no_document_has_more_cases_than_allowed() -> None:
    many = [passage(f"The bridge {n} was opened in {1800 + n}.", 1) for n in range(20)]
    assert len(grounded.propose(many, 10, per_document=4)) == 4


def test_blanks_are_taken_only_where_questions_are_lacking() -> None:
    blank = passage("Trains leave from platform 4 every hour.", 2)
    question = passage("The bridge was opened in 1890.", 3)
    both = grounded.propose([blank, question], 2)
    assert [row["template"] for row in both] == ["when", "blank"]
    assert [row["template"] for row in grounded.propose([blank, question], 1)] == ["when"]


def test_same_documents_give_the_same_ids_whatever_their_numbers() -> None:
    one = grounded.propose([passage(BRIDGE, 7)], 1)
    other = grounded.propose([passage(BRIDGE, 7, chunk_id=99, document_id="file-x")], 1)
    assert [row["id"] for row in one] == [row["id"] for row in other]


def test_questions_whose_words_the_documents_hold_are_not_unanswerable() -> None:
    foreign = [
        passage("The Arno bridge was opened in May 1890.", 1),
        passage("The Vela telescope was launched in 1977.", 2),
    ]
    known = grounded.words(BRIDGE)
    rows = grounded.propose_unanswerable(foreign, 5, known=known)
    assert [row["question"] for row in rows] == ["When was the Vela telescope launched?"]
    assert rows[0]["answerable"] is False
    assert "answer" not in rows[0]
    assert "relevant" not in rows[0]


def interaction(number: int, question: str | None, **changes: Any) -> Interaction:
    content = None if question is None else {"question": question, "answer": "Ask ada@example.org."}
    given: dict[str, Any] = {
        "id": f"answer-{number}",
        "kind": "answer",
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "model": "rag/handbook",
        "outcome": "answered",
        "status": 200,
        "content": content,
    }
    return Interaction(**{**given, **changes})


def test_what_was_asked_is_masked_and_has_no_right_answer_yet() -> None:
    rows = asked.propose([interaction(1, "May ada@example.org take leave?")], 5)
    assert rows[0]["question"] == "May <email> take leave?"
    assert rows[0]["said"] == "Ask <email>."
    assert "answer" not in rows[0]
    assert rows[0]["review_state"] == "proposed"


def test_what_was_asked_twice_or_nearly_is_proposed_once() -> None:
    long = "How many days of paid leave does an employee of the northern office have in a year"
    items = [
        interaction(1, f"{long}?"),
        interaction(2, f"  {long.upper()} ?"),
        interaction(3, f"{long} now?"),
        interaction(4, "Who approves flights?"),
        interaction(5, None),
        interaction(6, "   "),
    ]
    rows = asked.propose(items, 10)
    assert len(rows) == 2
    assert "Who approves flights?" in {row["question"] for row in rows}


def test_questions_that_are_one_once_they_are_masked_are_proposed_once() -> None:
    who = ["ada@example.org", "bob.miller@example.com"]
    items = [interaction(n, f"May {each} take leave?") for n, each in enumerate(who)]
    (row,) = asked.propose(items, 5)
    assert row["question"] == "May <email> take leave?"


def test_sample_of_what_was_asked_depends_on_the_seed_and_not_on_the_order() -> None:
    items = [interaction(n, f"What is the number {n * 7919} of pump {n}?") for n in range(60)]
    one = asked.propose(items, 10, seed=3)
    assert len(one) == 10
    assert asked.propose(random.Random(1).sample(items, 60), 10, seed=3) == one
    assert asked.propose(items, 10, seed=4) != one


def test_file_keeps_what_was_decided_and_its_mode(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [{"id": "a", "review_state": "proposed"}, {"id": "b"}])
    path.chmod(0o640)
    rows = review.read(path)
    review.decide(rows, ["a"], "accepted")
    review.edit(rows, "b", {"question": "New?", "answer": "Yes"})
    review.write(path, rows)
    assert review.read(path) == [
        {"id": "a", "review_state": "accepted"},
        {"id": "b", "question": "New?", "answer": "Yes", "review_state": "edited"},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_deciding_on_a_case_that_is_not_there_changes_nothing() -> None:
    rows: list[review.Row] = [{"id": "days"}]
    with pytest.raises(NotFound, match="did you mean 'days'"):
        review.decide(rows, ["days", "day"], "accepted")
    assert rows == [{"id": "days"}]


def test_answer_that_was_edited_stands_no_more_where_the_old_one_did() -> None:
    rows = grounded.propose([passage(BRIDGE)], 1)
    review.edit(rows, rows[0]["id"], {"answer": "in spring"})
    assert not {"answer_start", "answer_end"} & set(rows[0])


def test_building_again_keeps_what_was_decided() -> None:
    kept: list[review.Row] = [{"id": "a", "review_state": "rejected"}]
    proposed: list[review.Row] = [{"id": "a", "review_state": "proposed"}, {"id": "b"}]
    merged = review.merge(kept, [*proposed, {"id": "b", "question": "again?"}])
    assert merged == [{"id": "a", "review_state": "rejected"}, {"id": "b"}]


STATES = [
    {"id": state, "question": f"{state}?", "answer": "x", "review_state": state}
    for state in review.STATES
]


def test_only_what_was_accepted_runs(tmp_path: Path) -> None:
    write_rows(tmp_path, [*STATES, {"id": "plain", "question": "?", "answer": "x"}])
    plan = make_plan(tmp_path, Scripted(right))
    assert [case.id for case in plan.cases.cases] == ["accepted", "edited", "plain"]
    assert plan.cases.left_out == 2
    dataset = {"file": "cases.jsonl", "unreviewed": True}
    plan = make_plan(tmp_path, Scripted(right), dataset=dataset)
    assert [case.id for case in plan.cases.cases] == ["proposed", "accepted", "edited", "plain"]
    assert len(carry_out(plan, tmp_path).trials) == 4


def test_file_without_an_accepted_case_says_what_to_do(tmp_path: Path) -> None:
    write_rows(tmp_path, STATES[:1])
    with pytest.raises(InvalidRequest, match=r"None of the 1 cases .* ragstone eval review"):
        make_plan(tmp_path, Scripted(right))


def test_unknown_state_is_named_with_its_line(tmp_path: Path) -> None:
    write_rows(tmp_path, [STATES[1], {**STATES[1], "id": "b", "review_state": "ok"}])
    with pytest.raises(InvalidRequest, match=r"line 2: review_state is 'ok'; it is one of"):
        make_plan(tmp_path, Scripted(right))


def test_accepting_a_case_leaves_the_digest_of_the_cases_as_it_is(tmp_path: Path) -> None:
    write_rows(tmp_path, [STATES[1]])
    before = make_plan(tmp_path, Scripted(right)).described.dataset_digest
    write_rows(tmp_path, [{**STATES[1], "review_state": "edited"}])
    assert make_plan(tmp_path, Scripted(right)).described.dataset_digest == before


QUESTION = "How many days of paid leave do the employees of the northern office have in a year?"


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": QUESTION}, "exact"),
        ({"prompt": f"  {QUESTION.upper()[:-1]} !"}, "exact"),
        ({"messages": [{"role": "user", "content": QUESTION}]}, "exact"),
        ({"text": f"Context: nothing.\nQ: {QUESTION}\nA: 28"}, "contained"),
        ({"text": QUESTION.replace("in a year", "per year")}, "near"),
    ],
)
def test_leaks_are_found_however_they_are_written(row: Any, kind: str) -> None:
    cases = [Case("days", QUESTION, "28"), Case("other", "Who approves flights to Rome?", "Bo")]
    found = leakage.find(cases, [("row 1", {"text": "Hello."}), ("row 2", row)], similarity=0.6)
    assert [(leak.case, leak.kind, leak.row) for leak in found] == [("days", kind, "row 2")]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "28"},
        {"text": "How many days of leave are there?"},
        {"text": "The employees of the northern office have their own canteen in the yard."},
        {"text": None, "other": 28, "empty": ""},
    ],
)
def test_what_only_shares_words_or_the_answer_is_no_leak(row: Any) -> None:
    rows = [("row 1", row), ("row 2", {"text": "Hello."})]
    assert leakage.find([Case("days", QUESTION, "28")], rows) == []


UNSPACED = {
    "Chinese": "北部办公室的员工每年有多少天带薪休假？",
    "Japanese": "北部事務所の従業員は年に何日の有給休暇がありますか。",
    "Thai": "พนักงานสำนักงานภาคเหนือมีวันลากี่วันต่อปี",
    "mixed": "RAG系统的向量索引在2024年换了几次？",
}


@pytest.mark.parametrize("question", UNSPACED.values(), ids=UNSPACED)
@pytest.mark.parametrize("around", ["{}", "前言：{} 答案", "{}, so we asked."])
def test_questions_in_scripts_without_spaces_are_found_within_longer_texts(
    question: str, around: str
) -> None:
    cases = [Case("asked", question), Case("other", "谁批准去罗马的航班，什么时候，为什么？")]
    rows = [("row 1", {"text": "你好。" * 20}), ("row 2", {"text": around.format(question)})]
    kind = "exact" if around == "{}" else "contained"
    found = leakage.find(cases, rows)
    assert [(leak.case, leak.kind, leak.row) for leak in found] == [("asked", kind, "row 2")]


def test_few_characters_of_a_script_without_spaces_are_no_leak() -> None:
    question = "员工每年有多少天带薪休假呢"
    assert len(question) < 2 * leakage.WINDOW
    row = {"text": f"有人问：{question}，没有人知道答案是什么，也没有人去查。" * 3}
    assert leakage.find([Case("short", question)], [("row 1", row)]) == []
    assert leakage.find([Case("long", f"{question}，在北部呢")], [("row 1", row)]) == []


def test_near_question_in_a_script_without_spaces_is_found_though_commas_part_it() -> None:
    question = "北部办公室的员工，从明年一月起，每年，有多少天带薪休假，还有多少天病假？"
    row = {"text": question.replace("一月", "二月")}
    [leak] = leakage.find([Case("days", question)], [("row 1", row)], similarity=0.6)
    assert (leak.kind, 0.6 < leak.similarity < 0.9) == ("near", True)


FEATURES = Case("r1", {"age": 30, "job": "cook"})


@pytest.mark.parametrize(
    ("case", "rows", "why"),
    [
        (Case("days", QUESTION), [], "has no row"),
        (FEATURES, [], "has no row"),
        (Case("days", QUESTION), [{"n": 1}, {"n": 2, "text": " "}], "has a text; its first has n"),
        (Case("days", "?!"), [{"text": "Hello."}], "has a text"),
        (
            FEATURES,
            [{"Age": 30, "job": "cook"}, {"age": 30}],
            "has the fields age, job of cases; its first has Age, job",
        ),
    ],
)
def test_what_could_be_looked_for_in_no_row_is_not_told_as_free_of_leaks(
    case: Case, rows: list[Any], why: str
) -> None:
    numbered = [(f"row {number}", row) for number, row in enumerate(rows, 1)]
    with pytest.raises(InvalidRequest, match=why):
        leakage.find([case], numbered)


def test_worst_leak_of_each_case_is_told_in_the_order_of_cases() -> None:
    cases = [Case("b", QUESTION), Case("a", QUESTION), Case("c", "Who approves flights?")]
    rows = [
        ("row 1", {"text": QUESTION.replace("a year", "one year")}),
        ("row 2", {"text": QUESTION}),
        ("row 3", {"text": QUESTION}),
    ]
    found = leakage.find(cases, rows, similarity=0.5)
    assert [(leak.case, leak.kind, leak.row) for leak in found] == [
        ("b", "exact", "row 2"),
        ("a", "exact", "row 2"),
    ]


def test_rows_of_features_leak_by_their_values_however_numbers_are_written() -> None:
    cases = [Case("r1", {"age": 30, "job": "cook"}), Case("r2", {"age": 31, "job": "cook"})]
    rows = [
        ("row 1", {"job": "cook ", "age": 30.0, "label": 1}),
        ("row 2", {"job": "cook", "label": 1}),
    ]
    found = leakage.find(cases, rows)
    assert [(leak.case, leak.kind, leak.row) for leak in found] == [("r1", "exact", "row 1")]


def test_near_leaks_are_found_among_many_rows() -> None:
    draw = random.Random(0)
    vocabulary = [f"word{n}" for n in range(400)]

    def text() -> list[str]:
        return draw.choices(vocabulary, k=40)

    asked_for = [text() for _ in range(50)]
    rows = [("noise", {"text": " ".join(text())}) for _ in range(500)]
    for number, words in enumerate(asked_for):
        changed = [*words[:20], "else", *words[21:]]
        rows.append((f"copy {number}", {"text": " ".join(changed)}))
    cases = [Case(str(n), " ".join(words)) for n, words in enumerate(asked_for)]
    found = leakage.find(cases, rows)
    assert [(leak.case, leak.row) for leak in found] == [(str(n), f"copy {n}") for n in range(50)]


def test_built_cases_run_and_their_evidence_holds_their_answer(tmp_path: Path) -> None:
    rows = grounded.propose([passage(BRIDGE)], 1)
    review.decide(rows, [rows[0]["id"]], "accepted")
    write_rows(tmp_path, rows)
    target = Scripted(lambda case, _: Output(str(case.metadata["evidence"])))
    done = carry_out(make_plan(tmp_path, target, metrics=["contains"]), tmp_path)
    assert done.mean("contains") == 1.0
