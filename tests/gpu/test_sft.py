"""SFT steps on each device: bf16 learns as fp32 does, and the step's script gives figures."""

import contextlib
import random
from itertools import islice

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipo_core.data.augment import IGNORED, pair
from pipo_core.data.collate import collate_pairs
from pipo_core.data.tiny.arithmetic import chains, question, reasoning
from pipo_core.model import load_checkpoint, shapes
from pipo_core.model.shapes import Shape
from pipo_core.recipes.locate import bundled_model
from tools.gpu.sft_step import measure

STEPS, ROWS = 10, 4
Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """Worked sums of the tiny world, in slots."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(bundled_model("tiny-student")))
    rng = random.Random(0)
    rows = []
    for chain in islice(chains("train", 0), STEPS * ROWS):
        asked = [{"role": "user", "content": question(chain, rng)}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer.encode(text, add_special_tokens=False)
        answer = [*tokenizer.encode(reasoning(chain, rng), add_special_tokens=False), tokenizer.eos_token_id]
        labels = [IGNORED] * len(prompt) + answer
        rows.append(pair(np.array(prompt + answer), np.array(labels), pad_id=tokenizer.pad_token_id))
    collated = [
        collate_pairs(rows[start : start + ROWS], pad_id=tokenizer.pad_token_id) for start in range(0, len(rows), ROWS)
    ]
    return [(batch.input_ids, batch.labels) for batch in collated]


def learn(batches: list[Batch], device: torch.device, precision: str) -> list[float]:
    """Return the loss of every step of a full fine-tuning as `pipo train` does it."""
    model = load_checkpoint(bundled_model("tiny-student"), device=device)
    model.train()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, betas=(0.9, 0.95))
    losses = []
    for ids, labels in batches:
        arithmetic = (
            torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        )
        with arithmetic:
            loss = model(input_ids=ids.to(device), labels=labels.to(device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_bf16_learns_as_fp32_does(device: torch.device, batches: list[Batch]) -> None:
    exact = learn(batches, torch.device("cpu"), "fp32")
    ours = learn(batches, device, "bf16")
    assert exact[-1] < 0.6 * exact[0]
    assert ours[0] == pytest.approx(exact[0], rel=0.02)
    assert np.mean(ours[-5:]) == pytest.approx(np.mean(exact[-5:]), rel=0.06)


def test_a_step_gives_figures(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published vocabulary on the CPU takes its time, so the rest of the model is small there."""
    small = Shape(64, 64, 4, heads=1, kv_heads=1, value_heads=16, tied=True)
    monkeypatch.setitem(shapes.SHAPES, "small", small)
    if device.type == "cuda":
        figures = measure("qwen3.5-0.8b", device=device, tokens=8192, steps=2)
    else:
        figures = measure("small", device=device, precision="fp32", tokens=32, steps=2, chunk=16)
    assert figures["tokens_a_second"] > 0
    assert figures["peak_bytes"] > 1e6
    assert all(np.isfinite(figures["losses"]))
    assert figures["losses"][-1] < figures["losses"][0]
    if device.type == "cuda" and figures["estimated_bytes"] is not None:
        assert figures["peak_bytes"] < 1.1 * figures["estimated_bytes"]
