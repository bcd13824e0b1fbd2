"""OpenAI's Responses: what is asked, and what cannot be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from infra.errors import InvalidRequest
from service.schemas.chat import MODEL_PREFIX
from service.schemas.shared import Input, RawFilter, StoreMetadata

SHOW_RESULTS = "file_search_call.results"
MAX_ITEMS = 500


class Part(Input):
    """A piece of a message's content; only text can be read."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Parts = Annotated[list[Part], Field(max_length=100)]


class MessageItem(Input):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Parts
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class CallItem(Input):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class CallOutputItem(Input):
    type: Literal["function_call_output"]
    call_id: str
    output: str | Parts
    id: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.output, str):
            return self.output
        return "\n".join(part.text for part in self.output)


class SearchItem(Input):
    """A search of an earlier turn; what it found is in the answer that followed."""

    type: Literal["file_search_call"]
    id: str | None = None
    queries: list[str] | None = None
    results: list[Any] | None = None
    status: str | None = None


Item = MessageItem | CallItem | CallOutputItem | SearchItem


class FunctionTool(Input):
    type: Literal["function"]
    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class RankingOptions(Input):
    ranker: str | None = None
    score_threshold: float | None = Field(None, ge=0, le=1)


class FileSearchTool(Input):
    type: Literal["file_search"]
    vector_store_ids: list[str] = Field(min_length=1, max_length=1)
    filters: RawFilter | None = None
    max_num_results: int | None = Field(None, ge=1, le=50)
    ranking_options: RankingOptions | None = None


class ToolChoice(Input):
    type: Literal["function", "file_search"]
    name: str | None = None


class TextFormat(Input):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextOptions(Input):
    format: TextFormat = TextFormat()
    verbosity: str | None = None


class Reasoning(Input):
    effort: str | None = None
    summary: str | None = None


class ConversationRef(Input):
    id: str = Field(min_length=1, max_length=64)


class ResponsesBody(Input):
    model: str = Field(min_length=1, examples=["rag/handbook"])
    input: str | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    store: bool | None = True
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    tools: list[FunctionTool | FileSearchTool] | None = Field(None, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    include: list[str] | None = Field(None, max_length=10)
    metadata: StoreMetadata | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    reasoning: Reasoning | None = None
    background: bool | None = None
    conversation: Annotated[str, Field(min_length=1, max_length=64)] | ConversationRef | None = None
    prompt: Any = None
    top_logprobs: int | None = None
    max_tool_calls: int | None = Field(None, ge=1)

    @property
    def functions(self) -> list[FunctionTool]:
        return [tool for tool in self.tools or () if isinstance(tool, FunctionTool)]

    @property
    def file_search(self) -> FileSearchTool | None:
        found = [tool for tool in self.tools or () if isinstance(tool, FileSearchTool)]
        return found[0] if found and self.tool_choice != "none" else None

    @property
    def asks_documents(self) -> bool:
        """Whether the answer comes from documents, and not from the model by itself."""
        return self.file_search is not None or self.model.startswith(MODEL_PREFIX)

    @property
    def conversation_id(self) -> str | None:
        given = self.conversation
        return given.id if isinstance(given, ConversationRef) else given

    @property
    def shows_results(self) -> bool:
        return SHOW_RESULTS in (self.include or ())

    @property
    def items(self) -> list[Item]:
        if isinstance(self.input, str):
            return [MessageItem(role="user", content=self.input)]
        return list(self.input)

    def refuse_unsupported(self) -> None:
        """Refuse what would change the answer and is not done here.

        Answers from documents are text with citations, and call no functions. A conversation holds
        messages, and stands for an earlier response.

        Raises:
            InvalidRequest: names the parameter.
        """
        text_format = self.text.format.type if self.text else "text"
        is_of_messages = all(isinstance(item, MessageItem | SearchItem) for item in self.items)
        has_conversation = self.conversation is not None
        asked = {
            "background": bool(self.background),
            "prompt": self.prompt is not None,
            "top_logprobs": bool(self.top_logprobs),
            "include": any(name != SHOW_RESULTS for name in self.include or ()),
            "truncation": self.truncation == "auto",
            "text.format": self.asks_documents and text_format != "text",
            "tools": bool(self.functions) and (self.asks_documents or has_conversation),
            "previous_response_id": has_conversation and self.previous_response_id is not None,
            "conversation": has_conversation and not is_of_messages,
        }
        for name, is_asked in asked.items():
            if is_asked:
                raise InvalidRequest(
                    f"{name!r} as given is not supported; leave it out", parameter=name
                )
        searches = [tool for tool in self.tools or () if isinstance(tool, FileSearchTool)]
        if len(searches) > 1:
            raise InvalidRequest("One 'file_search' can be used", parameter="tools")


class ResponseOut(Input):
    """The response object; its parts are OpenAI's."""

    model_config = {"extra": "allow", "strict": False}

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[dict[str, Any]]


class ItemList(Input):
    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
