"""Settings of the gateway: model servers, routes to them, prices, guards, traces."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

from infra.section import Section

HOST = r"^(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::[0-9]{1,5})?$"
"""A host, with a port if need be; `*.` before it stands for every host below."""


class Upstream(Section):
    """Servers that hold the same weights, or one model in this process."""

    plugin: str = "openai_http"
    """A file of `service/engines/` that takes OpenAI's requests, or a dotted path."""
    urls: tuple[str, ...] = ()
    """One for each replica, such as `http://127.0.0.1:8100`; without `/v1`."""
    engine: str | None = None
    """An engine that `ragstone engine start` runs, instead of `urls`."""
    api_key: SecretStr | None = None
    """Sent to the servers as a Bearer token."""
    provider: str = "vllm"
    """What traces and metrics call it; to `openai` and `azure.ai.openai` the bound of an answer is
    sent as `max_completion_tokens`, to others as `max_tokens`, and by the other name to a server
    that asks for it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the plug-in."""
    max_running: int = Field(default=256, ge=1)
    """Requests at one replica at a time; more wait here."""
    max_waiting: int = Field(default=1024, ge=0)
    """Requests that wait for a replica; more are refused."""
    connect_seconds: float = Field(default=5.0, gt=0)
    """Until a connection stands."""
    first_byte_seconds: float = Field(default=120.0, gt=0)
    """Until a stream begins; of a whole answer, until the server is asked for its health."""
    silence_seconds: float = Field(default=60.0, gt=0)
    """Between two pieces of an answer."""
    breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row after which a replica is left alone."""
    breaker_seconds: float = Field(default=10.0, gt=0)
    """How long it is left alone before one request tries it."""


class Target(Section):
    """One of the places a route leads to."""

    upstream: str
    """A name of `gateway.upstreams`."""
    model: str | None = None
    """What the server calls the model; by default the route's name."""
    adapter: str | None = None
    """An adapter's reference, such as `adapter/support@production`, served instead of the model."""
    weight: float = Field(default=1.0, ge=0)
    """Its share of the traffic, among the weights of the route; of a shadow, the share copied."""
    tag: str = "live"
    """What metrics and interactions call it, such as `canary`."""


class Route(Section):
    """A model's name as clients know it, and where requests for it go."""

    targets: tuple[Target, ...] = Field(min_length=1)
    shadow: tuple[Target, ...] = ()
    """Get a copy of requests, by their weights; their answers are recorded, not returned."""
    fallback: tuple[str, ...] = ()
    """Routes that are tried in turn when this one fails before the first byte."""
    retries: int = Field(default=1, ge=0, le=5)
    """Further tries at other replicas, before the first byte."""
    deadline_seconds: float = Field(default=300.0, gt=0)
    """For the whole answer; a request may ask for less."""
    kind: Literal["chat", "embeddings", "rerank"] = "chat"
    """What the model does."""
    context_tokens: int | None = Field(default=None, ge=1)
    """What the model reads and writes in one request; longer requests are refused."""
    tenant: str | None = None
    """Whose keys alone may use it, beside the operator's; by default every key's."""
    cache: bool = True
    """Answer identical deterministic requests (temperature 0, or a seed) from memory."""


class Canary(Section):
    """A version of an adapter that answers a share of a route's traffic before it answers all."""

    live: str = "live"
    """The tag of the target that names the adapter by the alias in use."""
    canary: str = "canary"
    """The tag of the one that names the same adapter by another alias."""
    min_requests: int = Field(default=200, ge=1)
    """That the canary has answered, and with `quality` that were judged, before a promotion."""
    min_callers: int = Field(default=5, ge=1)
    """Different users that the canary, and with `quality` both, must have been drawn for before
    anything is decided; 1 where one key without `user` asks for everybody."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """How surely a rule has to hold, or to be broken, however often one looks."""
    max_failures: float = Field(default=0.02, gt=0, lt=1)
    """The share of requests that it may fail."""
    max_seconds: float | None = Field(default=None, gt=0)
    """That it may take; a request that takes longer counts as failed."""
    quality: Literal["feedback", "groundedness"] | None = None
    """What says how good answers are: votes, or how well passages carry them."""
    margin: float = Field(default=0.05, gt=-1, lt=1)
    """By how much its quality, from 0 to 1, may be lower; 0 asks for a higher one."""
    roll_back: bool = True
    """Take its alias away where a rule is surely broken."""
    promote: bool = False
    """Let the alias in use point at it where all rules surely hold."""


class Price(Section):
    """What a model costs, in the currency of `gateway.currency`."""

    input_per_million: float = Field(default=0.0, ge=0)
    """For a million tokens of prompt."""
    output_per_million: float = Field(default=0.0, ge=0)
    """For a million tokens of answer."""


class Quota(Section):
    """How much in a minute, and how much at once; what is left out is without a limit."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=10**12)
    """In each process that serves."""
    tokens_per_minute: int | None = Field(default=None, ge=1, le=10**12)
    """Of prompts and answers."""
    max_concurrent: int | None = Field(default=None, ge=1, le=10**12)
    """Calls under way."""


class Gateway(Section):
    """Where models are served, and what the requests to them may cost."""

    upstreams: dict[str, Upstream] = Field(default_factory=dict)
    """By name, the model servers."""
    routes: dict[str, Route] = Field(default_factory=dict)
    """By the name that clients use, where requests for a model go."""
    canaries: dict[str, Canary] = Field(default_factory=dict)
    """By route, versions of adapters that are compared with the one in use."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """By route, what tokens cost."""
    currency: str = "USD"
    """Of prices and budgets."""
    key_limits: Quota = Quota()
    """Of every key, for the kinds of limits that it has none of its own of."""
    tenant_limits: dict[str, Quota] = Field(default_factory=dict)
    """By tenant, for all its keys together; `*` is every tenant that is not named."""
    model_limits: dict[str, Quota] = Field(default_factory=dict)
    """By route, for all callers together."""
    retry_budget_ratio: float = Field(default=0.2, ge=0, le=1)
    """Retries, as a share of the requests of the last ten seconds."""
    cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """Of answers kept in memory; 0 keeps none."""
    cache_seconds: float = Field(default=300.0, gt=0)
    """How long an answer is kept."""
    idempotency_seconds: float = Field(default=3600.0, gt=0)
    """How long an `Idempotency-Key` is remembered."""
    stored_responses: int = Field(default=10_000, ge=0)
    """Of `/v1/responses` and one tenant, kept for later turns; the oldest go first."""


class Guards(Section):
    """What is looked at in questions, retrieved text, answers and logs."""

    injection: Literal["off", "log", "on"] = "on"
    """Screen questions over documents, and what is retrieved, for instructions to the model."""
    chats: Literal["off", "log", "on"] = "off"
    """The same for what users and tools say to a model of the gateway, without documents."""
    injection_plugin: str = "heuristic"
    """A file of `service/guards/`, or a dotted path."""
    injection_threshold: float = Field(default=0.5, ge=0, le=1)
    """Scores from here on are taken for an injection."""
    personal_data: Literal["off", "log", "on"] = "off"
    """Mask personal data: nowhere, in what is logged and kept, or in answers too."""
    link_hosts: tuple[Annotated[str, Field(pattern=HOST)], ...] = ()
    """Hosts that links and images of answers may lead to in the console; none by default."""


class Telemetry(Section):
    """Traces, and what is kept of every question and answer."""

    otlp_endpoint: str | None = None
    """Where traces are sent by OTLP over HTTP, such as `http://127.0.0.1:4318`; else nowhere."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """The share of requests that are traced."""
    content: bool = False
    """Put prompts and answers into traces and stored interactions."""
    content_share: float = Field(default=1.0, ge=0, le=1)
    """Of the requests whose interactions have them, drawn by chance; an answer that is marked for
    review keeps them always."""
    interactions: bool = True
    """Keep a record of every question, answer and completion in the database."""
    keep_days: float = Field(default=30.0, gt=0)
    """How long these are kept."""
    spool_bytes: int = Field(default=2**30, ge=0)
    """Of disk for those that wait while the database is down; what has no room there waits in
    memory, and is lost where that is full, too."""
