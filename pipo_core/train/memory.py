"""How much memory a training takes on each GPU, before it is started.

Weights are counted exactly, on a model without data. What a pass keeps for its gradient is estimated from the widths
of the layers with bytes a position that were measured in plain PyTorch (`_LAYER`); docs/gpu-checks.md says how far off
that is. The longest row decides: a pass of ``per_device`` rows of ``data.max_length`` tokens at the most PADs that the
recipe's phases draw.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextModel

from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.recipes.sft import PadPhase
from pipo_core.train.arguments import frozen_modules, master_weights, modules_in_full

_ZERO_BUCKET = 200_000_000  # numbers that ms-swift's ZeRO settings reduce at once
_LIBRARIES = {"bf16": 1_500_000_000, "fp32": 500_000_000}  # the CUDA context, cuBLAS and NCCL; on a CPU, the process
_FLA_PER_VALUE = 60  # counted from fla's source, not measured


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU at the longest row, and the positions of such a pass.

    Attributes:
        positions: slots of a pair pass, tokens of an uncompressed one, over ``per_device`` rows.
        weights: of the model and what trains beside it.
        gradients: of what trains.
        optimizer: AdamW's two moments, and fp32 copies where the weights that train are bf16.
        activations: what the pass keeps for its gradient.
        head: what the LM head's loss needs while it is computed, if that is more than a layer's pass needs.
        libraries: what they take for themselves.
        teacher: weights of a distillation's teacher that lie on the student's GPU.
    """

    positions: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    libraries: int
    teacher: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        training = self.weights + self.gradients + self.optimizer + self.activations + self.head
        return training + self.libraries + self.teacher


class _Bytes(NamedTuple):
    """Bytes a position of one layer, for each unit of a width: `hidden`, `inner`, `query`, `key`, `value`."""

    hidden: int
    inner: int
    query: int
    key: int
    value: int

    def of(self, config: Qwen3_5TextConfig, kind: str, *, fast: bool) -> int:
        """Return the bytes a position of a layer of this kind."""
        total: int = self.hidden * config.hidden_size + self.inner * config.intermediate_size
        if kind == "full_attention":
            total += self.query * config.num_attention_heads * config.head_dim
            total += self.key * config.num_key_value_heads * config.head_dim
        else:
            value = min(self.value, _FLA_PER_VALUE) if fast else self.value
            total += value * config.linear_num_value_heads * config.linear_value_head_dim
        return total


# By bytes of an activation and whether adapters train: what a layer holds at the peak of its forward and backward
# pass, and what it keeps between them. Slopes of the allocated bytes over length and widths, on a CPU.
_LAYER = {
    (4, False): (_Bytes(28, 24, 32, 16, 118), _Bytes(24, 16, 32, 16, 118)),
    (4, True): (_Bytes(60, 24, 32, 12, 114), _Bytes(48, 20, 32, 12, 110)),
    (2, False): (_Bytes(28, 12, 18, 12, 116), _Bytes(22, 8, 18, 12, 101)),
    (2, True): (_Bytes(44, 22, 18, 8, 116), _Bytes(40, 12, 18, 8, 95)),
}
_OUTSIDE = {
    4: 22,
    2: 14,
}  # embeddings, compressor, final norm, the MTP block's inputs: bytes a position and hidden unit


def estimate_memory(
    recipe: AnyTraining, config: Qwen3_5TextConfig, *, fast_kernels: bool, teacher: Qwen3_5TextConfig | None = None
) -> MemoryEstimate:
    """Return what a training takes on each GPU.

    Args:
        recipe: what to train.
        config: of the model.
        fast_kernels: whether flash-linear-attention computes the linear-attention layers.
        teacher: of a distillation's teacher. Its own pass, and the rollouts' caches, come before the student's pass and
            are not counted.
    """
    total, trained = count_weights(recipe, config)
    lora = recipe.tuning.method == "lora"
    number = 4 if recipe.precision == "fp32" else 2
    masters = master_weights(recipe)
    zero = recipe.launch.deepspeed
    share = recipe.launch.processes * recipe.launch.nodes if zero else 1

    weights = total * (4 if masters and not lora else number)
    if lora:
        weights += trained * (4 if masters else number)
    if masters:  # bf16 copies of the fp32 weights, which the arithmetic takes
        weights += trained * 2
    gradients = trained * (4 if masters or zero else number)
    optimizer = trained * (12 if zero else 8)
    if zero:
        gradients = gradients // share + 2 * _ZERO_BUCKET * number
        optimizer //= share
    if zero == "zero3":
        weights //= share

    positions = recipe.batch.per_device * longest_pass(recipe)
    peak, kept = (
        [part.of(config, kind, fast=fast_kernels) for kind in (*config.layer_types, "full_attention")]  # MTP block last
        for part in _LAYER[number, lora]
    )
    hidden = config.hidden_size
    if recipe.gradient_checkpointing:
        between = (config.num_hidden_layers + 1) * hidden * number
        pass_bytes = max(peak)
    else:
        between = sum(kept)
        pass_bytes = max(at_peak - after for at_peak, after in zip(peak, kept, strict=True))
    held = positions * (between + _OUTSIDE[number] * hidden)
    if not lora and config.tie_word_embeddings:  # the LM head's gradient waits for the embedding's
        held += number * config.vocab_size * hidden
    work = positions * pass_bytes
    head = head_bytes(recipe, config, positions)
    libraries = _LIBRARIES[recipe.precision]
    beside = 0
    if isinstance(recipe, DistillRecipe) and teacher is not None:
        backbone, lm_head = teacher_bytes(recipe, teacher)
        # One that comes and goes needs its room before the student's pass.
        beside = lm_head + (max(0, backbone - held - work) if recipe.offload else backbone)
    return MemoryEstimate(positions, weights, gradients, optimizer, held + work, max(0, head - work), libraries, beside)


def teacher_bytes(recipe: DistillRecipe, config: Qwen3_5TextConfig) -> tuple[int, int]:
    """Return what a teacher's backbone takes on the student's GPU, and its LM head if that is a copy."""
    number = 4 if recipe.precision == "fp32" else 2
    lm_head: int = number * config.vocab_size * config.hidden_size
    if recipe.teacher_device != "same":
        return 0, lm_head
    with torch.device("meta"):
        backbone = number * sum(weight.numel() for weight in Qwen3_5TextModel(config).parameters())
    return backbone, 0 if config.tie_word_embeddings and not recipe.offload else lm_head


def count_weights(recipe: AnyTraining, config: Qwen3_5TextConfig) -> tuple[int, int]:
    """Return how many numbers the model holds, and how many train: with LoRA, adapters and modules in full."""
    with torch.device("meta"):
        model = Qwen3_5ForCausalPIPO(config)
    frozen = tuple(frozen_modules(recipe))
    total = sum(weight.numel() for weight in model.parameters())
    if recipe.tuning.method == "full":
        still = sum(weight.numel() for name, weight in model.named_parameters() if frozen and name.startswith(frozen))
        return total, total - still
    trained = sum(
        weight.numel() for name in modules_in_full(recipe) for weight in model.get_submodule(name).parameters()
    )
    for name, module in model.named_modules():
        adapted = isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in recipe.tuning.targets
        if adapted and not (frozen and name.startswith(frozen)):
            trained += recipe.tuning.rank * (module.in_features + module.out_features)
    return total, trained


def longest_pass(recipe: AnyTraining) -> int:
    """Return the positions of the longest row: its slots, with the most PADs that a phase draws, or its tokens."""
    if isinstance(recipe, DistillRecipe):
        return math.ceil(recipe.data.max_prompt / 2) + recipe.rollout.slots
    tokens = recipe.data.max_length
    if recipe.objective == "regular":
        return tokens
    return math.ceil(tokens * max([0.5, *map(_slots_per_token, recipe.pad_augmentation)]))


def _slots_per_token(phase: PadPhase) -> float:
    """Splitting adds a slot for each split pair; cutting left to right makes slots of 2 − ρ tokens."""
    if phase.all_pads > 0:
        return 1.0
    return (1 + phase.rho_max) / 2 if phase.kind == "split" else 1 / (2 - phase.rho_max)


def head_bytes(recipe: AnyTraining, config: Qwen3_5TextConfig, positions: int) -> int:
    """Return what the chunked LM-head losses hold at their peak: one chunk of scores, and gradients (see `losses`)."""
    number = 4 if recipe.precision == "fp32" else 2
    distills = isinstance(recipe, DistillRecipe)
    chunk = recipe.kl.chunk if isinstance(recipe, DistillRecipe) else recipe.loss.chunk
    scores = min(chunk, positions) * config.vocab_size
    # fp32 scores, beside bf16 ones as they come or go; a divergence holds both models' and their gradient.
    workspace: int = scores * (12 if distills else 4 if number == 4 else 6)
    gradients: int = 2 * positions * config.hidden_size * number
    if recipe.tuning.method == "full":  # the LM head trains: its gradient of both losses, and their product, in fp32
        gradients += 3 * 4 * config.vocab_size * config.hidden_size
    return workspace + gradients
