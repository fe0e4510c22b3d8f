"""Rows of data files, and a stand-in for the tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipo_core.data.augment import IGNORED
from pipo_core.train.worker.sft_examples import encode_examples

GOOD = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "<think>\n2"}]}


def write(file: Path, *rows: str | Mapping[str, Any]) -> Path:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def conversation(*messages: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def encode_characters(row: dict[str, Any]) -> dict[str, list[int]]:
    """Tokens are the answer's characters; the first one has no label."""
    ids = [ord(char) for char in row["messages"][1]["content"]]
    return {"input_ids": ids, "labels": [IGNORED, *ids[1:]]}


def encoded(file: Path, folder: Path, *, max_length: int = 100, limit: int | None = None) -> list[int]:
    calls: list[int] = []
    encode_examples(file, folder, encode=encode_characters, max_length=max_length, limit=limit, progress=calls.append)
    return calls
