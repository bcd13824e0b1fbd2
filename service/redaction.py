"""Masks personal data in answers while they are told, and in what is logged."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from infra.contracts import Answer, Citation, Disagreement, Groundedness, Passage, Ungrounded
from infra.expectations.recognizers import find, mask
from service.answering import AnswerEvent, Cited, Finished, Retrieved, Text

HELD_CHARACTERS = 4_096
"""Longer than anything that is recognized."""

# No recognizer reads across these. Across a space some do, but then the word before it holds a
# digit, is all capitals (a group of an IBAN) or opens a key.
_WALL = re.compile(r"[\n\t\r。，；！？、]")
_LOUD = re.compile(r"\d|-----|^[A-Z]+$")


@dataclass(frozen=True, slots=True)
class _Masked:
    """A stretch of the original, and where what stands for it begins and ends."""

    start: int
    end: int
    told_start: int
    told_end: int


class Redactor:
    """Masks a text that comes in pieces exactly as it would the whole.

    What may be the beginning of something personal is held until the next word shows whether it is.
    """

    def __init__(self) -> None:
        self._waiting = ""
        self._undecided = 0
        """Of what is waiting, characters that later ones cannot settle."""
        self._read = 0
        """Characters of the original that were decided."""
        self._told = 0
        self._masked: list[_Masked] = []

    def feed(self, text: str) -> str:
        """Take the next piece and return what is decided, masked."""
        self._waiting += text
        until = _settled(self._waiting, self._undecided)
        told = self._decide(until)
        self._undecided = len(self._waiting)
        return told

    def end(self) -> str:
        """Return what was held: nothing more comes."""
        return self._decide(len(self._waiting))

    @property
    def decided(self) -> int:
        """How many characters of the original were decided."""
        return self._read

    def position(self, offset: int, *, is_end: bool = False) -> int:
        """Return where a place of the original stands in the masked text."""
        at = bisect_right(self._masked, offset - is_end, key=lambda part: part.start) - 1
        if at < 0:
            return offset
        part = self._masked[at]
        if offset < part.end:
            return part.told_end if is_end else part.told_start
        return offset - part.end + part.told_end

    def _decide(self, until: int) -> str:
        text, self._waiting = self._waiting[:until], self._waiting[until:]
        parts: list[str] = []
        position = size = 0
        for kind, start, end in find(text):
            if start >= position:
                mark = f"<{kind}>"
                size += start - position
                self._note(start, end, size, mark)
                parts += [text[position:start], mark]
                size += len(mark)
            elif end > position:
                last = self._masked[-1]
                self._masked[-1] = replace(last, end=self._read + end)
            position = max(position, end)
        parts.append(text[position:])
        told = "".join(parts)
        self._read += len(text)
        self._told += len(told)
        return told

    def _note(self, start: int, end: int, told: int, mark: str) -> None:
        at = self._told + told
        self._masked.append(_Masked(self._read + start, self._read + end, at, at + len(mark)))


async def redacted(
    events: AsyncGenerator[AnswerEvent, None],
) -> AsyncGenerator[AnswerEvent, None]:
    """Yield the events of an answer with personal data masked, in passages and citations too.

    Spans in documents stay as they are; spans in the answer move with its text.
    """
    redactor = Redactor()
    waiting: list[Citation] = []
    async with aclosing(events):
        async for event in events:
            match event:
                case Retrieved():
                    yield Retrieved(tuple(_passage(passage) for passage in event.passages))
                case Text():
                    if told := redactor.feed(event.text):
                        yield Text(told)
                case Cited():
                    waiting.append(event.citation)
                case Finished():
                    if told := redactor.end():
                        yield Text(told)
                    for citation in waiting:
                        yield Cited(_citation(citation, redactor))
                    yield Finished(_answer(event.answer, redactor))
                    return
            while waiting and waiting[0].answer_end <= redactor.decided:
                yield Cited(_citation(waiting.pop(0), redactor))


class MaskingFilter(logging.Filter):
    """Masks personal data in log lines before they are written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, masked."""
        said = record.getMessage()
        masked = mask(said)
        if masked != said:
            record.msg, record.args = masked, None
        return True


def mask_logs() -> None:
    """Have whatever this process logs masked; a second call changes nothing."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(one, MaskingFilter) for one in handler.filters):
            handler.addFilter(MaskingFilter())


def _settled(text: str, undecided: int) -> int:
    """The end of what no later text can change; up to `undecided` nothing settled it."""
    for at in range(len(text) - 1, undecided - 1, -1):
        if _WALL.match(text, at):
            return at + 1
        if text[at] == " " and not _LOUD.search(_word_before(text, at)):
            return at + 1
    return _apart(text, len(text) - HELD_CHARACTERS) if len(text) > 2 * HELD_CHARACTERS else 0


def _apart(text: str, until: int) -> int:
    """A place before `until` that lies within nothing that is recognized.

    As much as anything recognized can have is there behind it, so all that begins before it is.
    """
    for _, start, end in find(text):
        if start < until < end:
            until = start
    return until


def _word_before(text: str, at: int) -> str:
    """The last word, as far back as anything that is recognized reaches, over two spaces too."""
    word = text[max(0, at - HELD_CHARACTERS) : at].rstrip(" ").rpartition(" ")[2]
    return _WALL.split(word)[-1]


def _passage(passage: Passage) -> Passage:
    return replace(passage, text=mask(passage.text))


def _citation(citation: Citation, redactor: Redactor) -> Citation:
    return replace(
        citation,
        text=mask(citation.text),
        answer_start=redactor.position(citation.answer_start),
        answer_end=redactor.position(citation.answer_end, is_end=True),
    )


def _answer(answer: Answer, redactor: Redactor) -> Answer:
    return replace(
        answer,
        question=mask(answer.question),
        text=mask(answer.text),
        reason=None if answer.reason is None else mask(answer.reason),
        citations=tuple(_citation(citation, redactor) for citation in answer.citations),
        passages=tuple(_passage(passage) for passage in answer.passages),
        unsupported=_moved(answer.unsupported, redactor),
        groundedness=_groundedness(answer.groundedness, redactor),
    )


def _groundedness(found: Groundedness | None, redactor: Redactor) -> Groundedness | None:
    if found is None:
        return None
    return replace(
        found,
        unsupported=tuple(_ungrounded(each, redactor) for each in found.unsupported),
        doubtful=tuple(_ungrounded(each, redactor) for each in found.doubtful),
        uncited=_moved(found.uncited, redactor),
        miscited=_moved(found.miscited, redactor),
    )


def _ungrounded(found: Ungrounded, redactor: Redactor) -> Ungrounded:
    return replace(
        found,
        start=redactor.position(found.start),
        end=redactor.position(found.end, is_end=True),
        disagreements=tuple(map(_disagreement, found.disagreements)),
    )


def _disagreement(found: Disagreement) -> Disagreement:
    instead = None if found.instead is None else mask(found.instead)
    return replace(found, said=mask(found.said), instead=instead)


def _moved(spans: Sequence[tuple[int, int]], redactor: Redactor) -> tuple[tuple[int, int], ...]:
    return tuple(
        (redactor.position(start), redactor.position(end, is_end=True)) for start, end in spans
    )
