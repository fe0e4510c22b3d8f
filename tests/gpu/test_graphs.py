"""Steps replayed from CUDA graphs against plain ones, with kernels compiled and not. The engine needs pydantic."""

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

pytest.importorskip("pydantic")

from pipo_core.decode.graphs import Graphs
from pipo_core.decode.kernels import compile_steps
from pipo_core.decode.method import Method
from pipo_core.decode.registry import open_method
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine.api import Request
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.recipes.locate import bundled_model
from tests.recorder import CpuRecorder


def texts(method: Method[Any], tokenizer: Any) -> dict[str, tuple[tuple[int, ...], int | None]]:
    """Return greedy texts and slots of prompts of several lengths, three at a time: sequences join and leave."""
    engine = TorchEngine(method, tokenizer, batch=3)
    wanted = [
        Request(str(number), tuple(range(3 + number, 12 + 3 * number)), SamplingParams(temperature=0.0), max_tokens=60)
        for number in range(7)
    ]
    return {done.id: (tuple(done.token_ids), done.slots) for done in engine.generate(wanted)}


@pytest.mark.parametrize("name", ["regular", "mtp", "eagle", "pipo"])
@pytest.mark.parametrize("compiled", [False, True])
def test_replayed_steps_write_what_plain_ones_write(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, name: str, compiled: bool
) -> None:
    if compiled and device.type == "cpu":
        pytest.skip("compiled steps of a CPU are for single rows: tests/decode/test_backbone.py")
    folder = bundled_model("tiny-student")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Qwen3_5ForCausalPIPO = load_checkpoint(folder, device=device)
    model.fresh_parts = ()  # an untrained gate decides too
    method = open_method(name, model, int(tokenizer.pad_token_id), tau=0.5 if name == "pipo" else None)
    expected = texts(method, tokenizer)
    if compiled:
        compile_steps(model)
    recorder = CpuRecorder()
    with recorder.watching(monkeypatch):
        found = texts(method.recorded(Graphs(recorder if device.type == "cpu" else None), block=64), tokenizer)
    assert found == expected
