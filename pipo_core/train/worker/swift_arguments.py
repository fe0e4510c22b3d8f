"""From a training's recipe to ms-swift's arguments."""

from pathlib import Path
from typing import Any

from pipo_core.recipes.opd import AnyTraining, DistillRecipe
from pipo_core.train.trainable import keeps_fp32_weights, modules_in_full

MODEL_TYPE = "pipo_qwen3_5"
SFT_TEMPLATE = "pipo_qwen3_5"
OPD_TEMPLATE = "pipo_qwen3_5_distill"

_UNLIMITED = 2**31 - 1


def swift_arguments(
    recipe: AnyTraining, checkpoints: Path, resume_from: Path | None, *, on_cpu: bool
) -> dict[str, Any]:
    """Return the keyword arguments of ms-swift's ``SftArguments``.

    Args:
        recipe: what to train; its paths are real folders and files.
        checkpoints: where checkpoints go.
        resume_from: the checkpoint to go on from.
        on_cpu: whether there is no GPU; several processes on CPUs need the gloo backend.
    """
    optimizer, batch = recipe.optimizer, recipe.batch
    schedule: str = optimizer.schedule
    if schedule == "constant" and optimizer.warmup_ratio:
        schedule = "constant_with_warmup"
    distills = isinstance(recipe, DistillRecipe)
    validation = None if isinstance(recipe, DistillRecipe) else recipe.data.validation
    full = recipe.tuning.method == "full"
    fp32_weights = recipe.precision == "fp32" or (full and keeps_fp32_weights(recipe))
    return {
        "model": recipe.model,
        "model_type": MODEL_TYPE,
        "template": OPD_TEMPLATE if distills else SFT_TEMPLATE,
        "task_type": "causal_lm",
        "torch_dtype": "float32" if fp32_weights else "bfloat16",
        "bf16": recipe.precision == "bf16",
        "fp16": False,
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and recipe.launch.processes * recipe.launch.nodes > 1 else None,
        **_tuning(recipe),
        # `SftSession` and `OpdSession` tokenize the rows and leave out the long ones.
        "dataset": [recipe.data.train],
        "val_dataset": [validation] if validation else [],
        "max_length": _UNLIMITED,
        "enable_thinking": True,
        "add_non_thinking_prefix": False,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_ratio": optimizer.warmup_ratio,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "per_device_train_batch_size": batch.per_device,
        "per_device_eval_batch_size": batch.per_device,
        "gradient_accumulation_steps": batch.accumulation,
        "group_by_length": batch.group_by_length,
        "num_train_epochs": recipe.epochs if recipe.epochs is not None else 1.0,
        "max_steps": recipe.max_steps if recipe.max_steps is not None else -1,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "deepspeed": recipe.launch.deepspeed,
        "ddp_find_unused_parameters": False,
        "output_dir": str(checkpoints),
        "save_strategy": "steps",
        "save_steps": recipe.save.every_steps,
        "save_total_limit": recipe.save.keep,
        "eval_strategy": "steps" if validation else "no",
        "eval_steps": recipe.save.every_steps if validation else None,
        "resume_from_checkpoint": None if resume_from is None else str(resume_from),
        "logging_steps": recipe.log_every_steps,
        "logging_nan_inf_filter": False,
        # The collator asks the trainer how far it is, so it must run in its process, and not ahead of it.
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "report_to": ["none"],
        "disable_tqdm": True,
        "add_version": False,
        "check_model": False,
        "use_hf": True,
        "use_logits_to_keep": False,
    }


def _tuning(recipe: AnyTraining) -> dict[str, Any]:
    """Return the arguments that say which weights train."""
    tuning = recipe.tuning
    if tuning.leaves_model:
        return {"tuner_type": "full"}
    return {
        "tuner_type": "lora",
        "lora_rank": tuning.rank,
        "lora_alpha": tuning.alpha,
        "lora_dropout": tuning.dropout,
        "target_modules": list(tuning.targets),
        "modules_to_save": modules_in_full(recipe),
    }
