"""From a specification to its plan: everything found and checked, and what the run comes to."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from infra.errors import RagstoneError
from training import adapter_size, chat_templates, preflight
from training.accelerators import Machine, machine_for
from training.adapter_size import AdapterSize
from training.base_model import BaseModel, find_base
from training.chat_templates import ChatTemplate
from training.encoding import Encoder
from training.judging import Looked, has_suites
from training.lengths import Lengths
from training.lock import Lock, lock
from training.places import Places
from training.preflight import Facts, Taker
from training.preflight._reading import first_shape, read_source
from training.problems import Problem, Refused
from training.row_source import Rows, open_rows
from training.sizing import size
from training.spec import FineTuning
from training.specification.data import Source
from training.tokenized import Kept

Found = TypeVar("Found")
MARKED = ("assistant", "last_assistant")
YOUNG_OBJECTS = 50_000
"""Between two looks for garbage: some batches of rows, most of which are let go of by then."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fine-tuning would be."""

    lock: Lock
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """What could not be checked here."""
    lengths: Mapping[str, Lengths] = field(default_factory=dict)
    """By source."""

    def require_sound(self) -> None:
        """Raise `Refused`, which names every problem, if there is any."""
        if self.problems:
            raise Refused(self.lock.name, self.problems)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a plan reads rows, where it is not the only one that needs them."""

    known: Mapping[str, Lengths] | None = None
    """Lengths by an earlier plan of the same rows, tokenizer and template: not read again then."""
    keep: Kept | None = None
    """Is shown every row that is read, for a run that goes on from here."""


@dataclass(slots=True)
class _Finding:
    """Finds what is named; what is not found is a problem, and the search goes on."""

    problems: list[Problem] = field(default_factory=list)

    def find(self, key: str, look: Callable[[], Found]) -> Found | None:
        try:
            return look()
        except RagstoneError as error:
            self.problems.append(Problem("found", key, error.message))
            return None


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Look seldom for garbage: rows hold no cycles, and each look costs more than it finds."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], YOUNG_OBJECTS) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_seldom_collected()
def plan(
    spec: FineTuning,
    places: Places,
    *,
    path: str = "SPEC",
    machine: Machine | None = None,
    reading: Reading = Reading(),
) -> Plan:
    """Find and check all that a specification names; nothing is trained and no weight is loaded.

    Args:
        spec: what is asked for.
        places: where named things are.
        path: of the specification, for the command that launches it.
        machine: what it will run on; by default this machine, or what the specification says of
            another.
        reading: which rows are read, and who else is shown them.

    Returns:
        the plan, with every problem there is; `Plan.require_sound` raises them.
    """
    finding = _Finding()
    base = finding.find("base.model", lambda: _base(spec, places))
    sources = _open(spec, places, finding)
    if machine is None:
        machine = finding.find("runtime.accelerator", lambda: machine_for(spec.runtime))
    training, serving = _templates(spec, places, base, finding)
    adapter = finding.find("method.adapter", lambda: _adapter(spec, base))
    served = finding.find("serve.upstream", lambda: places.served(spec))
    facts = Facts(spec, base, training, serving, machine, served, adapter)
    checks = preflight.checks(facts)
    encoder = _encoder(facts, sources, finding)
    lengths = dict(reading.known or {})
    if reading.known is not None:
        del checks["rows"]  # it would miss those that it does not see
    # What is held out comes first: rows of training are looked for in it.
    takers: list[Taker] = [*checks.values(), *([reading.keep] if reading.keep is not None else [])]
    for key in sorted(set(sources) - set(lengths), key=lambda key: (key != "data.eval", key)):
        read = partial(read_source, key, sources[key], spec, encoder, takers)
        measured = finding.find(key, read)
        if measured is not None:
            lengths[key] = measured
    sizes = size(facts, lengths)
    found = [problem for each in checks.values() for problem in each.problems(sizes.derived)]
    made = lock(facts, places.folder, sources, sizes, launch=_launch(spec, path))
    suites = _suites(spec, places, base)
    problems = (*finding.problems, *sizes.problems, *found, *suites.problems)
    return Plan(made, problems, (*_notes(facts), *suites.notes), lengths)


def _base(spec: FineTuning, places: Places) -> BaseModel:
    return find_base(spec.base, folder=places.folder, store=places.store, checkout=places.checkout)


def _suites(spec: FineTuning, places: Places, base: BaseModel | None) -> Looked:
    if not has_suites(spec):
        return Looked()
    if places.suites is None:
        return Looked([Problem("suites", "evaluate", "no suites can be asked from here")])
    return places.suites(spec, base)


def _adapter(spec: FineTuning, base: BaseModel | None) -> AdapterSize | None:
    if base is None:
        return None
    return adapter_size.measure(spec.method, base, dtype=spec.base.dtype)


def sources_of(spec: FineTuning) -> Iterator[tuple[str, Source]]:
    """Return every source of rows with its key."""
    yield "data.train", spec.data.train
    if spec.data.eval is not None:
        yield "data.eval", spec.data.eval
    for number, replay in enumerate(spec.data.replay):
        yield f"data.replay.{number}", replay


def _open(spec: FineTuning, places: Places, finding: _Finding) -> dict[str, Rows]:
    opened: dict[str, Rows] = {}
    for key, source in sources_of(spec):
        rows = finding.find(key, partial(_rows, source, places))
        if rows is None:
            continue
        opened[key] = rows
        if source.digest not in {None, rows.digest}:
            what = f"{source.rows!r} is {rows.digest}, not {source.digest}"
            finding.problems.append(Problem("found", f"{key}.digest", what))
    return opened


def _rows(source: Source, places: Places) -> Rows:
    return open_rows(source, folder=places.folder, datasets=places.datasets)


def _templates(
    spec: FineTuning, places: Places, base: BaseModel | None, finding: _Finding
) -> tuple[ChatTemplate | None, ChatTemplate | None]:
    """Return the template that is trained with, and that of the server."""
    if base is None:
        return None, None

    def read(key: str, name: str | None) -> ChatTemplate | None:
        if name is None:
            return None
        path = places.folder / name
        return finding.find(key, lambda: chat_templates.read_file(path, base.tokenizer))

    own = chat_templates.of_tokenizer(base.tokenizer)
    training = read("base.template", spec.base.template)
    if spec.base.template is None:
        training = chat_templates.for_training(base.tokenizer)
    serving = read("data.serving_template", spec.data.serving_template)
    return training, serving if spec.data.serving_template is not None else own


def _encoder(facts: Facts, sources: dict[str, Rows], finding: _Finding) -> Encoder | None:
    if facts.base is None:
        return None
    spec, template = facts.spec, facts.training_template
    supervise = spec.data.supervise
    lacks = template is not None and not template.has_markers
    if supervise in MARKED and lacks and _is_chat(spec, sources):
        what = (
            "the chat template has no {% generation %} markers that say what the assistant writes; "
            "give a template that has them, or supervise: completion, which learns the last answer"
        )
        finding.problems.append(Problem("template", "base.template", what))
        supervise = "completion"
    return Encoder(facts.base.tokenizer, template, supervise)


def _is_chat(spec: FineTuning, sources: dict[str, Rows]) -> bool:
    rows = sources.get("data.train")
    try:
        return rows is not None and first_shape(rows, spec.method.type) == "messages"
    except RagstoneError:
        return False  # reading all of it will say what is wrong


def _launch(spec: FineTuning, path: str) -> tuple[str, ...]:
    """Return the command that runs it where it is to run."""
    run = ("ragstone", "train", "run", path)
    parallelism, runtime = spec.parallelism, spec.runtime
    if parallelism.world == 1 and runtime.launcher == "local":
        return run
    gpus = 0 if runtime.device == "cpu" else parallelism.devices_per_node
    options = [
        *("--on", runtime.launcher, "--name", spec.name),
        *("--nodes", str(parallelism.nodes), "--processes", str(parallelism.devices_per_node)),
        *("--gpus", str(gpus), "--cpus", str(runtime.cpus_per_node)),
    ]
    if runtime.node_memory_gib is not None:
        options += ["--memory-gib", f"{runtime.node_memory_gib:g}"]
    for name, value in runtime.environment.items():
        options += ["--env", f"{name}={value}"]
    for name in runtime.secrets:
        options += ["--secret", name]
    return ("ragstone", "launch", *options, "--", *run)


def command_line(launch: tuple[str, ...]) -> str:
    """Return a command as a shell reads it."""
    return shlex.join(launch)


def _notes(facts: Facts) -> Iterator[str]:
    spec, base = facts.spec, facts.base
    if base is not None and spec.base.described_by is not None:
        yield f"{spec.base.model!r} is not here: neither its digest nor its weights were looked at"
    elif base is not None and not base.has_weights:
        yield f"{spec.base.model!r} has no weights here (safetensors)"
    yield from _of_machine(facts)
    if base is not None and facts.adapter is None:
        yield "memory of the adapter was not estimated: its sizes depend on the weights of the base"
    elif facts.adapter is not None and not facts.adapter.is_whole:
        kind = spec.method.adapter.type
        yield f"memory that {kind!r} keeps of each token was taken to be that of LoRA of rank 16"
    yield from _of_server(facts)


def _of_machine(facts: Facts) -> Iterator[str]:
    machine = facts.machine
    if machine is None:
        return
    if machine.devices is None:
        yield f"the devices of {facts.spec.runtime.launcher!r} were not looked at"
    if machine.device_memory is None:
        yield "memory was not held against a device's: give runtime.accelerator or memory_gib"
    if machine.tflops is None:
        yield "time and cost were not estimated: give runtime.accelerator"


def _of_server(facts: Facts) -> Iterator[str]:
    serve, quantization = facts.spec.serve, facts.spec.base.quantization
    if serve is None:
        return
    known = facts.served.digest if facts.served else None
    if serve.upstream is not None and facts.served is None:
        yield f"the settings here say nothing of the engine {serve.upstream!r}"
    if serve.base_digest is None and known is None:
        yield "the base was not held against the server's: give serve.base_digest or upstream"
    trained = quantization.method if quantization else None
    if serve.quantization not in {None, trained}:
        kinds = f"{trained or 'plain'} weights and served on {serve.quantization} ones"
        yield f"the adapter is trained on {kinds}: evaluate it as it is served"


__all__ = ["Places", "Plan", "Reading", "command_line", "plan", "sources_of"]
