"""Rows whose tokens several processes share: stretches of tokens, labels and places that add up."""

from __future__ import annotations

from typing import Any

import pytest

from meshed import as_rank, mesh_of
from training.sentinel import Aborted

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
PARTS, TOKENS = 4, 10


def model() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        vocab_size=32,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def rows(**changes: Any) -> dict[str, Any]:
    ids = torch.arange(1, 2 * TOKENS + 1).reshape(2, TOKENS)
    return {
        "input_ids": ids,
        "labels": ids.clone(),
        "attention_mask": torch.ones_like(ids),
    } | changes


def test_stretches_of_all_processes_are_the_row_and_each_token_has_the_next_one_as_its_label() -> (
    None
):
    from training import meshes
    from training.sequences import Sharing

    found = []
    for number in range(PARTS):
        with as_rank(number, PARTS):
            mesh = meshes.build(mesh_of((1, 1, PARTS, 1)), "cpu")
            assert mesh is not None
            sharing = Sharing(model(), mesh.context)
            found.append(sharing.own(rows()))
            with pytest.raises(Aborted, match="padded on the left"):
                sharing.own(rows(attention_mask=torch.zeros(2, TOKENS)))
            with pytest.raises(Aborted, match="attends in a way of its own"):
                sharing.check()
    whole = {key: torch.cat([each[key] for each in found], 1).tolist() for key in found[0]}
    ids, padding = rows()["input_ids"].tolist(), [0, 0]
    assert whole["input_ids"] == [[*row, *padding] for row in ids]
    assert whole["attention_mask"] == [[1] * TOKENS + padding] * 2
    assert whole["shift_labels"] == [[*row[1:], -100, -100, -100] for row in ids]
    assert whole["position_ids"] == [list(range(TOKENS + 2))] * 2


def test_rows_that_are_only_asked_are_attended_to_whole_as_ever() -> None:
    from training import meshes
    from training.sequences import Sharing

    with as_rank(1, PARTS):
        mesh = meshes.build(mesh_of((1, 1, PARTS, 1)), "cpu")
        assert mesh is not None
        asked = model().eval()
        with torch.no_grad():
            before = asked(input_ids=rows()["input_ids"]).logits
            Sharing(asked, mesh.context)
            after = asked(input_ids=rows()["input_ids"]).logits
    torch.testing.assert_close(before, after)


def test_attention_to_less_than_all_that_was_before_is_not_shared() -> None:
    from training.sequences import attend

    some = torch.zeros(1, 2, 3, 4)
    with pytest.raises(Aborted, match="'sliding_window' is not shared"):
        attend(torch.nn.Identity(), some, some, some, None, sliding_window=2)
