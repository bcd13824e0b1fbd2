"""Retrieval model in: plan, train, verify, gate, register; one function for each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.errors import Conflict, InvalidConfiguration, NotFound
from infra.tracking.handle import Run
from infra.tracking.tracker import Tracker
from training import adapted_model, exhaustion, trainer
from training.base_model import KIND
from training.finetune import AskedToGo
from training.retrieval_models import card, planning
from training.retrieval_models import trainer as trainers
from training.retrieval_models.mining import Example
from training.retrieval_models.planning import Surroundings
from training.retrieval_models.specification import Tuning
from training.run_folder import LOCK, RunFolder, read_json, write_json
from training.sentinel import Aborted, Sentinel
from training.spec import as_json

if TYPE_CHECKING:
    from training.callbacks import Progress, Watch

MATERIAL = "material.json"
PROBES = 8
"""Texts that the trained model and the one read back are asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that was held out."""

    text: str
    documents: tuple[str, ...]
    """Public ids of those that answer it."""
    group: str
    """Questions of one group are not independent."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate says of a tuned model beside the present one."""

    verdict: str
    """`pass` lets it on; every other verdict does not."""
    judged_by: str
    """What was computed, in words."""
    gates: list[dict[str, Any]]
    """For each `metric`, `before`, `after`, `verdict`, `reason` and whatever else there is."""

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"


@dataclass(frozen=True, slots=True)
class Around:
    """What a run uses of the process it is in."""

    planning: Surroundings
    read_back: Callable[[Tuning, Path, Sequence[tuple[str, str]]], Sequence[Any]]
    """Returns what the files of a model say of probes, as the service will compute them."""
    judge: Callable[[Tuning, Path, Sequence[Question]], Judgement]
    tracker: Tracker | None = None
    tell: Callable[[Progress], None] = lambda _: None
    """Is told of each step."""
    note: Callable[[str], None] = lambda _: None
    """Is told what is done, in words."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended that was trained to its end."""

    model: str
    """The version in the store, or the folder of a model that was not registered."""
    digest: str | None
    """Of the version; None where it was not registered."""
    verdict: str
    gates: list[dict[str, Any]]
    steps: int
    first_loss: float
    last_loss: float
    run: str | None
    """Its id among the tracked runs."""


@dataclass(frozen=True, slots=True)
class _Material:
    """What a run is made of; kept in its folder, so that it is gone on with the same."""

    examples: tuple[Example, ...]
    questions: tuple[Question, ...]
    base: Path
    parents: tuple[tuple[str, str], ...]
    lock: Mapping[str, Any]


def tune(spec: Tuning, folder: Path, around: Around) -> Outcome:
    """Tune as specified, or go on with a run of the folder that broke off.

    Args:
        spec: what is asked for.
        folder: of this run alone; a run that ended is not run again, its outcome is returned.
        around: stores, tracking, who judges, who is told.

    Raises:
        Refused: the specification cannot be carried out; nothing was trained.
        Conflict: the collection is not what it was when the run began, or another process is in
            the folder.
        Aborted: a rule ended the training, or the files are not the model that was trained.
        AskedToGo: the process was asked to go and wrote a checkpoint.
        StorageFailed: the disk is full; what was whole stays so.
    """
    files = RunFolder(folder)
    done = files.outcome()
    if done is not None and (read_json(folder / LOCK) or {}).get("spec") == as_json(spec):
        around.note("it ended before; nothing is trained again")
        return Outcome(**done)
    material = _material(spec, files, around)
    with (
        files.alone(),
        _forgetting_if_aborted(files),
        _tracked(spec, material, around) as run,
    ):
        watch, probes = _train(spec, material, files, _telling(spec, around, run))
        _verify(spec, files, around, probes)
        around.note(f"judging by {len(material.questions)} questions held out")
        judgement = around.judge(spec, folder / "model", material.questions)
        _note_figures(run, judgement)
        card.write(folder / "model", material.lock, asdict(judgement))
        outcome = _outcome(files, watch, judgement, run)
        if judgement.passed:
            outcome = _register(spec, material, around, outcome)
            if run is not None and outcome.digest is not None:
                run.made(outcome.model, role="model", digest=outcome.digest)
        files.finish(asdict(outcome))
    forget(files)
    return outcome


def forget(files: RunFolder) -> None:
    """Remove what quotes documents, which may be erased, once nothing is gone on with."""
    (files.path / MATERIAL).unlink(missing_ok=True)
    shutil.rmtree(files.checkpoints, ignore_errors=True)


@contextmanager
def _forgetting_if_aborted(files: RunFolder) -> Iterator[None]:
    try:
        yield
    except Aborted:  # again from the same checkpoint, it would be again
        forget(files)
        raise


def _require_same_collection(
    spec: Tuning, began_with: Mapping[str, Any], files: RunFolder, around: Around
) -> None:
    """Raise, and forget the rows, where documents that they quote may be gone."""
    digest = None
    with suppress(NotFound):
        digest = around.planning.open_corpus(spec).digest
    if digest != began_with["digests"]["data.collection"]:
        forget(files)
        raise Conflict(
            f"the collection {spec.data.collection!r} is not what it was when this run began, so "
            f"that it cannot go on; remove {str(files.path)!r} and run it again"
        )


def _material(spec: Tuning, files: RunFolder, around: Around) -> _Material:
    """Return what the run was made of when it began, or plan it."""
    kept = read_json(files.path / MATERIAL)
    if kept is not None and kept["spec"] == as_json(spec) and Path(kept["base"]).is_dir():
        _require_same_collection(spec, kept["lock"], files, around)
        around.note("going on with the rows of its beginning")
        return _Material(
            tuple(Example(each[0], each[1], tuple(each[2])) for each in kept["examples"]),
            tuple(Question(each[0], tuple(each[1]), each[2]) for each in kept["questions"]),
            Path(kept["base"]),
            tuple((role, reference) for role, reference in kept["parents"]),
            kept["lock"],
        )
    began_with = read_json(files.path / LOCK)
    if kept is None and began_with is not None and began_with["spec"] == as_json(spec):
        _require_same_collection(spec, began_with, files, around)
    around.note("reading rows and looking for negatives")
    planned = planning.plan(spec, around.planning)
    planned.require_sound()
    assert planned.base is not None
    for words in planned.notes:
        around.note(words)
    groups = planned.divided.groups
    found = _Material(
        planned.mined.examples,
        _questions(planned, groups),
        planned.base.folder,
        planned.parents,
        planned.lock,
    )
    files.claim(planned.lock)
    values = {
        "examples": [[each.question, each.positive, each.negatives] for each in found.examples],
        "questions": [[each.text, each.documents, each.group] for each in found.questions],
    }
    about = {"spec": as_json(spec), "base": str(found.base), "lock": dict(found.lock)}
    write_json(files.path / MATERIAL, {**about, **values, "parents": list(found.parents)})
    # An erasure while this was planned found no file to remove; from here on one finds it.
    _require_same_collection(spec, planned.lock, files, around)
    return found


def _questions(planned: planning.Plan, groups: Mapping[bytes, str]) -> tuple[Question, ...]:
    """Return each question once, with all documents that answer it by any row."""
    texts: dict[bytes, str] = {}
    documents: dict[bytes, set[str]] = {}
    for pair in planned.divided.held_out:
        texts.setdefault(pair.asked, pair.question)
        documents.setdefault(pair.asked, set()).update(pair.documents)
    return tuple(
        Question(text, tuple(sorted(documents[mark])), groups[mark]) for mark, text in texts.items()
    )


def _train(
    spec: Tuning, material: _Material, files: RunFolder, around: Around
) -> tuple[Watch, Sequence[tuple[Any, Any]]]:
    """Train to the end and write the model; returns what it says of some probes."""
    from training.callbacks import Watch

    device = adapted_model.device_of(spec.device)
    model = trainers.load(spec, material.base, device=device)
    if spec.lora is not None:
        trainers.attach(model, spec.lora, seed=spec.seed)
    watch = Watch(
        Sentinel(spec.schedule.abort), around.tell, on_sigterm=spec.schedule.saving.on_sigterm
    )
    built = trainers.build(
        spec,
        model,
        material.examples,
        files.checkpoints,
        steps=material.lock["batches"]["steps"],
        callbacks=[watch.as_callback()],
    )
    trainer.run(built, files.checkpoints, watch=watch, note=around.note)
    if watch.was_asked_to_go:
        raise AskedToGo(
            f"Asked to go after step {built.state.global_step} of {built.state.max_steps}; "
            "run it again to go on from there"
        )
    model.eval()
    probes = trainers.probe(spec, model, material.examples[:PROBES])
    if spec.lora is not None:
        trainers.merge(model)
    draft = files.path / "model.part"
    shutil.rmtree(draft, ignore_errors=True)
    with exhaustion.storing(draft):
        model.save_pretrained(str(draft), create_model_card=False)
    return watch, probes


def _verify(
    spec: Tuning, files: RunFolder, around: Around, probes: Sequence[tuple[Any, Any]]
) -> None:
    """See that the files say what the trained model said.

    Raises:
        Aborted: they do not.
    """
    adapted_model.let_go()
    draft = files.path / "model.part"
    again = around.read_back(spec, draft, [each for each, _ in probes])
    difference = trainers.difference(probes, again)
    if not difference <= trainers.MOST_DIFFERENT:
        raise Aborted(
            f"{spec.name!r}: what was written says otherwise than what was trained "
            f"(by {difference:.3g}); nothing is registered"
        )
    shutil.rmtree(files.path / "model", ignore_errors=True)
    draft.rename(files.path / "model")


def _outcome(files: RunFolder, watch: Watch, judgement: Judgement, run: Run | None) -> Outcome:
    losses = watch.losses
    return Outcome(
        model=str(files.path / "model"),
        digest=None,
        verdict=judgement.verdict,
        gates=judgement.gates,
        steps=max(losses, default=0),
        first_loss=losses[min(losses)] if losses else 0.0,
        last_loss=losses[max(losses)] if losses else 0.0,
        run=None if run is None else run.id,
    )


def _register(spec: Tuning, material: _Material, around: Around, outcome: Outcome) -> Outcome:
    asked, store = spec.register_as, around.planning.places.store
    if asked is None:
        return outcome
    if store is None:
        raise InvalidConfiguration("register: there is no artifact store here")
    lock = material.lock
    facts = {
        "kind": lock["kind"],
        "collection": spec.data.collection,
        "spec": spec.digest,
        **lock["digests"],
        "counts": dict(lock["counts"]),
        "packages": dict(lock["packages"]),
        "gates": outcome.gates,
    }
    made = Made(metadata={"retrieval": facts}, parents=material.parents, job=outcome.run)
    reference: Reference = store.put(Path(outcome.model), f"{KIND}/{asked.name}", made)
    if asked.alias is not None:
        store.tag(str(reference), asked.alias, actor=outcome.run)
    around.note(f"registered {reference}")
    return replace(outcome, model=str(reference), digest=reference.digest)


@contextmanager
def _tracked(spec: Tuning, material: _Material, around: Around) -> Iterator[Run | None]:
    if around.tracker is None:
        yield None
        return
    parameters = {**as_json(spec), "batches": dict(material.lock["batches"])}
    with around.tracker.run(material.lock["kind"], name=spec.name, parameters=parameters) as run:
        for key, digest in material.lock["digests"].items():
            run.use(key, role=key.split(".")[1], digest=digest)
        yield run


def _telling(spec: Tuning, around: Around, run: Run | None) -> Around:
    """Have each step told and, as often as asked for, tracked."""
    every = spec.schedule.log_every_steps

    def tell(progress: Progress) -> None:
        around.tell(progress)
        if run is not None and (not progress.step % every or progress.step == progress.steps):
            told = {f"train/{name}": value for name, value in progress.metrics.items()}
            run.log(told, step=progress.step)

    return replace(around, tell=tell)


def _note_figures(run: Run | None, judgement: Judgement) -> None:
    if run is None:
        return
    for gate in judgement.gates:
        name = str(gate["metric"]).replace("@", "_at_")
        run.log({f"eval/{name}/before": gate["before"], f"eval/{name}": gate["after"]})
