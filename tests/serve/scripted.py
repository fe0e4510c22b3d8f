"""A server whose model says what a test wants."""

from typing import Any

import torch

from pipo_core.decode.method import StepOutput
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.serve.service import Service
from tests.features import TOOL_TEMPLATE


def scripted_service(service: Service, text: str) -> None:
    """Let every answer of a service be this text: its samples are replaced, step by step."""
    engine = service.live._engine
    assert isinstance(engine, TorchEngine)
    service.tokenizer.chat_template = TOOL_TEMPLATE
    ids = [*service.tokenizer(text, add_special_tokens=False).input_ids, min(engine.end_ids)]
    write = engine._write

    def write_scripted(writers: Any, output: Any, broken: Any) -> None:
        said = [[ids[min(len(writer.completion.token_ids), len(ids) - 1)]] for writer in writers]
        first = StepOutput(torch.tensor(said), torch.ones(len(said), dtype=torch.long))
        write(writers, first, broken)

    engine._write = write_scripted  # type: ignore[method-assign]
