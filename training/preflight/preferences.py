"""Answers that are compared: each pair has a better one, marks agree, the base can be asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from training.examples import Sequence
from training.preflight import Batch, Check, Derived, Facts, Read, Silent
from training.problems import SHOWN_ROWS, Problem, at_rows
from training.row_text import digest, said
from training.specification.method import Adapter, Peft

CHECK = "preferences"
AGAINST_BASE = ("dpo", "kto")
"""Methods that hold an answer against what the base says of it."""

_SAME = (
    "once cut to max_length, chosen and rejected are the same; raise data.max_length, or leave "
    "such rows out: data.overflow"
)
_REVERSED = "prefers what an earlier row rejects, of the same two answers"
_MARKED_BOTH = "marks as {now} what an earlier row marks as {before}"


class _Preferences:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._max_length = facts.spec.data.max_length
        self._cuts = facts.spec.data.overflow == "truncate"
        self._pairs: set[tuple[bytes, bytes]] = set()
        self._marks: dict[bytes, bool] = {}
        self._marked: Counter[bool] = Counter()
        self._found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._counts: Counter[tuple[str, str]] = Counter()

    def take(self, batch: Batch) -> None:
        for row in batch.rows:
            look = self._pair if len(row.sequences) > 1 else self._mark
            for fault in look(batch, row):
                self._counts[batch.key, fault] += 1
                if len(self._found[batch.key, fault]) <= SHOWN_ROWS:
                    self._found[batch.key, fault].append(row.number)

    def _pair(self, _: Batch, row: Read) -> Iterator[str]:
        better, worse = (_mark_of(each) for each in row.sequences)
        if (worse, better) in self._pairs:
            yield _REVERSED
        self._pairs.add((better, worse))
        if self._cuts and row.encoded:
            beginnings = [each.ids[: self._max_length] for each in row.encoded]
            if beginnings[0] == beginnings[1]:
                yield _SAME

    def _mark(self, batch: Batch, row: Read) -> Iterator[str]:
        (sequence,) = row.sequences
        if sequence.mark is None:
            return
        self._marked[sequence.mark] += batch.is_trained
        before = self._marks.setdefault(_mark_of(sequence), sequence.mark)
        if before != sequence.mark:
            words = {True: "good", False: "bad"}
            yield _MARKED_BOTH.format(now=words[sequence.mark], before=words[before])

    def problems(self, derived: Derived) -> Iterable[Problem]:
        for (key, what), rows in self._found.items():
            yield Problem(CHECK, at_rows(key, rows, total=self._counts[key, what]), what)
        spec = self._facts.spec
        if spec.method.type in AGAINST_BASE and spec.data.supervise == "all":
            what = f"{spec.method.type} judges answers, not questions; use completion"
            yield Problem(CHECK, "data.supervise", what)
        if spec.method.type == "reward" and "lm_head" in getattr(
            spec.method.adapter, "targets", ()
        ):
            what = "a model of rewards has no 'lm_head'; leave it out"
            yield Problem(CHECK, "method.adapter.targets", what)
        if getattr(spec.method.adapter, "dropout", 0):
            what = f"{spec.method.type} compares answers, and drops nothing of them; set it to 0"
            yield Problem(CHECK, "method.adapter.dropout", what)
        if spec.method.type in AGAINST_BASE and _is_single(spec.method.adapter):
            what = (
                f"{spec.method.type} puts a second adapter beside it, which peft refuses with "
                "ADALORA and trained biases; use another peft_type, or bias: none"
            )
            yield Problem(CHECK, "method.adapter.config", what)
        if spec.method.type == "kto":
            yield from self._kto(derived)

    def _kto(self, derived: Derived) -> Iterator[Problem]:
        if self._marked.total() and len(+self._marked) < 2:
            words = "good" if self._marked[True] else "bad"
            what = f"every answer is marked as {words}; kto needs both"
            yield Problem(CHECK, "data.train", what)
        if derived.batches is not None and derived.batches.rows_per_device < 2:
            what = (
                "kto holds an answer against those to other questions, so that a device needs two "
                "rows at once; raise rows_per_step, or shorten data.max_length"
            )
            yield Problem(CHECK, "schedule.rows_per_device", what)


def _is_single(adapter: Adapter) -> bool:
    """Whether peft takes no second adapter of the kind."""
    if not isinstance(adapter, Peft):
        return False
    kind, bias = str(adapter.config["peft_type"]), adapter.config.get("bias", "none")
    return kind.upper() == "ADALORA" or bias != "none"


def _mark_of(sequence: Sequence) -> bytes:
    return digest(said([sequence]))


def build(facts: Facts) -> Check:
    return Silent() if facts.spec.method.type == "sft" else _Preferences(facts)
