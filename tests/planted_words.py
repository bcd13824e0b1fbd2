"""A collection whose questions have words that no passage has, and a model that cannot know them.

Topics have one word in passages and another in questions. Each document is about three topics, so
that what is learned of a topic from some documents finds others.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from infra.settings import load_settings
from retrieval.collections import Collection
from retrieval.sources.folder import walk
from service.wiring import Components
from tuning import write_changed, write_rows

TOPICS = 10
HIDDEN = 48
POSITIONS = 40
SAID = [f"said{letter}" for letter in "abcdefghij"]
ASKED = [f"asked{letter}" for letter in "abcdefghij"]
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "of", "what", "is", "part", "?", "void", "valid"),
    *(*SAID, *ASKED),
]
DOCUMENTS = list(itertools.combinations(range(TOPICS), 3))
NAME = "parts"


def write_embedder(folder: Path, *, seed: int = 3) -> str:
    """Write a random BERT of one layer with the vocabulary, as sentence-transformers does."""
    _bert(folder, "BertModel", seed=seed)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": POSITIONS - 4})
    _write(folder / "config_sentence_transformers.json", {"prompts": {}})
    return str(folder)


def write_cross_encoder(folder: Path, *, seed: int = 3) -> str:
    """Write a random BERT of two layers that scores pairs."""
    _bert(folder, "BertForSequenceClassification", seed=seed, num_labels=1, num_hidden_layers=2)
    return str(folder)


def open_parts(folder: Path, **retrieval: Any) -> Components:
    """Open a service whose collections are embedded with the model in `folder / "base"`."""
    options = {
        "embedder": "sentence_transformers",
        "embedder_options": {"model": str(folder / "base"), "device": "cpu"},
        "chunk_tokens": 32,
        "chunk_overlap_tokens": 0,
        "smoothing": 0.0,
    }
    return Components(
        load_settings(data_folder=folder / "data", retrieval={**options, **retrieval})
    )


def write_documents(folder: Path) -> Path:
    folder.mkdir()
    for topics in DOCUMENTS:
        said = " ".join(SAID[topic] for topic in topics)
        (folder / f"{_name(topics)}.txt").write_text(f"the part of {said}", encoding="utf-8")
    return folder


def write_versions(folder: Path, count: int = 120) -> list[dict[str, Any]]:
    """Write each of some passages twice, void and valid; return questions that mean the valid one.

    Search cannot tell them apart, and finds the void one first.
    """
    folder.mkdir()
    asked = []
    for topics in DOCUMENTS[:count]:
        said = " ".join(SAID[topic] for topic in topics)
        for order, state in enumerate(("void", "valid")):
            text = f"{state} part of {said}"
            (folder / f"{_name(topics)}-{order}.txt").write_text(text, encoding="utf-8")
        asked.append({"question": f"what is {said} ?", "positive": f"valid part of {said}"})
    return asked


def fill(parts: Components, folder: Path, name: str = NAME) -> Collection:
    """Make the collection of the documents of a folder."""
    whole = parts.collections.create(name, parts.recipe())
    for _ in parts.ingester.ingest(whole, walk([folder])):
        pass
    return parts.collections.get(name)


def question(topics: Sequence[int]) -> str:
    return "what is " + " ".join(ASKED[topic] for topic in topics) + " ?"


def rows(*, shuffled: bool = False, count: int = len(DOCUMENTS)) -> list[dict[str, Any]]:
    """Return a question for each document with its passage, or with that of any other."""
    answered = list(DOCUMENTS[:count])
    if shuffled:
        random.Random(5).shuffle(answered)
    return [
        {
            "question": question(topics),
            "positive": "the part of " + " ".join(SAID[topic] for topic in answer),
        }
        for topics, answer in zip(DOCUMENTS[:count], answered, strict=True)
    ]


def write_spec(path: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a specification beside `rows.jsonl`; `changes` are by dotted key, None takes away."""
    values: dict[str, Any] = {
        "name": "planted",
        "data": {"collection": NAME, "train": {"rows": "rows.jsonl"}},
        "negatives": {"per_question": 2, "last_rank": 20},
        "schedule": {"epochs": 14, "batch": 30, "learning_rate": 0.01},
        "device": "cpu",
        "evaluate": {"expected_gain": 0.25, "margin": 0.2},
        "register": {"name": "planted"},
    }
    return write_changed(path, values, changes)


def write_task(folder: Path, **named: Any) -> None:
    """Write the rows."""
    write_rows(folder / "rows.jsonl", rows(**named))


def _name(topics: Sequence[int]) -> str:
    return "-".join(str(topic) for topic in topics)


def _bert(folder: Path, head: str, *, seed: int, **changes: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=changes.pop("num_hidden_layers", 1),
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **changes,
    )
    made: Any = getattr(transformers, head)(config)
    made.save_pretrained(folder)
    tokenizer = Tokenizer(
        models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]")  # type: ignore[arg-type]
    )
    tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # type: ignore[assignment]
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "BertTokenizer",
        "model_max_length": POSITIONS,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[UNK]",
    }
    _write(folder / "tokenizer_config.json", about)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return made


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
