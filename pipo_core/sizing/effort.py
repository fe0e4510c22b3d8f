"""How long a fine-tuning takes, by its operations, and what it leaves on the disk."""

from dataclasses import dataclass

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.bench.roofline import DEVICES
from pipo_core.model.sizes import model_sizes
from pipo_core.recipes.opd import AnyTraining
from pipo_core.recipes.sft import TrainRecipe
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
        # Of `rho ~ U(0, rho_max)` of the pairs each becomes two slots; the schedule's parts count by their length.
        begins = [0.0, *(phase.until for phase in recipe.pad_augmentation[:-1])]
        split = sum(
            (phase.until - begin) * phase.rho_max / 2
            for begin, phase in zip(begins, recipe.pad_augmentation, strict=False)
        )
        per_example = per_example / 2 * (1 + split)
    weights = sizes.layers + sizes.head
    if pair:
        weights += sizes.compressor + sizes.mtp + sizes.confidence + sizes.head
    passes = 2 + (recipe.tuning.method == "full") + recipe.gradient_checkpointing
    full_layers = sum(kind == "full_attention" for kind in config.layer_types)
    attention = 4 * config.num_attention_heads * config.head_dim * full_layers * per_example / 2
    operations = rows * per_example * passes * (2 * weights + attention) * _epochs(recipe, rows)
    return float(operations / (PEAK_FLOPS * UTILISATION) / 86_400)


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
