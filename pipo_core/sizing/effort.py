"""How long a training takes, by its operations, and what it leaves on the disk."""

import math
from dataclasses import dataclass

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.bench.roofline import DEVICES
from pipo_core.decode.method import StepLoad
from pipo_core.decode.traffic import step_bytes
from pipo_core.model.sizes import ModelSizes, model_sizes
from pipo_core.recipes.methods import PAIRS
from pipo_core.recipes.opd import AnyTraining, DistillRecipe, TrainingProcess
from pipo_core.recipes.sft import PadPhase, TrainRecipe
from pipo_core.sizing.memory import count_weights

PEAK_FLOPS = DEVICES["H100"].flops
UTILISATION = 0.4
"""Share of the peak that well-kept trainings reach; an assumption, not measured here."""
_TOKEN_BYTES = 5
"""On disk, of the tokenized examples."""


@dataclass(frozen=True)
class Disk:
    """Bytes that a training leaves: tokenized examples, checkpoints, and the adapter or model with its merged copy."""

    examples: int
    checkpoints: int
    models: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.examples + self.checkpoints + self.models


def training_days(recipe: TrainRecipe, config: Qwen3_5TextConfig, tokens: int, rows: int) -> float:
    """Return the GPU-days of a fine-tuning on GPUs of `PEAK_FLOPS` at `UTILISATION`.

    A position costs 2 operations a weight forward, as many for the gradient of its inputs, as many again where weights
    train (not under LoRA), and the forward ones once more with gradient checkpointing. Attention costs
    ``4 · heads · dim`` for each position before it, times the same passes.

    Args:
        recipe: the fine-tuning.
        config: of the model.
        tokens: of all examples, in one epoch.
        rows: the examples.
    """
    sizes, pair = model_sizes(config), recipe.objective == "pipo"
    per_example = tokens / rows
    if pair:
        # The schedule's phases count by their length.
        phases = recipe.pad_augmentation
        begins = [0.0, *(phase.until for phase in phases)][:-1]
        parts = zip(begins, phases, strict=True)
        per_example *= sum((phase.until - begin) * _mean_slots_per_token(phase) for begin, phase in parts) or 0.5
    weights = sizes.layers + sizes.head + (_pair_weights(sizes) if pair else 0)
    operations = rows * _passes(recipe) * _forward_operations(config, weights, per_example) * _epochs(recipe, rows)
    return float(operations / (PEAK_FLOPS * UTILISATION) / 86_400)


def _mean_slots_per_token(phase: PadPhase) -> float:
    """Return the mean slots a token over ``rho ~ U(0, rho_max)``.

    ``split`` makes two slots of a share ρ of the pairs, so ``(1 + ρ)/2`` slots a token. ``segment`` has ``2 − ρ``
    tokens a slot, and one in a share ``all_pads`` of the examples.
    """
    most = phase.rho_max
    if phase.kind == "split":
        return (1 + most / 2) / 2
    cut = math.log(2 / (2 - most)) / most if most else 0.5
    return (1 - phase.all_pads) * cut + phase.all_pads


def distillation_days(
    recipe: DistillRecipe, student: Qwen3_5TextConfig, teacher: Qwen3_5TextConfig | None, questions: int
) -> float:
    """Return the GPU-days of a distillation whose every answer fills its slots: the most that it takes.

    A step writes its answers, whose slots move the student's weights and caches through a GPU's memory once each; has
    the teacher read them, two tokens a slot; and trains the student on them. GPUs are those of `training_days`, and
    reach the same share of their bandwidth.

    Args:
        recipe: the distillation.
        student: the configuration of the model that learns.
        teacher: the other one's; None if it runs on servers, whose time is not counted.
        questions: how many the data has; unused if the recipe says how many steps.
    """
    slots, answers = recipe.rollout.slots, recipe.batch.per_device * recipe.batch.accumulation
    engine = recipe.rollout.engine
    together = min(recipe.rollout.batch if isinstance(engine, TrainingProcess) else engine.concurrency, answers)
    load = StepLoad(context=slots, batch=together)  # on average, half of the answer's tokens
    moved = -(-answers // together) * slots * step_bytes(student, PAIRS.name, load)
    sizes = model_sizes(student)
    weights = sizes.layers + sizes.head + _pair_weights(sizes)
    learning = _passes(recipe) * _forward_operations(student, weights, slots)
    teaching = 0.0
    if teacher is not None:
        read = model_sizes(teacher)
        teaching = _forward_operations(teacher, read.layers + read.head, 2 * slots)
    seconds = moved / DEVICES["H100"].bandwidth + answers * (learning + teaching) / PEAK_FLOPS
    gpus = recipe.launch.processes * recipe.launch.nodes
    steps = recipe.max_steps or (recipe.epochs or 0) * questions / (answers * gpus)
    return float(steps * gpus * seconds / UTILISATION / 86_400)


def _pair_weights(sizes: ModelSizes) -> int:
    """Return how many weights a pair model's pass uses besides a regular one's."""
    return sizes.compressor + sizes.mtp + sizes.confidence + sizes.head


def _passes(recipe: AnyTraining) -> int:
    """Return how often training goes through the network, a forward pass being one."""
    if recipe.tuning.method == "gate":  # no gradient goes through the network
        return 1
    return 2 + (recipe.tuning.method == "full") + recipe.gradient_checkpointing


def _forward_operations(config: Qwen3_5TextConfig, weights: float, positions: float) -> float:
    """Return the operations of a forward pass over one example."""
    full_layers = sum(kind == "full_attention" for kind in config.layer_types)
    attention = 4 * config.num_attention_heads * config.head_dim * full_layers * positions / 2
    return float(positions * (2 * weights + attention))


def training_disk(recipe: AnyTraining, config: Qwen3_5TextConfig, tokens: int) -> Disk:
    """Return what a training leaves on the disk.

    Args:
        recipe: the training.
        config: of the model.
        tokens: of all examples; 0 for a distillation, which keeps none.
    """
    total, trained = count_weights(recipe, config)
    number = 4 if recipe.precision == "fp32" else 2
    lora = recipe.tuning.method == "lora"
    written = trained if lora else total
    # A checkpoint holds the weights that train, in fp32 under LoRA, and AdamW's two moments in fp32.
    checkpoint = written * (4 if lora else number) + trained * 8
    models = total * number + (trained * 4 if lora else 0)
    return Disk(tokens * _TOKEN_BYTES, (recipe.save.keep + 1) * checkpoint, models)


def _epochs(recipe: TrainRecipe, rows: int) -> float:
    if recipe.max_steps is None:
        return float(recipe.epochs or 0)
    launch, batch = recipe.launch, recipe.batch
    return recipe.max_steps * batch.per_device * batch.accumulation * launch.processes * launch.nodes / rows
