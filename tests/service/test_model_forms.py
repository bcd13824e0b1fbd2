"""Other forms of a tuned model are kept only if they say what it says, and pass its suites."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.errors import InvalidConfiguration, InvalidRequest, StorageFailed
from infra.settings import load_settings
from scripted_suites import ANSWERS, write_answers
from service.cli.entry import app
from service.models import model_forms
from service.models.model_forms import Formed, Work
from service.wiring import Components
from tiny_llm import write_adapter
from trained import only_third_parties_warn, write_task
from training import compressing, merging, resolving
from training.exhaustion import OutOfMemory
from training.judging import NotPassed
from training.parity import Unlike
from training.spec import read
from training.specification.delivery import Compress
from training.verification import Unsound

pytest.importorskip("peft")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
SAID = "ZZZZZZ"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forms")


@pytest.fixture(scope="module")
def parts(folder: Path) -> Iterator[Components]:
    components = Components(load_settings(data_folder=folder / "data"))
    yield components
    components.close()


@pytest.fixture(scope="module")
def work(parts: Components, folder: Path) -> Work:
    """An adapter that says one thing, on a base that does not; and a suite that asks for it."""
    write_answers(folder, SAID)
    spec = write_task(folder, {"register": {"name": "zs"}, **ANSWERS})
    adapter = write_adapter(folder / "adapter", folder / "base", "Z")
    parts.artifacts.put(adapter, "adapter/zs")
    parts.artifacts.tag("adapter/zs@v1", "candidate")
    return Work(parts, read(spec), folder)


@pytest.fixture(scope="module")
def merged(work: Work) -> Formed:
    return model_forms.merge(work)


def names(parts: Components) -> set[str]:
    return {each.name for each in parts.artifacts.names("model")}


def test_a_merged_adapter_is_a_model_whose_card_says_that_both_are_one(
    parts: Components, merged: Formed, tmp_path: Path
) -> None:
    assert str(merged.reference) == "model/zs-merged@v1"
    card = parts.artifacts.resolve("model/zs-merged").metadata
    assert card["verdict"] == "pass"
    assert 0 < card["parity"]["max_difference"] < 1e-3
    assert card["parity"]["same_greedy"] == card["parity"]["rows"] == 8
    adapter = parts.artifacts.find("adapter/zs@v1").digest
    roles = {each.role: each.digest for each in parts.artifacts.resolve("model/zs-merged").parents}
    assert roles["adapter"] == adapter
    assert {"evaluation", "against"} < roles.keys()
    files = parts.artifacts.checkout("model/zs-merged", tmp_path / "merged")
    assert {"model.safetensors", "config.json", "tokenizer.json", "card.json"} <= {
        each.name for each in files.iterdir()
    }


def test_a_merge_that_changes_the_model_is_refused(
    parts: Components, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    save = merging.save

    def lossy(model: Any, base: Any, into: Path) -> None:
        save(model, base, into)
        weights = load_file(into / "model.safetensors")
        weights["model.norm.weight"] *= 1.01
        save_file(weights, into / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(merging, "save", lossy)
    with pytest.raises(Unlike, match=r"a logit differs by .*, and 0\.001 is the most"):
        model_forms.merge(work, name="lossy")
    assert "lossy" not in names(parts)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize(("there", "then"), [("layers.1", "layers.7"), ("lora_A", "lora_C")])
def test_an_adapter_with_weights_that_fit_nowhere_is_not_merged(
    work: Work, folder: Path, tmp_path: Path, there: str, then: str
) -> None:
    from safetensors.numpy import load_file, save_file

    adapter = write_adapter(tmp_path / "adapter", folder / "base", "Z")
    weights = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace(there, then): weight for name, weight in weights.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    work.parts.artifacts.put(adapter, "adapter/elsewhere")
    with pytest.raises(Unsound, match=r"2 weights .* missing, such as .*o_proj"):
        model_forms.merge(work, adapter="adapter/elsewhere", name="elsewhere")
    assert "elsewhere" not in names(work.parts)


def test_a_merged_model_that_does_not_pass_the_suites_is_not_kept(
    parts: Components, work: Work, folder: Path
) -> None:
    write_answers(folder, "QQ", name="other")
    changes = {
        "register": {"name": "zs"},
        "evaluate.suites": [{**ANSWERS["evaluate.suites"][0], "suite": "other.yaml"}],
    }
    spec = read(write_task(folder, changes))
    with pytest.raises(NotPassed, match="verdict of its suites is fail"):
        model_forms.merge(Work(parts, spec, folder), name="failing")
    assert "failing" not in names(parts)


PROMOTED = {"register": {"name": "promoted"}, "evaluate.against": "production", **ANSWERS}
NO_WORSE = {
    "evaluate.regressions": [{"suite": "suite.yaml", "metric": "exact_match", "max_loss": 0.5}]
}


@pytest.fixture(scope="module")
def promoted(work: Work, folder: Path) -> Work:
    """The same adapter, once it is what others are held against and no candidate."""
    work.parts.artifacts.put(folder / "adapter", "adapter/promoted")
    work.parts.artifacts.tag("adapter/promoted@v1", "production")
    spec = read(write_task(folder, {**PROMOTED, **NO_WORSE}))
    return Work(work.parts, spec, folder)


def test_a_promoted_adapter_is_merged_and_held_to_be_no_worse_than_itself(promoted: Work) -> None:
    made = model_forms.merge(promoted)
    assert str(made.reference) == "model/promoted-merged@v1"
    (gate,) = made.card["gates"]
    assert (gate["threshold"], gate["estimate"]) == (-0.5, 0.0)
    if find_spec("torchao") is not None:
        small = model_forms.compress(
            promoted, str(made.reference), Compress(max_perplexity_ratio=1.2)
        )
        assert [each["threshold"] for each in small.card["gates"]] == [-0.5]


def test_a_promoted_adapter_without_regressions_is_held_against_the_base(
    promoted: Work, folder: Path
) -> None:
    spec = read(write_task(folder, PROMOTED))
    made = model_forms.merge(Work(promoted.parts, spec, folder), name="beside-base")
    (gate,) = made.card["gates"]
    assert (gate["kind"], gate["estimate"]) == ("superior", 1.0)


def test_an_adapter_of_another_base_is_not_merged(
    parts: Components, work: Work, folder: Path
) -> None:
    other = write_adapter(folder / "other", folder / "base", "Z", base_name="/models/other")
    parts.artifacts.put(other, "adapter/other")
    with pytest.raises(InvalidRequest, match="other"):
        model_forms.merge(work, adapter="adapter/other")


def test_an_onnx_file_says_what_the_model_says(
    work: Work, parts: Components, merged: Formed, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    made = model_forms.export(work, str(merged.reference), "onnx")
    assert str(made.reference) == "model/zs-merged-onnx@v1"
    assert 0 < made.card["parity"]["max_difference"] < 1e-3
    assert made.card["parity"]["same_greedy"] == 8
    assert made.card["cache"] is True
    files = parts.artifacts.checkout(str(made.reference), tmp_path / "onnx")
    assert (files / "model.onnx").is_file()
    assert json.loads((files / "card.json").read_text())["parity"] == made.card["parity"]


def test_a_format_that_there_is_not_is_refused_with_those_that_there_are(
    work: Work, merged: Formed
) -> None:
    with pytest.raises(InvalidConfiguration, match="onnx"):
        model_forms.export(work, str(merged.reference), "gguf")


def test_weights_are_rounded_for_other_rows_than_those_that_are_compared(work: Work) -> None:
    base = work.base()
    alone = resolving.samples(work.spec, work.places, base)
    assert (len(alone.compared), len(alone.learned)) == (8, 56)
    assert not {*map(tuple, alone.compared)} & {*map(tuple, alone.learned)}
    held_out = read(write_task(work.beside, {"data.eval": {"rows": "eval.jsonl"}}))
    beside = resolving.samples(held_out, work.places, base)
    assert (len(beside.compared), len(beside.learned)) == (8, 64)
    assert not {*map(tuple, beside.compared)} & {*map(tuple, beside.learned)}


FORMS = [
    pytest.param(Compress(scheme="int8", max_perplexity_ratio=1.2), 0.6, id="int8"),
    pytest.param(Compress(scheme="w8a8", max_perplexity_ratio=1.2), 0.6, id="w8a8"),
    pytest.param(
        Compress(scheme="w4a16", group_size=32, max_perplexity_ratio=1.2), 0.52, id="w4a16"
    ),
]


@pytest.mark.parametrize(("how", "at_most"), FORMS)
def test_weights_in_fewer_bits_are_kept_if_they_say_nearly_the_same(
    work: Work, parts: Components, merged: Formed, how: Compress, at_most: float
) -> None:
    pytest.importorskip(compressing.PACKAGES[how.scheme])
    made = model_forms.compress(work, str(merged.reference), how)
    assert str(made.reference) == f"model/zs-merged-{how.scheme}@v1"
    assert made.card["verdict"] == "pass"
    assert made.card["parity"]["max_difference"] > 1e-3
    whole = {each.path: each.size for each in parts.artifacts.resolve("model/zs-merged").entries}
    small = {each.path: each.size for each in parts.artifacts.resolve(str(made.reference)).entries}
    assert small["model.safetensors"] < at_most * whole["model.safetensors"]
    stricter = how.model_copy(update={"max_perplexity_ratio": 0.5})
    with pytest.raises(Unlike, match="perplexity is times"):
        model_forms.compress(work, str(merged.reference), stricter, name="worse")
    assert "worse" not in names(parts)


def test_the_command_says_what_it_kept(
    work: Work, folder: Path, merged: Formed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(folder / "data"))
    spec = write_task(folder, {"register": {"name": "zs"}})
    said = CliRunner().invoke(app, ["train", "merge", str(spec), "--name", "plain"])
    assert said.exit_code == 0, said.output
    assert said.stdout == "model/plain@v1\n"
    assert "8 of 8 rows are gone on with alike" in said.stderr
    wrong = ["train", "compress", str(spec), str(merged.reference), "--scheme", "int3"]
    assert "there are int8, w8a8, w4a16" in CliRunner().invoke(app, wrong).stderr
    wrong[-2:] = ["--group-size", "32"]
    assert "group_size is of w4a16" in CliRunner().invoke(app, wrong).stderr


def test_the_command_compresses_as_planned_but_for_what_is_given(
    work: Work, folder: Path, merged: Formed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("compressed_tensors")
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(folder / "data"))
    planned = {"scheme": "w4a16", "group_size": 64, "max_perplexity_ratio": 1.2}
    spec = write_task(folder, {"register": {"name": "zs"}, "compress": planned})
    said = CliRunner().invoke(app, ["train", "plan", str(spec)])
    assert "weights in w4a16, GiB" in said.stdout, said.output
    command = ["train", "compress", str(spec), str(merged.reference), "--json"]
    for given, made in (
        (["--group-size", "32"], ("w4a16", 32)),
        (["--scheme", "w8a8"], ("w8a8", None)),
    ):
        said = CliRunner().invoke(app, [*command, *given])
        found = json.loads(said.stdout)
        assert (found["form"], found["group_size"]) == made
        assert said.stderr.splitlines()[0].startswith("compressing ")
        assert "it/s" not in said.stderr


def test_a_device_that_is_too_small_is_told_as_what_to_do(
    work: Work, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(compressing, "compress", fail)
    with pytest.raises(OutOfMemory, match="it holds the whole model"):
        model_forms.compress(work, str(folder / "base"), Compress())


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    class Large:
        def save_pretrained(self, _: Path) -> None:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(StorageFailed, match="No space left .* make room and run it again"):
        merging.save(Large(), None, tmp_path)  # type: ignore[arg-type]
