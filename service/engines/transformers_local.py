"""A small model in this process, by transformers: batched as requests come, with LoRA adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from infra.errors import (
    EngineFailed,
    EngineTimedOut,
    InvalidConfiguration,
    InvalidRequest,
    MissingDependency,
    NotFound,
    RateLimited,
)
from service.engines import Reply, ServerContext
from service.engines._local_replies import Stream, Whole, Writer, busy, refusal
from service.engines._local_requests import CHAT, COMPLETIONS, Request, parse
from service.engines._local_weights import EXTRA, Weights
from service.engines._local_worker import Job, Piece, Worker


@dataclass(frozen=True, slots=True)
class Options:
    model: str = ""
    """A folder with the model, or its id on the hub."""
    served_name: str = ""
    """What requests call the model; by default as `model`."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""
    dtype: str = "auto"
    """`float32`, `bfloat16`, or `auto`: the latter on a GPU."""
    chat_template: str = ""
    """A file with another template than the tokenizer's."""
    max_running: int = 16
    """Answers that are written side by side."""
    max_waiting: int = 64
    """Requests that wait for that; more are refused."""


class LocalServer:
    """Answers OpenAI's requests for chats and completions; it is a replica as vLLM is one."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._name = options.served_name or options.model
        self._folders: dict[str, Path] = {}
        self.worker = Worker(
            partial(
                Weights,
                options.model,
                device=options.device,
                dtype=options.dtype,
                chat_template=options.chat_template,
            ),
            max_running=options.max_running,
            max_waiting=options.max_waiting,
        )

    @property
    def address(self) -> str:
        return f"local:{self._name}"

    async def send(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float
    ) -> Reply:
        """Answer a request; what is wrong with it is said in an OpenAI error object.

        Raises:
            EngineTimedOut: it did not begin in time.
            EngineFailed: the model cannot be loaded, or failed.
        """
        del headers
        if path not in {CHAT, COMPLETIONS}:
            return refusal(404, f"{path!r} is not served by a local model")
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._answer(parse(path, body))
        except InvalidRequest as error:
            return refusal(400, error.message, parameter=error.parameter)
        except NotFound as error:
            return refusal(404, error.message, parameter="model", code="model_not_found")
        except RateLimited as error:
            return busy(error)
        except TimeoutError as error:
            raise EngineTimedOut(
                f"{self.address} did not begin to answer within {timeout_seconds:g} s"
            ) from error

    async def probe(self) -> bool:
        """Whether the model is there, or still being loaded."""
        return self.worker.is_well

    async def close(self) -> None:
        await asyncio.to_thread(self.worker.close)

    async def base(self) -> frozenset[str]:
        """Return the model's names."""
        return frozenset({self._name, self._options.model})

    async def adapters(self) -> frozenset[str]:
        """Return the names of the adapters that are loaded."""
        return self.worker.adapters

    async def load(self, name: str, folder: Path) -> None:
        """Load an adapter under a name.

        Raises:
            EngineFailed: it does not fit the model.
        """
        weights = await self._weights()
        try:
            await asyncio.wrap_future(
                self.worker.load_adapter(name, partial(weights.load, name, folder))
            )
        except InvalidRequest as error:
            raise EngineFailed(error.message) from error

    async def unload(self, name: str) -> None:
        """Take no more requests for an adapter; those under way are answered to their end."""
        weights = await self._weights()
        if name in self.worker.adapters:
            await asyncio.wrap_future(
                self.worker.unload_adapter(name, partial(weights.unload, name))
            )

    async def _answer(self, request: Request) -> Reply:
        weights = await self._weights()
        prompt = await asyncio.to_thread(_tokens, request, weights)
        adapter = self._adapter(request.model)
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job = Job(
            prompt=prompt,
            sampling=request.sampling,
            max_tokens=_room(request, len(prompt), weights.context_tokens),
            stops=request.stops,
            ignore_end=request.ignore_end,
            adapter=adapter,
            emit=lambda piece: _hand_over(loop, pieces, piece),
        )
        writer = Writer(request, prompt_tokens=len(prompt), decode=weights.tokenizer.decode)
        cancel = partial(self.worker.cancel, job)
        self.worker.submit(job)
        try:
            first = await _taken(pieces)
            if request.is_stream:
                return Stream(first, pieces, writer=writer, cancel=cancel)
            return await _collected(first, pieces, writer)
        except BaseException:
            cancel()
            raise

    async def _weights(self) -> Weights:
        """Wait until the model is loaded.

        Raises:
            EngineFailed: it cannot be.
        """
        try:
            # Shielded: whoever gives up waiting must not cancel the loading for all.
            return await asyncio.shield(asyncio.wrap_future(self.worker.loaded))
        except (InvalidConfiguration, MissingDependency) as error:
            raise EngineFailed(error.message) from error

    def _adapter(self, model: str) -> str:
        if model == self._name:
            return ""
        known = self.worker.adapters
        if model not in known:
            raise NotFound("model", model[:200], among=[self._name, *known])
        return model


def build_server(context: ServerContext) -> LocalServer:
    """Begin to load the model that the options name."""
    known = [field.name for field in fields(Options)]
    for name in context.options:
        if name not in known:
            raise InvalidConfiguration(
                f"Unknown option {name!r} of transformers_local; there are {', '.join(known)}"
            )
    options = Options(**context.options)
    if not options.model:
        raise InvalidConfiguration("transformers_local needs the option 'model': a folder or an id")
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise MissingDependency(package, extra=EXTRA)
    return LocalServer(options)


def _tokens(request: Request, weights: Weights) -> Sequence[int]:
    """Return the prompt's tokens.

    Raises:
        InvalidRequest: it cannot be written as the model's template wants it, or is empty.
    """
    if not request.is_chat:
        content = request.content
        tokens = content if isinstance(content, list) else weights.tokenizer.encode(content)
        if max(tokens, default=0) >= weights.vocabulary:
            raise InvalidRequest("'prompt' holds tokens that the model has not", parameter="prompt")
    else:
        from jinja2 import TemplateError

        try:
            tokens = weights.tokenizer.apply_chat_template(
                request.content, add_generation_prompt=True, return_dict=True
            )["input_ids"]
        except (TemplateError, ValueError) as error:
            raise InvalidRequest(
                f"The model's template refuses the messages: {error}", parameter="messages"
            ) from error
    if not tokens:
        raise InvalidRequest("The prompt is empty", parameter="prompt")
    return list(tokens)


def _room(request: Request, prompt_tokens: int, context_tokens: int) -> int:
    room = context_tokens - prompt_tokens
    wanted = room if request.max_tokens is None else request.max_tokens
    if room < 1 or wanted > room:
        raise InvalidRequest(
            f"The model reads and writes {context_tokens} tokens; the prompt has {prompt_tokens} "
            f"and the answer may have {max(wanted, 1)}",
            parameter="messages" if request.is_chat else "prompt",
        )
    return wanted


async def _taken(pieces: asyncio.Queue[Piece]) -> Piece:
    piece = await pieces.get()
    if piece.failure is not None:
        raise piece.failure
    return piece


async def _collected(first: Piece, pieces: asyncio.Queue[Piece], writer: Writer) -> Whole:
    taken = [first]
    while taken[-1].finish_reason is None:
        taken.append(await _taken(pieces))
    return writer.whole(taken)


def _hand_over(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece], piece: Piece) -> None:
    try:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)
    except RuntimeError:  # the loop is closed, and nobody listens any more
        return
