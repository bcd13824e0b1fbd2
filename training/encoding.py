"""From rows to tokens and labels: one code for what is checked and for what is trained on."""

from __future__ import annotations

from collections.abc import Sequence as Sized
from dataclasses import dataclass
from typing import Any

from training.chat_templates import ChatTemplate, Span
from training.examples import Conversation, Sequence, Text, Wrong
from training.specification.data import Supervise

IGNORED = -100
"""The label of a token without a loss."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence as tokens."""

    ids: list[int]
    spans: tuple[Span, ...]
    """Of tokens that carry a loss, from the first to one past the last."""
    texts: tuple[str, ...]
    """What these spans are of, as rendered."""

    @property
    def supervised(self) -> int:
        """How many tokens carry a loss."""
        return sum(end - start for start, end in self.spans)

    @property
    def labels(self) -> list[int]:
        """What the trainer takes: the token where there is a loss, `IGNORED` elsewhere."""
        labels = [IGNORED] * len(self.ids)
        for start, end in self.spans:
            labels[start:end] = self.ids[start:end]
        return labels

    def cut(self, max_length: int) -> Encoded:
        """Return its beginning."""
        spans = [(start, min(end, max_length)) for start, end in self.spans if start < max_length]
        return Encoded(self.ids[:max_length], tuple(spans), self.texts[: len(spans)])


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns sequences into tokens, many at once."""

    tokenizer: Any
    """A fast tokenizer of transformers."""
    template: ChatTemplate | None
    """That conversations are rendered with."""
    supervise: Supervise

    def encode(self, sequences: Sized[Sequence]) -> list[Encoded | Wrong]:
        """Return the tokens of each sequence, or why it has none.

        Plain text gets the end token of the tokenizer, conversations what the template writes.
        """
        rendered = [self._render(sequence) for sequence in sequences]
        good = [found for found in rendered if not isinstance(found, Wrong)]
        encodings = iter(self._tokenize([text for text, _ in good]))
        return [
            found if isinstance(found, Wrong) else self._labelled(*found, next(encodings))
            for found in rendered
        ]

    def _tokenize(self, texts: list[str]) -> Any:
        # The backend at once: a batch of it runs on all cores, and nothing of it becomes lists
        # that are not asked for.
        return self.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)

    def _render(self, sequence: Sequence) -> tuple[str, list[Span]] | Wrong:
        try:
            if isinstance(sequence, Text):
                return self._plain(sequence)
            return self._conversation(sequence)
        except Wrong as wrong:
            return wrong

    def _plain(self, sequence: Text) -> tuple[str, list[Span]]:
        begin, end = self.tokenizer.bos_token or "", self.tokenizer.eos_token or ""
        if sequence.prompt.startswith(begin):
            begin = ""
        if sequence.completion.endswith(end):
            end = ""
        text = f"{begin}{sequence.prompt}{sequence.completion}{end}"
        is_whole = self.supervise == "all" or not sequence.prompt
        return text, [(0 if is_whole else len(begin) + len(sequence.prompt), len(text))]

    def _conversation(self, sequence: Conversation) -> tuple[str, list[Span]]:
        if self.template is None:
            raise Wrong("the tokenizer has no chat template")
        # What some templates write after the end of a turn is never generated.
        if self.supervise == "all":
            text = self.template.render(sequence.messages, sequence.tools)
            return text, [(0, len(text.rstrip()))]
        if self.supervise == "completion" or sequence.prompt is not None:
            return self._after_prompt(sequence, self.template)
        text, spans = self.template.render_spans(sequence.messages, sequence.tools)
        return text, spans[-1:] if self.supervise == "last_assistant" else spans

    def _after_prompt(
        self, sequence: Conversation, template: ChatTemplate
    ) -> tuple[str, list[Span]]:
        """Everything after the prompt is supervised; no markers are needed to find it."""
        count = len(sequence.messages) - 1 if sequence.prompt is None else sequence.prompt
        asked = template.render(
            sequence.messages[:count], sequence.tools, add_generation_prompt=True
        )
        text = template.render(sequence.messages, sequence.tools)
        if not text.startswith(asked):
            raise Wrong("the template renders the prompt otherwise when an answer follows it")
        return text, [(len(asked), max(len(asked), len(text.rstrip())))]

    def _labelled(self, text: str, spans: list[Span], encoding: Any) -> Encoded:
        found, texts = [], []
        for start, end in spans:
            first = _token(encoding, range(start, end))
            last = _token(encoding, range(end - 1, start - 1, -1))
            if first is not None and last is not None:
                found.append((first, last + 1))
                texts.append(text[start:end])
        return Encoded(encoding.ids, tuple(found), tuple(texts))


def _token(encoding: Any, characters: range) -> int | None:
    """Return the token of the first character that has one; tokenizers drop some white space."""
    tokens = (encoding.char_to_token(place) for place in characters)
    return next((token for token in tokens if token is not None), None)
