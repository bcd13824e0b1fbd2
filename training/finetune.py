"""Model in: plan, resolve, smoke, train, verify, gate, register; one function for each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import Conflict, InvalidRequest
from infra.tracking.handle import Run
from infra.tracking.tracker import Tracker
from training import (
    adapted_model,
    exhaustion,
    judging,
    locking,
    meshes,
    planning,
    ranks,
    registration,
    smoke_run,
    trainer,
    usage,
    verification,
)
from training.judging import Judge, Tuned
from training.lock import Lock
from training.meshes import Mesh
from training.places import Places
from training.ranks import Rank
from training.resolving import Resolved, resolve
from training.run_folder import RunFolder
from training.sentinel import Sentinel
from training.spec import FineTuning, as_json
from training.tokenized import Kept

if TYPE_CHECKING:
    from training.callbacks import Progress, Watch

PROBES = 4
"""Rows that the trained adapter and the one read back are asked."""


class AskedToGo(Conflict):
    """The machine asked the run to go; it wrote a checkpoint, and run again it goes on."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a run uses of the process it is in."""

    places: Places
    tracker: Tracker | None = None
    tell: Callable[[Progress], None] = lambda _: None
    """Is told of each step."""
    evaluated: Callable[[int, Mapping[str, float]], None] = lambda *_: None
    """Is told what was measured on `data.eval`, and after which step."""
    planned: Callable[[Lock], None] = lambda _: None
    """Is told of the plan, once it is sound."""
    note: Callable[[str], None] = lambda _: None
    """Is told what is done, in words."""
    expected: Mapping[str, str] | None = None
    """Digests that what is named must have: those of an earlier run."""
    smokes: bool = True
    """Whether a few steps are tried first."""
    judge: Judge | None = None
    """Asks the suites of a specification."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended that ended well."""

    adapter: str
    """The version in the store, or the folder of an adapter that was not to be registered."""
    digest: str | None
    """Of the version."""
    steps: int
    first_loss: float
    """Of the first step; of the first that was logged, where the run went on from a later one."""
    last_loss: float
    eval_loss_before: float | None
    eval_loss_after: float | None
    tokens_per_second: float
    logit_difference: float
    """Between the adapter that was trained and its files, read back; see `verification`."""
    run: str | None
    """Its id among the tracked runs."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What was measured last: on `data.eval` such as `eval_loss`, else in the last step."""
    verdict: str | None = None
    """Of the suites; no alias points at what has another than `pass`. None without suites."""
    reason: str = ""
    """Of the verdict."""
    gates: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Of the suites, each with what it demanded and found."""


@dataclass(frozen=True, slots=True)
class _Trained:
    """What is left of a training once the model is let go of."""

    watch: Watch
    asked: verification.Probe
    first_loss: float | None
    """That was logged."""
    eval_before: Mapping[str, float]
    eval_after: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Made:
    outcome: Outcome
    lock: Lock
    trained: _Trained
    run: Run | None


def finetune(spec: FineTuning, folder: Path, around: Around) -> Outcome:
    """Fine-tune as specified, or go on with a run of the folder that broke off.

    Under torchrun every process calls it; the first one writes, and only it returns after the
    adapter is registered.

    Args:
        spec: what is asked for.
        folder: of this run alone; a run that ended well is not run again, its outcome is returned.
        around: stores, tracking, who is told.

    Raises:
        InvalidRequest, NotFound: the specification cannot be carried out; nothing was trained.
        Conflict: another run is in the folder, or was.
        Aborted: a smoke check failed, a rule ended the training, or what came out is not sound;
            nothing is registered.
        SaidByFirst: any of these, in another process than the first, which raises it.
        AskedToGo: the process was asked to go and wrote a checkpoint.
        StorageFailed: the disk is full; what was whole stays so.
    """
    ranks.begin(on_cpu=spec.runtime.device == "cpu")
    files, kept = RunFolder(folder), Kept(spec.data)
    lock = ranks.told_by_first(lambda: _plan(spec, files, around, kept))
    around.planned(lock)
    done = ranks.told_by_first(files.outcome)
    if done is not None:
        around.note("it ended well before; nothing is trained again")
        return Outcome(**done)
    with ExitStack() as held:
        ranks.told_by_first(lambda: held.enter_context(files.alone()))
        return _carry_out(spec, files, around, lock, kept)


def _carry_out(
    spec: FineTuning, files: RunFolder, around: Around, lock: Lock, keep: Kept
) -> Outcome:
    rank, resolved = ranks.this_rank(), resolve(spec, around.places, lock, keep.rows)
    mesh = _mesh(spec, lock)
    if around.smokes:
        smoke_run.require(spec, resolved, lock, files=files, mesh=mesh, note=around.note)
    with _tracked(spec, lock, around, rank) as run:
        telling = _telling(around, run, files, spec=spec, used=usage.watched(spec, resolved.base))
        with ranks.said_once():
            trained = _train(spec, resolved, files, telling, lock, mesh=mesh)
        difference = _verify(spec, resolved, files, trained, mesh)
        outcome = _outcome(files, trained, difference, run)
        if rank.is_first:
            judging.require_no_loss(spec, outcome.eval_loss_before, outcome.eval_loss_after)
            outcome = _deliver(spec, resolved, files, around, _Made(outcome, lock, trained, run))
            files.finish(asdict(outcome))
    return outcome


def _plan(spec: FineTuning, files: RunFolder, around: Around, keep: Kept) -> Lock:
    """Check everything that can be checked without weights, and claim the folder."""
    planned = planning.plan(spec, around.places, reading=planning.Reading(keep=keep))
    planned.require_sound()
    lock = planned.lock
    _refuse_other_launches(spec)
    if around.expected is not None:
        locking.check_same(around.expected, lock.digests)
    files.claim(lock.as_json())
    return lock


def _refuse_other_launches(spec: FineTuning) -> None:
    """Refuse to train otherwise than planned."""
    world = ranks.this_rank().world
    if world != spec.parallelism.world:
        raise InvalidRequest(
            f"parallelism: planned for {spec.parallelism.world} processes, and this is one of "
            f"{world}; start it by the command that `ragstone train plan` prints"
        )


def _mesh(spec: FineTuning, lock: Lock) -> Mesh | None:
    """Return the processes that share the base; None where each has its own."""
    rank = ranks.this_rank()
    device = adapted_model.device_of(spec.runtime.device, local_rank=rank.local)
    return meshes.build(meshes.from_lock(lock.topology), device)


def _train(
    spec: FineTuning,
    resolved: Resolved,
    files: RunFolder,
    around: Around,
    lock: Lock,
    *,
    mesh: Mesh | None,
) -> _Trained:
    from training.callbacks import Watch

    rank = ranks.this_rank()
    device = adapted_model.device_of(spec.runtime.device, local_rank=rank.local)
    model = _base(spec, resolved, device, mesh)
    model = adapted_model.attach(model, spec.method, seed=spec.seed)
    abort, saving = spec.schedule.abort, spec.schedule.saving
    watch = Watch(
        Sentinel(abort),
        around.tell,
        evaluated=around.evaluated,
        on_sigterm=saving.on_sigterm,
        gradients_may_overflow=spec.base.dtype == "float16",
        counters=meshes.from_lock(lock.topology).tensor,
    )
    material = trainer.Material(
        spec, model, resolved.tokenizer, resolved.train, resolved.held_out, lock
    )
    built = trainer.build(
        material, files.checkpoints, callbacks=[watch.as_callback()], device=device
    )
    trainer.run(built, files.checkpoints, watch=watch, note=around.note)
    if watch.was_asked_to_go:
        raise AskedToGo(
            f"Asked to go after step {built.state.global_step} of {built.state.max_steps}; "
            "run it again to go on from there"
        )
    ranks.check_same_adapter(model, step=built.state.global_step)
    adapted_model.reshard(model)
    ranks.told_by_first(lambda: _write(model, files.draft))
    rows = resolved.train.ids[:PROBES]
    asked = verification.probe(model, rows, dtype=spec.base.dtype)
    before, after = trainer.evaluated_after(built, 0), _evaluate(built, resolved)
    return _Trained(watch, asked, trainer.first_loss(built), before, after)


def _verify(
    spec: FineTuning,
    resolved: Resolved,
    files: RunFolder,
    trained: _Trained,
    mesh: Mesh | None,
) -> float:
    """Return by how much the adapter that was written differs from the one that was trained.

    A base that is divided takes all processes to ask; of a whole one, the first asks its own.
    """
    rank = ranks.this_rank()
    if mesh is not None and not mesh.topology.is_divided:
        mesh = None
    if mesh is None and not rank.is_first:
        return 0.0
    adapted_model.let_go()
    device = adapted_model.device_of(spec.runtime.device, local_rank=rank.local)
    model = _base(spec, resolved, device, mesh)
    difference = verification.verify(model, files.draft, trained.asked)
    if mesh is not None:
        ranks.wait_for_all()  # another process may not have read the files yet
    if rank.is_first:
        files.accept()
    return difference


def _deliver(
    spec: FineTuning, resolved: Resolved, files: RunFolder, around: Around, made: _Made
) -> Outcome:
    """Have the verified adapter judged, and make it a version of the store."""
    outcome, lock = made.outcome, made.lock
    registration.name_base(files.adapter, resolved.base.reference(around.places.folder))
    adapted_model.let_go()
    verdict = judging.judged(spec, Tuned(resolved.base, files.adapter), around.judge)
    if verdict is not None:
        around.note(f"verdict of the suites: {verdict.verdict}")
        word, reason, gates = verdict.verdict, verdict.reason, list(verdict.gates)
        outcome = replace(outcome, verdict=word, reason=reason, gates=gates)
    if made.run is not None and verdict is not None:
        made.run.tag({"verdict": verdict.verdict})
        for role, each in verdict.evaluations:
            made.run.made(each, role=role)
    if spec.register_as is None:
        return outcome
    facts: dict[str, Any] = {"spec": spec.digest, **lock.digests, "packages": dict(lock.packages)}
    facts |= {"steps": outcome.steps, "loss": outcome.last_loss}
    origin = registration.Origin(resolved.parents, facts, outcome.run, verdict)

    def check(folder: Path) -> None:
        if not meshes.from_lock(lock.topology).is_divided:  # else no process could ask it alone
            model = _base(spec, resolved, adapted_model.device_of(spec.runtime.device))
            verification.verify(model, folder, made.trained.asked)

    registering = registration.Registering(spec.register_as, origin, check, around.note)
    reference = registration.register(around.places.store, files.adapter, registering)
    if made.run is not None:
        made.run.made(str(reference), role="adapter", digest=reference.digest)
    return replace(outcome, adapter=str(reference), digest=reference.digest)


def _outcome(
    files: RunFolder, trained: _Trained, logit_difference: float, run: Run | None
) -> Outcome:
    losses = trained.watch.losses
    first = losses.get(1, trained.first_loss)
    return Outcome(
        adapter=str(files.adapter),
        digest=None,
        steps=max(losses, default=0),
        first_loss=0.0 if first is None else first,
        last_loss=losses[max(losses)] if losses else 0.0,
        eval_loss_before=trained.eval_before.get("eval_loss"),
        eval_loss_after=trained.eval_after.get("eval_loss"),
        tokens_per_second=round(trained.watch.tokens / max(trained.watch.seconds, 1e-9), 1),
        logit_difference=logit_difference,
        run=None if run is None else run.id,
        metrics=dict(trained.eval_after or trained.watch.metrics),
    )


def _base(spec: FineTuning, resolved: Resolved, device: str, mesh: Mesh | None = None) -> Any:
    scores, folder = spec.method.type == "reward", resolved.base.folder
    return adapted_model.load_base(spec.base, folder, device=device, mesh=mesh, scores=scores)


def _evaluate(built: Any, resolved: Resolved) -> dict[str, float]:
    """Return what is measured on `data.eval` after the last step, nothing where there is none."""
    from training.callbacks import measured

    if resolved.held_out is None:
        return {}
    return trainer.evaluated_after(built, built.state.global_step) or measured(built.evaluate())


def _write(model: Any, draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    with exhaustion.storing(draft):
        model.save_pretrained(draft)


@contextmanager
def _tracked(spec: FineTuning, lock: Lock, around: Around, rank: Rank) -> Iterator[Run | None]:
    if around.tracker is None or not rank.is_first:
        yield None
        return
    parameters = {**as_json(spec), "batches": dict(lock.batches or {})}
    with around.tracker.run(spec.method.type, name=spec.name, parameters=parameters) as run:
        for key, digest in lock.digests.items():
            if digest:
                run.use(key, role=key.split(".")[1], digest=digest)
        yield run


def _telling(
    around: Around,
    run: Run | None,
    files: RunFolder,
    *,
    spec: FineTuning,
    used: Callable[[Progress], Mapping[str, float]],
) -> Around:
    """Have each step told and, as often as asked for, tracked and written down."""
    every = spec.schedule.log_every_steps
    steps = 0

    def tell(progress: Progress) -> None:
        nonlocal steps
        steps = progress.steps
        around.tell(progress)
        if progress.step % every and progress.step != progress.steps:
            return
        speed = progress.tokens_per_second
        metrics = {**progress.metrics, "tokens_per_second": speed, **used(progress)}
        files.measurements.add(progress.step, steps, metrics)
        if run is not None:
            told = {f"train/{name}": value for name, value in metrics.items()}
            run.log(told, step=progress.step)

    def evaluated(step: int, metrics: Mapping[str, float]) -> None:
        around.evaluated(step, metrics)
        files.measurements.add(step, steps, metrics)
        if run is not None:
            told = {f"eval/{name.removeprefix('eval_')}": each for name, each in metrics.items()}
            run.log(told, step=step)

    return replace(around, tell=tell, evaluated=evaluated)
