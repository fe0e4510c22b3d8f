"""Rows of data files, and a stand-in for the tokenizer."""

import json

from pipo_core.data.augment import IGNORED
from pipo_core.train.worker.sft_examples import encode_examples

GOOD = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "<think>\n2"}]}


def write(file, *rows):
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def conversation(*messages):
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def encode_characters(row):
    """Tokens are the answer's characters; the first one has no label."""
    ids = [ord(char) for char in row["messages"][1]["content"]]
    return {"input_ids": ids, "labels": [IGNORED, *ids[1:]]}


def encoded(file, folder, *, max_length=100, limit=None):
    calls = []
    encode_examples(file, folder, encode=encode_characters, max_length=max_length, limit=limit, progress=calls.append)
    return calls
