"""How much memory a training takes on each GPU, before it is started.

Weights are counted exactly, on a model without data. The activations that a forward pass keeps for the backward pass
are estimated from the layers' widths and from bytes a position that were measured in plain PyTorch (`_LAYER`);
docs/gpu-checks.md says how far off that is. The estimate is for the longest micro-batch: ``per_device`` rows of
``data.max_length`` tokens, with the most PADs that the recipe's phases insert.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.errors import CheckpointError, UsageError
from pipo_core.model.checkpoint import empty_model, load_config
from pipo_core.model.chunk_size import MOST, MOST_OF_DIVERGENCE
from pipo_core.model.shapes import shape_config
from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.recipes.sft import PadPhase
from pipo_core.train.plan import kernels
from pipo_core.train.trainable import frozen_modules, keeps_fp32_weights, modules_in_full

_ZERO_BUCKET = 200_000_000  # numbers that ZeRO reduces at once with ms-swift's settings
_LIBRARIES = {"bf16": 1_500_000_000, "fp32": 500_000_000}  # the CUDA context, cuBLAS and NCCL; on a CPU, the process
_FLA_PER_VALUE = 60  # counted from fla's source, not measured


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU for the longest micro-batch, and its positions.

    Attributes:
        positions: slots of a pair model's micro-batch, tokens of an uncompressed model's.
        weights: of the model and its adapters.
        gradients: of the weights that train.
        optimizer: AdamW's two moments, and fp32 copies if the weights that train are bf16.
        activations: kept for the backward pass.
        head: what the LM head's loss takes while it is computed, beyond what one layer takes.
        libraries: the CUDA context and the libraries' own buffers.
        teacher: weights of a distillation's teacher on the student's GPU.
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
        """The sum of all parts, in bytes."""
        training = self.weights + self.gradients + self.optimizer + self.activations + self.head
        return training + self.libraries + self.teacher


class _Bytes(NamedTuple):
    """Bytes of one layer for a position and a unit of each of its widths."""

    hidden: int
    inner: int
    query: int
    key: int
    value: int

    def of(self, config: Qwen3_5TextConfig, kind: str, *, fast: bool) -> int:
        """Return the bytes of a layer for one position.

        Args:
            config: for the widths.
            kind: ``full_attention`` or ``linear_attention``.
            fast: whether flash-linear-attention computes the layer.
        """
        total: int = self.hidden * config.hidden_size + self.inner * config.intermediate_size
        if kind == "full_attention":
            total += self.query * config.num_attention_heads * config.head_dim
            total += self.key * config.num_key_value_heads * config.head_dim
        else:
            value = min(self.value, _FLA_PER_VALUE) if fast else self.value
            total += value * config.linear_num_value_heads * config.linear_value_head_dim
        return total


# By bytes of an activation and whether adapters train: what a layer holds at the peak of its forward and backward
# computation, and what it keeps between the two. Slopes of the allocated bytes over length and widths, on a CPU.
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


def estimate_of(recipe: AnyTraining) -> MemoryEstimate | None:
    """Return what a training takes on each GPU; None if the shape of its model, or of its teacher, is not known.

    Args:
        recipe: its models are folders or names of published sizes, which need not be downloaded.
    """
    try:
        config = config_of(recipe.model)
        teacher = None
        if isinstance(recipe, DistillRecipe) and recipe.teacher is not None and recipe.teacher_engine is None:
            teacher = config_of(recipe.teacher)
        return estimate_memory(recipe, config, fast_kernels=kernels()["flash-linear-attention"], teacher=teacher)
    except (CheckpointError, UsageError):  # the training itself says what is wrong
        return None


def config_of(model: str) -> Qwen3_5TextConfig:
    """Return the configuration of a checkpoint folder or of a published size.

    Raises:
        CheckpointError: if the folder's configuration is damaged.
        UsageError: if it is neither.
    """
    folder = Path(model)
    return load_config(folder) if (folder / "config.json").is_file() else shape_config(model)


def estimate_memory(
    recipe: AnyTraining, config: Qwen3_5TextConfig, *, fast_kernels: bool, teacher: Qwen3_5TextConfig | None = None
) -> MemoryEstimate:
    """Return what a training takes on each GPU, from the shapes of its models.

    Args:
        recipe: what to train.
        config: of the model.
        fast_kernels: whether flash-linear-attention computes the linear-attention layers.
        teacher: of a distillation's teacher; None for fine-tuning, and if servers answer for it. The teacher's
            activations and the rollouts' caches are gone before the student's forward pass, and are not counted.

    Raises:
        CheckpointError: if no model can be built from a configuration.
    """
    total, trained = count_weights(recipe, config)
    lora = recipe.tuning.method != "full"  # where the gate trains alone, more than it takes: nothing is kept for it
    number = 4 if recipe.precision == "fp32" else 2
    masters = keeps_fp32_weights(recipe)
    zero = recipe.launch.deepspeed
    share = recipe.launch.processes * recipe.launch.nodes if zero else 1

    weights = total * (4 if masters and not lora else number)
    if lora:
        weights += trained * (4 if masters else number)
    if masters:  # bf16 copies of the fp32 weights, for the arithmetic
        weights += trained * 2
    gradients = trained * (4 if masters or zero else number)
    optimizer = trained * (12 if zero else 8)
    if zero:
        gradients = gradients // share + 2 * _ZERO_BUCKET * number
        optimizer //= share
    if zero == "zero3":
        weights //= share

    positions = recipe.batch.per_device * max_positions(recipe)
    peak, kept = (
        [part.of(config, kind, fast=fast_kernels) for kind in (*config.layer_types, "full_attention")]  # MTP block last
        for part in _LAYER[number, lora]
    )
    hidden = config.hidden_size
    if recipe.gradient_checkpointing:
        between = (config.num_hidden_layers + 1) * hidden * number
        layer_bytes = max(peak)
    else:
        between = sum(kept)
        layer_bytes = max(at_peak - after for at_peak, after in zip(peak, kept, strict=True))
    held = positions * (between + _OUTSIDE[number] * hidden)
    if not lora and config.tie_word_embeddings:  # the LM head's gradient waits for the embedding's
        held += number * config.vocab_size * hidden
    work = positions * layer_bytes
    head = head_bytes(recipe, config, positions)
    libraries = _LIBRARIES[recipe.precision]
    beside = 0
    if isinstance(recipe, DistillRecipe) and teacher is not None:
        backbone, lm_head = teacher_bytes(recipe, teacher)
        # An offloaded teacher needs its memory before the student's forward pass.
        beside = lm_head + (max(0, backbone - held - work) if recipe.offload else backbone)
    return MemoryEstimate(positions, weights, gradients, optimizer, held + work, max(0, head - work), libraries, beside)


def teacher_bytes(recipe: DistillRecipe, config: Qwen3_5TextConfig) -> tuple[int, int]:
    """Return the bytes of a teacher's backbone on the student's GPU, and of its LM head if that is a copy."""
    number = 4 if recipe.precision == "fp32" else 2
    lm_head: int = number * config.vocab_size * config.hidden_size
    if recipe.teacher_device != "same":
        return 0, lm_head
    backbone = number * sum(weight.numel() for weight in empty_model(config).text_model.parameters())
    return backbone, 0 if config.tie_word_embeddings and not recipe.offload else lm_head


def count_weights(recipe: AnyTraining, config: Qwen3_5TextConfig) -> tuple[int, int]:
    """Return how many numbers the model holds, and how many train: with LoRA, adapters and modules in full."""
    model = empty_model(config)
    frozen = tuple(frozen_modules(recipe))
    total = sum(weight.numel() for weight in model.parameters())
    if recipe.tuning.method == "full":
        unchanged = sum(
            weight.numel() for name, weight in model.named_parameters() if frozen and name.startswith(frozen)
        )
        return total, total - unchanged
    trained = sum(
        weight.numel() for name in modules_in_full(recipe) for weight in model.get_submodule(name).parameters()
    )
    if recipe.tuning.method == "gate":
        return total, trained
    for name, module in model.named_modules():
        adapted = isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in recipe.tuning.targets
        if adapted and not (frozen and name.startswith(frozen)):
            trained += recipe.tuning.rank * (module.in_features + module.out_features)
    return total, trained


def max_positions(recipe: AnyTraining) -> int:
    """Return the positions of the longest row: its tokens, or its slots with the most PADs that a phase inserts."""
    if isinstance(recipe, DistillRecipe):
        return math.ceil(recipe.data.max_prompt / 2) + recipe.rollout.slots
    tokens = recipe.data.max_length
    if recipe.objective == "regular":
        return tokens
    return math.ceil(tokens * max([0.5, *map(_slots_per_token, recipe.pad_augmentation)]))


def _slots_per_token(phase: PadPhase) -> float:
    """Return the most slots a token: ``split`` adds one for each split pair, ``segment`` has 2 − ρ tokens a slot."""
    if phase.all_pads > 0:
        return 1.0
    return (1 + phase.rho_max) / 2 if phase.kind == "split" else 1 / (2 - phase.rho_max)


def head_bytes(recipe: AnyTraining, config: Qwen3_5TextConfig, positions: int) -> int:
    """Return the bytes that the chunked LM-head losses hold at their peak: one chunk of scores, and gradients.

    Args:
        recipe: for the chunk and what trains.
        config: of the model.
        positions: of the micro-batch.
    """
    number = 4 if recipe.precision == "fp32" else 2
    distills = isinstance(recipe, DistillRecipe)
    given, most = (
        (recipe.kl.chunk, MOST_OF_DIVERGENCE) if isinstance(recipe, DistillRecipe) else (recipe.loss.chunk, MOST)
    )
    chunk = given or most
    scores = min(chunk, positions) * config.vocab_size
    # fp32 scores, beside bf16 ones in bf16; a divergence holds both models' scores and a gradient.
    workspace: int = scores * (12 if distills else 4 if number == 4 else 6)
    gradients: int = 2 * positions * config.hidden_size * number
    if recipe.tuning.method == "full":  # the LM head trains: a gradient for each loss, and their product, in fp32
        gradients += 3 * 4 * config.vocab_size * config.hidden_size
    return workspace + gradients
