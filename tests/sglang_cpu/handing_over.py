"""What tests of weights that are handed over share: other weights, and the torch engine's answers with them."""

from pathlib import Path

import torch

from pipo_core.chat import load_tokenizer
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Engine, Request
from pipo_core.engine.torch_opening import student_engine
from pipo_core.model import load_checkpoint, save_checkpoint
from tests.sglang_cpu.conftest import Prompts

_SLOTS = 40


def move_weights(ckpt: Path, folder: Path) -> Path:
    """Write a checkpoint with other weights, as an optimizer's steps would leave, and return its folder."""
    model = load_checkpoint(ckpt)
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0.01)
    return save_checkpoint(model, folder, layout="pipo", tokenizer_from=ckpt)


def answered(engine: Engine, prompts: Prompts) -> list[Completion]:
    """Return greedy answers with their records, in order."""
    greedy = SamplingParams(temperature=0)
    asked = [
        Request(str(number), tuple(ids), greedy, max_slots=_SLOTS, record=True) for number, ids in enumerate(prompts)
    ]
    found = {one.id: one for one in engine.generate(asked)}
    return [found[request.id] for request in asked]


def expected_of(folder: Path, tau: float, prompts: Prompts) -> list[Completion]:
    """Return the answers of the torch engine as a training opens it: rejected drafts are sampled."""
    model, tokenizer = load_checkpoint(folder, dtype=torch.float32), load_tokenizer(folder)
    return answered(student_engine(model, tokenizer, tau=tau, batch=16, max_length=1024), prompts)
