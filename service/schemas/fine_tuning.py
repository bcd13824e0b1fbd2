"""OpenAI's fine-tuning jobs: what may be asked for, and how jobs, events and checkpoints look."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from infra.errors import InvalidRequest
from service.fine_tuning.ordering import Order
from service.fine_tuning.records import Checkpoint, Event, FineTuningJob, Status
from service.schemas.shared import Input, StoreMetadata, unix

Auto = Literal["auto"]
Epochs = Annotated[int, Field(ge=1, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Positive = Annotated[float, Field(gt=0, le=1_000_000)]
FileId = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Suffix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
OWNER = "ragstone"
"""The organisation of jobs that are no tenant's."""


class Hyperparameters(Input):
    n_epochs: Auto | Epochs = "auto"
    batch_size: Auto | BatchSize = "auto"
    learning_rate_multiplier: Auto | Positive = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Auto | Positive = "auto"


class Supervised(Input):
    hyperparameters: Hyperparameters | None = None


class Dpo(Input):
    hyperparameters: DpoHyperparameters | None = None


class Method(Input):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_of_one_type(self) -> Method:
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise ValueError(f"the type is {self.type!r}, and {name!r} is given")
        return self


class CreateFineTuningJob(Input):
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    training_file: FileId = Field(
        description="The id of a file with the purpose `fine-tune`; of the operator also a "
        "dataset, such as `dataset/support@v3`."
    )
    validation_file: FileId | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(
        None, description="Where `method` is left out; OpenAI's older form."
    )
    suffix: Suffix | None = None
    seed: int | None = Field(None, ge=0, lt=2**32)
    integrations: list[dict[str, Any]] | None = Field(
        None, description="Empty: runs are mirrored by the operator's settings."
    )
    metadata: StoreMetadata | None = None

    def as_order(self) -> Order:
        """Return what is asked for.

        Raises:
            InvalidRequest: it is something that is not done here.
        """
        if self.integrations:
            raise InvalidRequest(
                "Integrations are not supported: what runs are mirrored to is in the operator's "
                "settings (tracking.mirrors); leave them out",
                parameter="integrations",
            )
        if self.method is not None and self.hyperparameters is not None:
            raise InvalidRequest(
                "hyperparameters are given beside method; put them into the method",
                parameter="hyperparameters",
            )
        method = self.method or Method(type="supervised")
        if method.type == "reinforcement":
            raise InvalidRequest(
                "The method 'reinforcement' is not supported; use 'supervised' or 'dpo'",
                parameter="method.type",
            )
        part = method.supervised or method.dpo
        given = (part.hyperparameters if part else None) or self.hyperparameters
        chosen = given or Hyperparameters()
        beta = chosen.beta if isinstance(chosen, DpoHyperparameters) else "auto"
        return Order(
            model=self.model,
            training_file=self.training_file,
            validation_file=self.validation_file,
            method=method.type,
            epochs=None if chosen.n_epochs == "auto" else chosen.n_epochs,
            rows_per_step=None if chosen.batch_size == "auto" else chosen.batch_size,
            multiplier=(
                None
                if chosen.learning_rate_multiplier == "auto"
                else chosen.learning_rate_multiplier
            ),
            beta=None if beta == "auto" else beta,
            suffix=self.suffix,
            seed=self.seed,
            metadata=self.metadata,
        )


class JobError(BaseModel):
    code: str
    message: str
    param: str | None


class FineTuningJobOut(BaseModel):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: JobError | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    """As they are carried out; `auto` where the settings say otherwise, such as steps."""
    model: str
    organization_id: str
    """The tenant."""
    result_files: list[str]
    seed: int
    status: Status
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    estimated_finish: int | None
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    method: dict[str, Any]
    user_provided_suffix: str | None

    @classmethod
    def of(cls, job: FineTuningJob) -> FineTuningJobOut:
        asked, has_succeeded = job.asked, job.status == "succeeded"
        estimate = job.estimated_finish if job.status == "running" else None
        hyperparameters = asked.method[asked.method["type"]]["hyperparameters"]
        return cls(
            id=job.id,
            created_at=unix(job.created_at),
            error=JobError(**job.error) if job.error and job.status == "failed" else None,
            fine_tuned_model=job.model_name if has_succeeded else None,
            finished_at=unix(job.finished_at) if job.finished_at else None,
            hyperparameters=hyperparameters,
            model=asked.model,
            organization_id=job.tenant or OWNER,
            result_files=list(job.result_files) if has_succeeded else [],
            seed=asked.seed,
            status=job.status,
            trained_tokens=job.trained_tokens if job.is_finished else None,
            training_file=asked.training_file,
            validation_file=asked.validation_file,
            estimated_finish=unix(estimate) if estimate else None,
            integrations=[],
            metadata=asked.metadata,
            method=asked.method,
            user_provided_suffix=asked.suffix,
        )


class FineTuningJobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FineTuningJobOut]
    has_more: bool


class EventOut(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None

    @classmethod
    def of(cls, event: Event) -> EventOut:
        return cls(
            id=event.id,
            created_at=unix(event.at),
            level=event.level,
            message=event.message,
            type=event.type,
            data=event.data,
        )


class EventList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EventOut]
    has_more: bool


class CheckpointOut(BaseModel):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    """Can be asked once the job has succeeded."""
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int

    @classmethod
    def of(cls, found: Checkpoint, job: FineTuningJob) -> CheckpointOut:
        return cls(
            id=found.id,
            created_at=unix(found.created_at),
            fine_tuned_model_checkpoint=job.checkpoint_name(found.step),
            fine_tuning_job_id=job.id,
            metrics=found.metrics,
            step_number=found.step,
        )


class CheckpointList(BaseModel):
    object: Literal["list"] = "list"
    data: list[CheckpointOut]
    first_id: str | None
    last_id: str | None
    has_more: bool
