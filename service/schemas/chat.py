"""OpenAI's chat completions over a collection: what is asked, and what cannot be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from infra.contracts import Answer, Citation
from infra.errors import InvalidRequest, NotFound
from service.engines import Turn, Unsupported
from service.questions import Question
from service.schemas.answers import CitationOut, UsageOut
from service.schemas.shared import Input, RawFilter, StoreMetadata, parse_filter

MODEL_PREFIX = "rag/"


class TextPart(Input):
    type: Literal["text"]
    text: str


class ChatMessage(Input):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=100)] | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    citations: list[Any] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Input):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class ResponseFormat(BaseModel):
    type: str


class ChatBody(Input):
    """Sampling settings are accepted and change nothing: a prompt template has its own."""

    model: str = Field(min_length=1, examples=["rag/handbook"])
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=100_000)
    filters: RawFilter | None = Field(None, description="Ours: restricts the documents.")
    generator: str | None = Field(
        None, min_length=1, max_length=255, description="Ours: the model that answers."
    )
    unsupported: Unsupported = Field(
        "mark", description="Ours: what becomes of sentences that no source carries."
    )
    n: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    metadata: StoreMetadata | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    stop: str | list[str] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    moderation: Any = None

    @property
    def collection(self) -> str:
        """The collection that the model stands for.

        Raises:
            NotFound: models are called `rag/` and the collection's name.
        """
        if not self.model.startswith(MODEL_PREFIX):
            raise NotFound("model", self.model)
        return self.model.removeprefix(MODEL_PREFIX)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def as_question(self) -> Question:
        """Return the last user message as the question and what came before as its history.

        Raises:
            InvalidRequest: names a parameter that would change the answer and is not supported.
        """
        _refuse_unsupported(self)
        turns = [
            Turn("system" if turn.role == "developer" else turn.role, turn.text())
            for turn in self.messages
        ]
        last = next((at for at in reversed(range(len(turns))) if turns[at].role == "user"), None)
        if last is None or any(turn.role == "assistant" for turn in turns[last + 1 :]):
            raise InvalidRequest("The last message must be the user's", parameter="messages")
        return Question(
            text=turns[last].content,
            collection=self.collection,
            filter=parse_filter(self.filters),
            history=(*turns[:last], *turns[last + 1 :]),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            parameter="messages",
            generator=self.generator,
            unsupported=self.unsupported,
        )


class Annotation(BaseModel):
    """Where in the answer a file is cited, as OpenAI's file search says it."""

    type: Literal["file_citation"] = "file_citation"
    file_id: str
    filename: str
    index: int = Field(description="Behind the cited stretch of the answer, in code points.")

    @classmethod
    def of(cls, citation: Citation) -> Annotation:
        filename = citation.source.rsplit("/", 1)[-1]
        return cls(file_id=citation.document_id, filename=filename, index=citation.answer_end)


class AnsweredMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]
    citations: list[CitationOut]
    answerable: bool
    reason: str | None


class Choice(BaseModel):
    index: Literal[0] = 0
    message: AnsweredMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageOut
    system_fingerprint: str | None = None

    @classmethod
    def of(cls, answer: Answer, *, model: str, number: str, created: int) -> Completion:
        message = AnsweredMessage(
            content=answer.text,
            annotations=[Annotation.of(citation) for citation in answer.citations],
            citations=[CitationOut.of(citation) for citation in answer.citations],
            answerable=answer.answerable,
            reason=answer.reason,
        )
        return cls(
            id=number,
            created=created,
            model=model,
            choices=[Choice(message=message, finish_reason=answer.finish_reason)],
            usage=UsageOut.model_validate(answer.usage),
        )


def _refuse_unsupported(body: ChatBody) -> None:
    asked = {
        "n": (body.n or 1) > 1,
        "tools": bool(body.tools),
        "tool_choice": body.tool_choice not in (None, "none", "auto"),
        "functions": bool(body.functions),
        "function_call": body.function_call not in (None, "none", "auto"),
        "response_format": body.response_format is not None and body.response_format.type != "text",
        "logprobs": bool(body.logprobs),
        "top_logprobs": bool(body.top_logprobs),
        "logit_bias": bool(body.logit_bias),
        "stop": bool(body.stop),
        "store": bool(body.store),
        "modalities": body.modalities not in (None, ["text"]),
        "audio": body.audio is not None,
        "prediction": body.prediction is not None,
        "web_search_options": body.web_search_options is not None,
        "moderation": body.moderation is not None,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise InvalidRequest(
                f"{name!r} would change the answer and is not supported; leave it out",
                parameter=name,
            )
