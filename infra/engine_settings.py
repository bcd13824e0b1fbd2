"""Settings of the model servers that `ragstone engine` runs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from infra.section import Section

RESERVED = (
    "--host", "--port", "--uds", "--api-key", "--model", "--served-model-name", "--middleware",
    "--root-path", "--config", "--tensor-parallel-size", "--max-model-len", "--dtype",
    "--enable-lora", "--max-lora-rank", "--max-loras", "--headless", "--grpc",
)  # fmt: skip
"""Flags that the settings speak for, or that would open the engine to others."""

EngineName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Also that of a folder."""


class EngineProcess(Section):
    """One model, served by one or more vLLM processes that listen on loopback alone."""

    model: str
    """A folder with the model, or its id on the hub."""
    model_digest: str | None = None
    """Of the artifact that the folder was checked out of; adapters may name their base by it."""
    served_name: str | None = None
    """What requests call the model; by default the engine's name."""
    python: str | None = None
    """The interpreter of the environment that vLLM is installed in; by default Ragstone's own."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Processes that serve the model."""
    port: int = Field(default=0, ge=0, le=65_000)
    """Of the first replica, the others have the next ones; 0 takes any free ones."""
    gpus: tuple[str, ...] = ()
    """GPU ids to share out among the replicas, `tensor_parallel` to each; by default all to all."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that hold one replica together."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer; by default what the model was made for."""
    dtype: str = "auto"
    """Of the weights, such as `bfloat16`."""
    lora: bool = False
    """Serve LoRA adapters beside the model, loaded while it runs."""
    max_lora_rank: int = Field(default=16, ge=1)
    """Adapters of a higher rank are refused."""
    max_loras: int = Field(default=4, ge=1)
    """Adapters in one batch; while an alias moves, old and new count both."""
    flags: tuple[str, ...] = ()
    """Further flags of `vllm serve`, one element for each word."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Further variables of the process, such as `VLLM_CPU_KVCACHE_SPACE`."""
    start_seconds: float = Field(default=900.0, gt=0)
    """Until it answers; a process that takes longer is started again."""
    silence_seconds: float = Field(default=30.0, gt=0)
    """Without an answer to a health check, after which it is killed and started again."""
    drain_seconds: float = Field(default=60.0, ge=0)
    """For requests under way, once it is asked to stop."""
    stop_seconds: float = Field(default=20.0, gt=0)
    """Between being asked to end and being killed."""
    log_bytes: int = Field(default=10 * 2**20, ge=4096)
    """After which a log file is set aside and a new one begun."""
    log_files: int = Field(default=3, ge=1, le=100)
    """Log files set aside for each replica."""

    @field_validator("flags")
    @classmethod
    def _nothing_reserved(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        for flag in flags:
            # The parser of vLLM takes '_' for '-', and a beginning for the whole.
            name = flag.partition("=")[0].replace("_", "-")
            for reserved in RESERVED:
                if len(name) > 2 and reserved.startswith(name):
                    raise ValueError(
                        f"{flag!r} may not stand here: the engine listens on loopback alone and is "
                        f"opened by a key of its own; what of {reserved} is yours to choose has a "
                        "setting"
                    )
        return flags

    @model_validator(mode="after")
    def _enough_gpus(self) -> Self:
        wanted = self.replicas * self.tensor_parallel
        if self.gpus and len(self.gpus) != wanted:
            raise ValueError(
                f"{self.replicas} replicas of {self.tensor_parallel} GPUs each need {wanted} ids "
                f"in gpus; there are {len(self.gpus)}"
            )
        return self

    @property
    def base_folder(self) -> Path | None:
        """The model's folder, where `model` is one."""
        folder = Path(self.model).expanduser()
        return folder if folder.is_dir() else None
