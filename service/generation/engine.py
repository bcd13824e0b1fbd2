"""The engine that has a chat model write the answer from numbered sources, and checks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from anyio import to_thread

from infra.contracts import Passage, Usage
from infra.errors import EngineFailed
from infra.quoted_text import speech
from service.engines import Delta, Notes, Prompt, Quote, Turn
from service.generation import sources
from service.generation.budget import Fitted, Plan, estimate, estimate_chat, fit
from service.generation.chat import ChatModel, Piece, read
from service.generation.templates import Template, fill
from service.generation.writing import Sieve, Writer, unsupported
from service.screening import Screening

NOTHING_FOUND = "No passage was found that could answer the question."
DECLINED = "The model found no answer in the {count} passages it was shown."
NOTHING_LEFT = "No sentence of the model's answer was carried by the passages it was shown."
EXAMPLE = "example"
"""In place of a nonce in examples, which are ours and the same in every prompt."""
ALL_SCREENED = "Every passage that was found seems to hold instructions, and was not used."


@dataclass(frozen=True, slots=True)
class Composed:
    """A request, and which passages it shows."""

    messages: list[dict[str, str]]
    shown: tuple[int, ...]
    """Positions in the prompt's passages; the first is source 1."""
    template: Template
    max_tokens: int
    left_out: dict[str, int]


class Generative:
    """Writes answers with a chat model; every sentence is held against the sources it cites."""

    def __init__(
        self,
        model: ChatModel,
        *,
        template: Callable[[], Template],
        screening: Screening,
        secret: bytes,
    ) -> None:
        """Take the parts.

        Args:
            model: completes chats.
            template: the one in force; asked for every answer, in a thread.
            screening: keeps passages that instruct out.
            secret: what the words in the fences are made with.
        """
        self._model = model
        self._template = template
        self._screening = screening
        self._secret = secret

    @property
    def name(self) -> str:
        return self._model.name

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield the answer as the model writes it.

        Passages are screened here. The question and what was said before it are by whoever asks,
        before they are searched with.

        Raises:
            TooLarge: the question and its best passage are too long for the model.
            EngineFailed: the model did not answer.
        """
        if not prompt.passages:
            template = await to_thread.run_sync(self._template)
            yield _declined(prompt, NOTHING_FOUND, template)
            return
        composed = await self.compose(prompt)
        if not composed.shown:
            yield _declined(prompt, ALL_SCREENED, composed.template, composed.left_out)
            return
        writer = Writer(prompt.passages, composed.shown, composed.template.refusal)
        sieve = Sieve() if prompt.unsupported == "remove" else None
        told = _Told()
        shown = [prompt.passages[at].document_id for at in composed.shown]
        async with aclosing(self._pieces(composed, shown)) as pieces:
            async for piece in pieces:
                told.note(piece)
                for delta in _passed(writer.feed(piece.text), sieve):
                    yield told.add(delta)
        for delta in _passed(writer.end(), sieve, is_last=True):
            yield told.add(delta)
        if not writer.text.strip() and not writer.has_refused:
            raise EngineFailed(f"The model {self.name!r} gave an empty answer")
        yield self._last(prompt, composed, writer, told, sieve)

    async def close(self) -> None:
        """Do nothing: the model belongs to the service."""

    async def compose(self, prompt: Prompt) -> Composed:
        """Return what the model is to be sent.

        Raises:
            TooLarge: the question and its best passage are too long for the model.
        """
        template = await to_thread.run_sync(self._template)
        kept = await self._screening.keep(prompt.passages)
        left_out = {"screened": len(prompt.passages) - len(kept)}
        left_out = {name: number for name, number in left_out.items() if number}
        if not kept:
            return Composed([], (), template, prompt.max_tokens, left_out)
        fitted = await self._fit(prompt, [prompt.passages[at] for at in kept], template)
        return Composed(
            fitted.messages,
            kept[: fitted.plan.passages],
            template,
            fitted.max_tokens,
            {**left_out, **fitted.left_out},
        )

    async def _fit(self, prompt: Prompt, passages: Sequence[Passage], template: Template) -> Fitted:
        nonce = sources.nonce(self._secret, prompt.question, passages)

        def compose(plan: Plan) -> list[dict[str, str]]:
            return messages_of(template, prompt, passages=passages, plan=plan, nonce=nonce)

        return await fit(
            compose,
            Plan(len(passages), len(prompt.history), len(template.examples)),
            context_tokens=self._model.context_tokens,
            max_tokens=prompt.max_tokens,
            count=self._model.count,
        )

    async def _pieces(
        self, composed: Composed, documents: Sequence[str]
    ) -> AsyncGenerator[Piece, None]:
        body: dict[str, Any] = {
            "model": self._model.name,
            "messages": composed.messages,
            "max_tokens": composed.max_tokens,
            "temperature": composed.template.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with (
            aclosing(self._model.complete(body, documents=documents)) as events,
            aclosing(read(events, name=self._model.name)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    def _last(
        self, prompt: Prompt, composed: Composed, writer: Writer, told: _Told, sieve: Sieve | None
    ) -> Delta:
        reason = None
        if writer.declines and not told.quotes:
            reason = DECLINED.format(count=len(composed.shown))
        elif sieve is not None and sieve.removed and not told.text.strip():
            reason = NOTHING_LEFT
        is_marking = prompt.unsupported == "mark" and reason is None
        text = composed.template.refusal_text if reason and not told.text.strip() else ""
        return Delta(
            text,
            finish_reason=told.finish_reason or "stop",
            usage=told.usage or _estimated(composed, writer.text),
            answerable=reason is None,
            reason=reason,
            notes=Notes(
                prompt_version=composed.template.digest,
                left_out=composed.left_out,
                unsupported=unsupported(told.text, told.quotes) if is_marking else (),
                unknown=writer.unknown,
                has_read_markers=True,
            ),
        )


class _Told:
    """What the caller was told, and what the model said of it."""

    def __init__(self) -> None:
        self.text = ""
        self.quotes: list[Quote] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self.usage: Usage | None = None

    def note(self, piece: Piece) -> None:
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.usage = piece.usage or self.usage

    def add(self, delta: Delta) -> Delta:
        self.text += delta.text
        self.quotes += delta.quotes
        return delta


def messages_of(
    template: Template, prompt: Prompt, *, passages: Sequence[Passage], plan: Plan, nonce: str
) -> list[dict[str, str]]:
    """Return the chat for a question: rules, examples, what was said, sources and question."""
    told = {"fence": sources.fence(1, nonce), "refusal": template.refusal}
    messages = [{"role": "system", "content": fill(template.system, told).strip()}]
    for example in template.examples[: plan.examples]:
        shown = [_as_passage(text) for text in example.sources]
        asked = _user(template, shown, question=example.question, nonce=EXAMPLE)
        messages += [asked, {"role": "assistant", "content": example.answer}]
    messages += _turns(prompt.history, plan.turns)
    last = _user(template, passages[: plan.passages], question=prompt.question, nonce=nonce)
    if messages[-1]["role"] == "user":
        last["content"] = f"{messages.pop()['content']}\n\n{last['content']}"
    return [*messages, last]


def _user(
    template: Template, passages: Sequence[Passage], *, question: str, nonce: str
) -> dict[str, str]:
    values = {
        "sources": sources.blocks(passages, heading=template.heading, nonce=nonce),
        "question": speech(question),
        "refusal": template.refusal,
        "fence": sources.fence(1, nonce),
    }
    return {"role": "user", "content": fill(template.user, values).strip()}


def _turns(history: Sequence[Turn], number: int) -> list[dict[str, str]]:
    """The latest turns, in the order that every chat template takes: user, assistant, user, ...

    What the application said as the system is a user's here, since the rules are ours; an
    assistant's numbers are of other sources and are left out.
    """
    messages: list[dict[str, str]] = []
    for turn in history[len(history) - number :] if number else ():
        is_own = turn.role == "assistant"
        text = sources.as_data(turn.content) if is_own else speech(turn.content)
        role = "assistant" if is_own else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{text}"
        elif messages or not is_own:
            messages.append({"role": role, "content": text})
    return messages


def _as_passage(text: str) -> Passage:
    return Passage(0, "", 0, "", "example", "Example", 0, len(text), text, 1.0)


def _declined(
    prompt: Prompt, reason: str, template: Template, left_out: Mapping[str, int] | None = None
) -> Delta:
    """Say that there is no answer, without having asked the model."""
    text = template.refusal_text if estimate(template.refusal_text) <= prompt.max_tokens else ""
    return Delta(
        text,
        finish_reason="stop" if text else "length",
        usage=Usage(0, 0),
        answerable=False,
        reason=reason,
        notes=Notes(prompt_version=template.digest, left_out=left_out or {}, has_read_markers=True),
    )


def _passed(deltas: Sequence[Delta], sieve: Sieve | None, *, is_last: bool = False) -> list[Delta]:
    if sieve is None:
        return list(deltas)
    passed = [one for delta in deltas for one in sieve.feed(delta)]
    return [*passed, *sieve.end()] if is_last else passed


def _estimated(composed: Composed, text: str) -> Usage:
    """For a server that does not say what it used."""
    return Usage(estimate_chat(composed.messages), estimate(text))
