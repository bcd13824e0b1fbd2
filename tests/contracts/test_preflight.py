"""Preflight checks: found in their folder, each keeps the laws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.plugins import available, load
from training import preflight, spec
from training.accelerators import GIB, Machine
from training.base_model import find_base
from training.chat_templates import for_training, of_tokenizer
from training.encoding import Encoder
from training.preflight import Derived, Facts
from training.preflight._reading import read_source
from training.row_source import open_rows
from training.sizing import size
from tuning import sums, write_base, write_rows, write_spec

NAMES = available("training.preflight")
MACHINE = Machine(1, 8 * GIB, 10.0, is_cpu=True, has_flash_attention=False)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("plan")
    write_base(folder / "base")
    write_rows(folder / "train.jsonl", sums(20))
    read = spec.read(write_spec(folder / "spec.yaml"))
    base = find_base(read.base, folder=folder, store=None, checkout=Path)
    tokenizer = base.tokenizer
    return Facts(read, base, for_training(tokenizer), of_tokenizer(tokenizer), MACHINE)


def test_the_walk_finds_the_checks() -> None:
    assert len(NAMES) == 15
    assert "leakage" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_specification_passes(name: str, facts: Facts) -> None:
    check = load("training.preflight", name)(facts)
    assert facts.base is not None
    folder = facts.base.folder.parent
    rows = open_rows(facts.spec.data.train, folder=folder, datasets=None)
    encoder = Encoder(facts.base.tokenizer, facts.training_template, facts.spec.data.supervise)
    lengths = {"data.train": read_source("data.train", rows, facts.spec, encoder, [check])}
    assert lengths["data.train"].kept == 20
    assert list(check.problems(size(facts, lengths).derived)) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_known_is_no_problem_and_no_crash(name: str, facts: Facts) -> None:
    unknown = replace(facts, base=None, training_template=None, serving_template=None, machine=None)
    check = load("training.preflight", name)(unknown)
    assert facts.base is not None
    rows = open_rows(facts.spec.data.train, folder=facts.base.folder.parent, datasets=None)
    read_source("data.train", rows, facts.spec, None, [check])
    assert list(check.problems(Derived({}))) == []


def test_all_of_them_are_run(facts: Facts) -> None:
    assert sorted(preflight.checks(facts)) == NAMES
