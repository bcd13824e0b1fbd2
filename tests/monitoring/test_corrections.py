"""What people said is right: the last correction, else a label, else an answer they liked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from infra.contracts import Interaction
from infra.database.engine import Database
from monitoring import corrections
from monitoring.feedback import FeedbackStore, Statement
from monitoring.interactions import Interactions

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def add(database: Database, *contents: dict[str, Any] | None) -> None:
    log = Interactions(database)
    for number, content in enumerate(contents):
        log.add(
            Interaction(
                f"chat-{number}",
                "completion",
                NOON + timedelta(seconds=number),
                "support",
                "answered",
                200,
                tenant=f"tenant-{number % 2}",
                content=content,
            )
        )
    log.flush()


def asked(question: Any, answer: str = "So.") -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": question}]
    return {"request": {"messages": messages}, "answer": answer}


def said(database: Database, *statements: tuple[int, Any, str, str | None]) -> None:
    store = FeedbackStore(database)
    for number, kind, value, text in statements:
        store.add(Statement(f"chat-{number}", kind, value, text))


def read(database: Database, **how: Any) -> list[tuple[str, str]]:
    found = corrections.read(database, "support", **{"most": 100, **how})
    return [(each[-2]["content"], each[-1]["content"]) for each in found]


def test_the_last_correction_counts_then_a_label_then_an_answer_that_was_liked(
    database: Database,
) -> None:
    add(database, *(asked(f"Why {number}?", f"So {number}.") for number in range(6)))
    said(
        database,
        (0, "correction", "", "No."),
        (0, "correction", "", "Not at all."),
        (0, "thumbs", "up", None),
        (1, "label", "never", None),
        (1, "thumbs", "down", None),
        (2, "thumbs", "up", "well said"),
        (3, "thumbs", "up", None),
        (3, "thumbs", "down", None),
        (4, "thumbs", "down", "wrong"),
    )
    assert read(database) == [("Why 0?", "Not at all."), ("Why 1?", "never"), ("Why 2?", "So 2.")]
    assert read(database, tenant="tenant-1") == [("Why 1?", "never")]
    assert read(database, most=4) == [("Why 1?", "never"), ("Why 2?", "So 2.")]
    assert corrections.read(database, "sales", most=100) == []
    whole = corrections.read(database, "support", most=100)[0]
    assert [each["role"] for each in whole] == ["system", "user", "assistant"]


def test_what_was_not_kept_or_is_more_than_text_is_left_out(database: Database) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    add(database, None, asked(picture), {"question": "Who?", "answer": "She."}, {"answer": "x"})
    said(database, *((number, "thumbs", "up", None) for number in range(4)))
    found = corrections.read(database, "support", most=100)
    assert found == [
        [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "She."}]
    ]
