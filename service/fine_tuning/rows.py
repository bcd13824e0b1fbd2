"""Uploaded rows as training reads them: OpenAI's forms are turned into ours, others kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from infra.errors import InvalidRequest, StorageFailed

PARQUET = ".parquet"
_MARKS = (b'"preferred_output"', b'"weight"')
"""What only rows in OpenAI's forms hold that are not ours as well."""


def ending_of(filename: str) -> str:
    """Return the ending under which an uploaded file's rows are laid out."""
    return PARQUET if filename.lower().endswith(PARQUET) else ".jsonl"


def lay_out(source: Path, target: Path, *, parameter: str) -> None:
    """Write the rows of an uploaded file to where training reads them.

    Raises:
        InvalidRequest: a row asks for what training cannot do; names it.
        StorageFailed: the disk is full, or the file is gone.
    """
    draft = target.with_name(f"{target.name}.part")
    try:
        if target.suffix == PARQUET:
            shutil.copyfile(source, draft)
        else:
            with source.open("rb") as read, draft.open("wb") as written:
                written.writelines(translated(read, parameter=parameter))
        os.replace(draft, target)
    except OSError as error:
        raise StorageFailed(f"{str(target)!r} cannot be written: {error.strerror}") from error


def translated(lines: Iterable[bytes], *, parameter: str) -> Iterator[bytes]:
    r"""Return lines of JSON in our form; what is no JSON stays, for the preflight to name.

    A preference `{input, preferred_output, non_preferred_output}` becomes `prompt`, `chosen` and
    `rejected`; a message of weight 1 is what it is without.

    >>> row = b'{"messages": [{"role": "assistant", "content": "Hi", "weight": 1}]}'
    >>> list(translated([row], parameter="training_file"))
    [b'{"messages":[{"role":"assistant","content":"Hi"}]}\n']
    """
    number = 0
    for line in lines:
        number += not line.isspace()
        if not any(mark in line for mark in _MARKS):
            yield line
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            yield line
            continue
        yield orjson.dumps(_row(row, number, parameter)) + b"\n"


def _row(row: Any, number: int, parameter: str) -> Any:
    if not isinstance(row, dict):
        return row
    if "preferred_output" in row and isinstance(row.get("input"), dict):
        given = row["input"]
        pair = {
            "prompt": given.get("messages"),
            "chosen": row["preferred_output"],
            "rejected": row.get("non_preferred_output"),
        }
        return {**pair, "tools": given["tools"]} if given.get("tools") else pair
    messages = row.get("messages")
    if isinstance(messages, list):
        return {**row, "messages": [_message(each, number, parameter) for each in messages]}
    return row


def _message(message: Any, number: int, parameter: str) -> Any:
    if not isinstance(message, dict) or "weight" not in message:
        return message
    if message["weight"] != 1:
        raise InvalidRequest(
            f"{parameter} row {number}: a message of weight {message['weight']!r}; every message "
            "of the assistant is learned here: leave the weight out, or end the conversation "
            "before the message",
            parameter=parameter,
        )
    return {key: value for key, value in message.items() if key != "weight"}
