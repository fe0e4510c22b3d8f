"""A training that fits a test: a random model of a few thousand weights, its tokenizer, and sums to learn."""

import json
import random
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3_5TextConfig

from pipo_core.model import Qwen3_5ForCausalPIPO, save_checkpoint
from pipo_core.recipes.sft import TrainRecipe

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with Qwen's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(folder: Path, *, layout: Literal["base", "pipo"] = "base", tied: bool = True) -> Path:
    """Write a random model with its tokenizer and return its folder."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder.parent / "tokenizer")
    config = Qwen3_5TextConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        linear_num_key_heads=1,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        tie_word_embeddings=tied,
        max_position_embeddings=512,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.25,
            "mrope_section": [1, 1, 0],
            "mrope_interleaved": True,
        },
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = Qwen3_5ForCausalPIPO(config)
    return save_checkpoint(model, folder, layout=layout, tokenizer_from=folder.parent / "tokenizer")


def write_rows(file: Path, count: int, *, seed: int = 0, digits: int = 2) -> Path:
    """Write ``count`` sums with worked answers."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
        answer = f"<think>\nadd {a} and {b}</think>\n\n{a + b}"
        rows.append({"messages": [{"role": "user", "content": f"{a}+{b}"}, {"role": "assistant", "content": answer}]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_even_rows(file: Path, count: int) -> Path:
    """Write ``count`` rows of one length, so that every batch without PADs weighs the same in a mean."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{a}+1"},
                {"role": "assistant", "content": f"<think>\nadd\n</think>\n\n{a + 1}"},
            ]
        }
        for a in range(10, 10 + count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def recipe(model: Path, rows: Path, **changes: object) -> TrainRecipe:
    """Return a recipe for a few steps on a CPU, with ``changes`` to its keys."""
    settings: dict[str, Any] = {
        "objective": "pipo",
        "model": str(model),
        "seed": 3,
        "data": {"train": str(rows), "max_length": 256},
        "pad_augmentation": [
            {"kind": "split", "rho_max": 0.25, "until": 0.5},
            {"kind": "segment", "rho_max": 0.5, "all_pads": 0.1},
        ],
        "tuning": {"method": "full"},
        "optimizer": {"learning_rate": 1e-3},
        "batch": {"per_device": 4},
        "max_steps": 6,
        "precision": "fp32",
        "save": {"every_steps": 3},
        "log_every_steps": 2,
        "launch": {"threads": 1},
    }
    if changes.get("objective") == "regular":
        settings["pad_augmentation"] = []
    settings |= changes
    # Beside the rows, so that runs of one test, and of one set of rows, share it.
    settings["data"] = {"cache": str(rows.parent / "cache"), **dict(settings["data"])}
    return TrainRecipe.model_validate(settings)
