"""Control tokens inside messages: written out as text, they would open and close turns."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from training.examples import Conversation, Sequence
from training.preflight import Batch, Check, Derived, Facts, Silent
from training.problems import Problem, at_rows


class _ControlTokens:
    def __init__(self, facts: Facts) -> None:
        assert facts.base is not None
        special = sorted(facts.base.tokenizer.all_special_tokens, key=len, reverse=True)
        # A token such as <unk> or </s> that a text may hold on purpose is one all the same.
        self._pattern = re.compile("|".join(map(re.escape, special))) if special else None
        self._found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)

    def take(self, batch: Batch) -> None:
        if self._pattern is None:
            return
        for row in batch.rows:
            for text in (text for each in row.sequences for text in _texts(each)):
                found = self._pattern.search(text)
                if found is not None:
                    self._found[batch.key, found[0]].append(row.number)
                    break

    def problems(self, _: Derived) -> Iterable[Problem]:
        for (key, token), rows in self._found.items():
            what = f"a message holds the control token {token!r}; take it out of the text"
            yield Problem("control_tokens", at_rows(key, rows), what)


def _texts(sequence: Sequence) -> Iterator[str]:
    if isinstance(sequence, Conversation):
        for message in sequence.messages:
            if isinstance(message.get("content"), str):
                yield message["content"]


def build(facts: Facts) -> Check:
    return _ControlTokens(facts) if facts.base is not None else Silent()
