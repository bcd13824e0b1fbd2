"""One typed tree of settings: `ragstone.toml`, then `RAGSTONE_*`; unknown keys are refused."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from infra.engine_settings import EngineName, EngineProcess
from infra.errors import InvalidConfiguration
from infra.fine_tuning_settings import FineTuning
from infra.gateway_settings import Gateway, Guards, Telemetry
from infra.model_settings import Models
from infra.monitoring_settings import Groundedness, Watch
from infra.retrieval_settings import Retrieval
from infra.section import Section

PLACEHOLDERS = frozenset({"changeme", "changethis", "change-me", "change_me", "secret", "password"})
ENVIRONMENT_PREFIX = "RAGSTONE_"
OTHER_VARIABLES = ("CONFIG", "DEMO_DOCUMENTS", "TEST_DATA")
"""Not settings: where the file of settings, the demo's documents and the tests' datasets are."""


OPEN_KEYS = (
    *("OPTIONS", "SOURCES__SQL", "ENGINES", "FINE_TUNING__MODELS", "RETRIEVAL__RERANKERS"),
    *("MODELS__CACHED", "MODELS__CHALLENGERS"),
)
OPEN_GATEWAY_KEYS = (
    *("GATEWAY__UPSTREAMS", "GATEWAY__ROUTES", "GATEWAY__PRICES", "GATEWAY__CANARIES"),
    *("GATEWAY__TENANT_LIMITS", "GATEWAY__MODEL_LIMITS"),
)


class Server(Section):
    host: str = "127.0.0.1"
    """The address to listen on; another than loopback turns keys on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 takes any free one."""
    authentication: Literal["auto", "on", "off"] = "auto"
    """`auto` asks for a key unless the server listens on loopback alone."""
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Host headers accepted while no key is asked for: keeps web pages from reaching in by DNS."""
    max_upload_bytes: int = Field(default=512 * 2**20, ge=1)
    """Of one uploaded file."""
    max_body_bytes: int = Field(default=1 * 2**20, ge=1)
    """Of a JSON request; uploads have their own limit."""
    max_question_characters: int = Field(default=8_000, ge=1)
    """Longer questions are refused."""
    max_concurrent_requests: int = Field(default=64, ge=1)
    """Answers and searches at once; more wait, and past four times as many are refused."""


class Loading(Section):
    """Bounds on reading one document; beyond them it is skipped and reported."""

    max_file_bytes: int = Field(default=256 * 2**20, ge=1)
    """Of the file as it lies on the disk."""
    max_text_characters: int = Field(default=20_000_000, ge=1)
    """Of the text that is read from it."""
    max_pages: int = Field(default=5_000, ge=1)
    """Of a PDF, sheets of a workbook, slides of a presentation."""
    max_expanded_bytes: int = Field(default=1 * 2**30, ge=1)
    """Of an archive format (DOCX, PPTX, XLSX) once unpacked."""
    memory_bytes: int = Field(default=2 * 2**30, ge=64 * 2**20)
    """Address space that parsing may take on top of what its process takes by itself."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """Wall time for one document."""
    loaders: dict[str, str] = Field(default_factory=dict)
    """Dotted paths of loaders, such as LangChain's, by the ending of the names they read."""


class SqlSource(Section):
    """A query whose rows are documents."""

    url: SecretStr
    """SQLAlchemy URL of the database; a user who may only read is best."""
    query: str
    """A SELECT; its columns are named below."""
    key: str
    """The column that tells rows apart."""
    text: tuple[str, ...] = Field(min_length=1)
    """Columns that make up the text, in this order."""
    title: str | None = None
    """The column that becomes the heading."""
    metadata: tuple[str, ...] = ()
    """Columns that are kept as metadata, under their names."""
    version: str | None = None
    """A column that changes with the row, such as `updated_at`; else the row is hashed."""


class Sources(Section):
    """What documents are kept in step with, and bounds on reaching it."""

    max_delete_share: float = Field(default=0.5, ge=0, le=1)
    """Of a source's documents; a sync that would remove more asks for `--allow-deletes`."""
    max_item_bytes: int = Field(default=256 * 2**20, ge=1)
    """Of one document that is fetched, unpacked."""
    max_items: int = Field(default=1_000_000, ge=1)
    """That one source may list."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """For one answer from the web, from its first byte to its last."""
    max_redirects: int = Field(default=5, ge=0, le=20)
    """Followed from one address, each checked as the first."""
    allowed_addresses: tuple[str, ...] = ()
    """Private addresses that may be fetched from, such as `10.1.0.0/16` or `127.0.0.1:8080`."""
    ignore_robots: bool = False
    """Fetch what a `robots.txt` asks not to; for sites of your own."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to fsspec for sources that are buckets, such as `endpoint_url`."""
    sql: dict[str, SqlSource] = Field(default_factory=dict)
    """By name, the databases and queries that `sql:NAME` reads."""
    remote: tuple[str, ...] = ()
    """Beginnings of the URLs that may be made a source over HTTP; none by default."""


class Generation(Section):
    engine: str = "extractive"
    """A file of `service/engines/`, or a dotted path."""
    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the engine."""
    model: str | None = None
    """A route of the gateway that writes answers; where it fails, `engine` answers."""
    rewrite_questions: bool = True
    """Have the model rewrite follow-up questions before they are searched for."""
    max_tokens: int = Field(default=512, ge=1)
    """Of an answer, where the request does not say."""


class Conversations(Section):
    """What is kept of conversations, so that a question can lean on what was said before."""

    max_items: int = Field(default=500, ge=2)
    """Messages of one conversation; the oldest go first."""
    max_bytes: int = Field(default=1 * 2**20, ge=1024)
    """Of one conversation's messages; the oldest go first."""
    max_conversations: int = Field(default=10_000, ge=1)
    """Of one tenant; past them, those that nothing was added to for longest are removed."""
    keep_days: float = Field(default=30.0, gt=0)
    """After the last message, until a conversation is removed."""
    history_items: int = Field(default=20, ge=0, le=200)
    """The latest messages that an answer is given."""


class Artifacts(Section):
    """Where versioned datasets, models, indexes and results are kept."""

    location: str | None = None
    """A folder, or an fsspec URL such as `s3://bucket/prefix`; by default in `data_folder`."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to fsspec where `location` is a URL, such as `endpoint_url`."""


class Jobs(Section):
    """Who runs long work, and how much of it at once."""

    in_process: bool = True
    """Run jobs inside the serving process; `false` leaves them to `ragstone worker`."""
    slots: int = Field(default=8, ge=1, le=256)
    """Jobs one worker runs at the same time."""
    cpu: float | None = Field(default=None, gt=0)
    """Cores a worker gives to jobs; by default what the machine has."""
    gpu: int | None = Field(default=None, ge=0)
    """GPUs a worker gives to jobs; by default what the machine has."""
    memory_bytes: int | None = Field(default=None, ge=1)
    """Memory a worker gives to jobs; by default what the machine has."""
    jobs_per_tenant: int | None = Field(default=None, ge=1)
    """Jobs of one tenant that run at once, over all workers; unlimited by default."""
    keep_days: float = Field(default=30.0, gt=0)
    """How long finished jobs can be read."""
    launcher_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By launcher, what it is built with, such as `{slurm = {folder = "/shared/runs"}}`."""


class Tracking(Section):
    """How runs are recorded, and in which other tools they are shown."""

    flush_seconds: float = Field(default=0.5, gt=0, le=60)
    """How often logged metrics are written: what a crash can lose."""
    mirrors: tuple[str, ...] = ()
    """Files of `infra/tracking/mirrors/`, such as `mlflow`, or dotted paths."""
    mirror_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By mirror, what it is built with, such as `{mlflow = {uri = "http://host:5000"}}`."""


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(BaseSettings):
    """Everything an operator can set; built once at the edge and passed down."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
    )

    data_folder: Path = Path(".ragstone")
    """Files, indexes and, unless `database_url` says otherwise, the database."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL, like `postgresql+psycopg://user@host/name`; else SQLite in `data_folder`."""
    server: Server = Server()
    retrieval: Retrieval = Retrieval()
    loading: Loading = Loading()
    sources: Sources = Sources()
    generation: Generation = Generation()
    gateway: Gateway = Gateway()
    engines: dict[EngineName, EngineProcess] = Field(default_factory=dict)
    """By name, the model servers that `ragstone engine` runs on this machine."""
    guards: Guards = Guards()
    telemetry: Telemetry = Telemetry()
    groundedness: Groundedness = Groundedness()
    watch: Watch = Watch()
    conversations: Conversations = Conversations()
    artifacts: Artifacts = Artifacts()
    models: Models = Models()
    jobs: Jobs = Jobs()
    fine_tuning: FineTuning = FineTuning()
    tracking: Tracking = Tracking()
    logging: Logging = Logging()

    @field_validator("database_url")
    @classmethod
    def _known_database_with_a_real_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError as error:
            raise ValueError("is not a database URL") from error
        if url.get_backend_name() not in {"sqlite", "postgresql"}:
            raise ValueError(f"names {url.get_backend_name()!r}; use sqlite or postgresql")
        if url.password and str(url.password).lower() in PLACEHOLDERS:
            raise ValueError("holds a placeholder password; choose a real one")
        return value

    @field_validator("models")
    @classmethod
    def _keeps_what_is_compared(cls, value: Models, info: ValidationInfo) -> Models:
        telemetry = info.data.get("telemetry")
        if value.challengers and telemetry is not None and not telemetry.interactions:
            raise ValueError(
                "challengers are compared by interactions, and telemetry.interactions = false "
                "keeps none"
            )
        return value

    @property
    def database_location(self) -> str:
        """The SQLAlchemy URL in force."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.data_folder / 'ragstone.db').absolute()}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before environment before file; no `.env` is picked up by surprise."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, settings_file())


def settings_file() -> Path:
    """The file that settings are read from; it need not be there."""
    return Path(os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG", "ragstone.toml"))


def load_settings(**overrides: Any) -> Settings:
    """Read `ragstone.toml` (or the file `RAGSTONE_CONFIG` names) and `RAGSTONE_*`; overrides win.

    Raises:
        InvalidConfiguration: names every key that is unknown or wrong.
    """
    config = os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    if config and not Path(config).is_file():
        raise InvalidConfiguration(f"RAGSTONE_CONFIG names {config!r}, which is not a file")
    _refuse_unknown_variables(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise InvalidConfiguration(_explain(error)) from None
    except ValueError as error:  # a TOML file or an environment value that cannot be parsed
        raise InvalidConfiguration(f"Settings cannot be read: {error}") from error


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggest(key, _known_keys(Settings))}")
        else:
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    return "Invalid settings: " + "; ".join(lines)


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = [ENVIRONMENT_PREFIX + key.replace(".", "__").upper() for key in _known_keys(Settings)]
    known += [ENVIRONMENT_PREFIX + name for name in OTHER_VARIABLES]
    for name in environment:
        if not name.upper().startswith(ENVIRONMENT_PREFIX) or name.upper() in known:
            continue
        if not any(name.upper().startswith(f"{key}__") for key in known if _is_open(key)):
            raise InvalidConfiguration(
                f"Unknown environment variable {name!r}{_suggest(name, known)}"
            )


def _is_open(key: str) -> bool:
    """Whether what stands below a key is the operator's to name."""
    return key.endswith((*OPEN_KEYS, *OPEN_GATEWAY_KEYS))


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += _known_keys(info.annotation, f"{prefix}{name}.")
    return keys


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
