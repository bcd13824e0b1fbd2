"""Holds questions out for the gate: no question and no document is on both sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from training.problems import Problem
from training.retrieval_models.pairs import Pair

SHOWN = 20
MOST_TOGETHER = 0.5
"""Of the questions that may hang together by documents: else nothing fair can be held out."""


@dataclass(frozen=True, slots=True)
class Divided:
    """What is learned from, and what is not."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    groups: dict[bytes, str]
    """The group of each question held out: those that share documents are not independent."""


def divide(pairs: Sequence[Pair], share: float, *, seed: int) -> Divided:
    """Hold out about a share of the questions, whole groups of them, drawn by the seed.

    Questions that are the same, or have a document in common, are one group.
    """
    groups = _groups(pairs)
    order = sorted(set(groups), key=lambda root: _drawn(pairs[root], seed))
    wanted, chosen, count = share * len(pairs), set[int](), 0
    sizes: defaultdict[int, int] = defaultdict(int)
    for root in groups:
        sizes[root] += 1
    for root in order:
        # A group that would take far more than is wanted stays with what is trained on.
        if count < wanted and count + sizes[root] <= 2 * max(1.0, wanted):
            chosen.add(root)
            count += sizes[root]
    train = [pair for pair, root in zip(pairs, groups, strict=True) if root not in chosen]
    held = [pair for pair, root in zip(pairs, groups, strict=True) if root in chosen]
    return Divided(tuple(train), tuple(held), group_names(held))


def given(train: Sequence[Pair], held_out: Sequence[Pair]) -> Divided:
    """Return what the specification itself divides."""
    return Divided(tuple(train), tuple(held_out), group_names(held_out))


def leaks(divided: Divided) -> Iterator[Problem]:
    """Return rows of training that ask what is held out, or are answered by its documents."""
    questions = {pair.asked: pair for pair in divided.held_out}
    documents = {name: pair for pair in divided.held_out for name in pair.documents}
    found = 0
    for pair in divided.train:
        twin = questions.get(pair.asked)
        how = "asks the same as"
        if twin is None:
            twin = next((documents[name] for name in pair.documents if name in documents), None)
            how = "is answered by a document of"
        if twin is not None:
            found += 1
            if found <= SHOWN:
                where = f"{pair.key} row {pair.row}"
                yield Problem("leakage", where, f"{how} {twin.key} row {twin.row}")
    if found > SHOWN:
        yield Problem("leakage", "data.eval", f"{found - SHOWN:,} more rows of training are in it")


def halves(divided: Divided, *, is_given: bool) -> Iterator[Problem]:
    """Return what is wrong with the two sides."""
    if not divided.train:
        yield Problem("split", "data.train", "no row is left to learn from")
    if not divided.held_out:
        what = "no question is held out"
        if not is_given:
            what += ", because nearly all hang together by the documents that answer them; give "
            what += "data.eval, or questions about more documents"
        yield Problem("split", "data.eval" if is_given else "data.held_out", what)


def group_names(pairs: Sequence[Pair]) -> dict[bytes, str]:
    """Return a name for the group of each question."""
    groups = _groups(pairs)
    return {pair.asked: f"g{root}" for pair, root in zip(pairs, groups, strict=True)}


def _groups(pairs: Sequence[Pair]) -> list[int]:
    """Return for each pair the first of its group."""
    parents = list(range(len(pairs)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    first: dict[bytes | str, int] = {}
    for number, pair in enumerate(pairs):
        for mark in _marks(pair):
            other = root(first.setdefault(mark, number))
            mine = root(number)
            parents[max(other, mine)] = min(other, mine)
    return [root(number) for number in range(len(pairs))]


def _marks(pair: Pair) -> Iterable[bytes | str]:
    return (pair.asked, *pair.documents)


def _drawn(pair: Pair, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{pair.question}".encode("utf-8", "surrogatepass")).digest()
