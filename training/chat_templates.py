"""Chat templates: rendered as the server renders them, with the spans that the assistant wrote."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest, NotFound
from infra.plugins import require
from training.examples import Messages, Wrong

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""The marker before what the assistant writes; `{% endgeneration %}` ends it."""
Span = tuple[int, int]
_RENDERING = threading.Lock()
"""What notes the spans belongs to the compiled template, which all threads share."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template and the special tokens that it may name."""

    text: str
    special: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_markers(self) -> bool:
        """Whether it says what the assistant wrote."""
        return GENERATION.search(self.text) is not None

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"

    def render(
        self,
        messages: Messages,
        tools: list[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return a conversation as text.

        Raises:
            Wrong: the template refuses it; says why.
        """
        text, _ = self._run(messages, tools, add_generation_prompt, with_spans=False)
        return text

    def render_spans(
        self, messages: Messages, tools: list[dict[str, Any]] | None = None
    ) -> tuple[str, list[Span]]:
        """Return a conversation as text, and where in it stands what the assistant wrote.

        Raises:
            Wrong: the template refuses it, or has no markers.
        """
        if not self.has_markers:
            raise Wrong("the template has no {% generation %} markers")
        return self._run(messages, tools, False, with_spans=True)

    def _run(
        self,
        messages: Messages,
        tools: list[dict[str, Any]] | None,
        add_generation_prompt: bool,
        *,
        with_spans: bool,
    ) -> tuple[str, list[Span]]:
        templates = require("transformers.utils.chat_template_utils", extra="finetune")
        jinja = require("jinja2", extra="finetune")
        try:
            with _RENDERING:
                texts, spans = templates.render_jinja_template(
                    [messages],
                    tools=tools,
                    chat_template=self.text,
                    return_assistant_tokens_mask=with_spans,
                    add_generation_prompt=add_generation_prompt,
                    **self.special,
                )
        except (jinja.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise Wrong(f"the template refuses it: {error}") from error
        return texts[0], [tuple(span) for span in spans[0]] if with_spans else []


def of_tokenizer(tokenizer: Any) -> ChatTemplate | None:
    """Return the template that a tokenizer brings, `None` if it has none."""
    text = tokenizer.chat_template
    if isinstance(text, dict):
        text = text.get("default")
    return ChatTemplate(text, dict(tokenizer.special_tokens_map)) if text else None


def for_training(tokenizer: Any) -> ChatTemplate | None:
    """Return the tokenizer's template with markers: its own, or the one that trl knows for it.

    `None` if the tokenizer has no template; one without markers if nobody knows where they belong.
    """
    own = of_tokenizer(tokenizer)
    if own is None or own.has_markers:
        return own
    templates = require("trl.chat_template_utils", extra="finetune")
    try:
        patched = templates.get_training_chat_template(tokenizer)
    except ValueError:  # it is none of those whose marked form trl holds
        return own
    return ChatTemplate(patched, own.special) if patched else own


def read_file(path: Path, tokenizer: Any) -> ChatTemplate:
    """Return the template in a file, with a tokenizer's special tokens.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it is not text, or no Jinja.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound("chat template", str(path)) from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(path)!r} is not text in UTF-8: {error}") from None
    template = ChatTemplate(text, dict(tokenizer.special_tokens_map))
    jinja = require("jinja2", extra="finetune")
    templates = require("transformers.utils.chat_template_utils", extra="finetune")
    try:
        templates._compile_jinja_template(text)
    except jinja.TemplateSyntaxError as error:
        raise InvalidRequest(f"{str(path)!r} is no Jinja: {error}") from None
    return template
