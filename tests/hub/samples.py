"""What the hub's tests share: a model's files, and a reporter that keeps what it hears."""

import json
import random
from contextlib import AbstractContextManager, nullcontext

from pipo_core.reporting import Progress, ProgressEvent


def sharded_model() -> dict[str, bytes]:
    """Return a model in two shards, with what must not be fetched beside it."""
    rng = random.Random(0)
    return {
        "config.json": b'{"model_type": "qwen3_5"}\n',
        "model-00001-of-00002.safetensors": rng.randbytes(900_000),
        "model-00002-of-00002.safetensors": rng.randbytes(500_001),
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {str(number): f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}}
        ).encode(),
        "tokenizer.json": rng.randbytes(70_000),
        "empty.txt": b"",
        "LICENSE": b"Apache-2.0\n",
        "pytorch_model.bin": b"a pickle",
        "training_args.pt": b"a pickle",
        "modeling.py": b"import os\n",
        ".gitattributes": b"*.bin filter=lfs\n",
    }


WANTED = {
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "empty.txt",
    "LICENSE",
}


class Bar:
    """Listens to a progress and keeps the counts."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.stood: list[int] = []

    def __call__(self, event: ProgressEvent) -> None:
        if event.phase == "move":
            self.stood.append(event.done)


class RecordingReporter:
    """A reporter that records its messages and bars."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.bars: list[Bar] = []

    def waiting(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    def info(self, msg: str) -> None:
        self.said.append(msg)

    def warn(self, msg: str) -> None:
        self.said.append(msg)

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        self.bars.append(Bar(title, total, unit))
        return Progress(title, total, unit, self.bars[-1])
