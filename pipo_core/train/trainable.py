"""Which modules of the pair model train, by recipe. Names are those of the model's modules."""

from pipo_core.recipes.opd import AnyTraining

_MTP_IN_FULL = (
    "mtp.fc",
    "mtp.pre_fc_norm_embedding",
    "mtp.pre_fc_norm_hidden",
    "mtp.norm",
    "mtp.layers.0.input_layernorm",
    "mtp.layers.0.post_attention_layernorm",
    "mtp.layers.0.self_attn.q_norm",
    "mtp.layers.0.self_attn.k_norm",
)
_GATE = "confidence_head"
_PAIR_ONLY = ("compressor", _GATE)
_ALL_BUT_THE_GATE = ("model", "lm_head", "compressor", "mtp")


def modules_in_full(recipe: AnyTraining) -> list[str]:
    """Return the modules that train in full beside adapters (paper, section 4.1): new ones, ``mtp.fc``, MTP norms.

    If the gate trains alone, it is the only one.
    """
    if recipe.tuning.method == "gate":
        return [_GATE]
    mtp = _MTP_IN_FULL if recipe.loss.mtp or recipe.objective == "pipo" else ()
    return [*(_PAIR_ONLY if recipe.objective == "pipo" else ()), *mtp]


def frozen_modules(recipe: AnyTraining) -> list[str]:
    """Return the modules that stay unchanged: all but a gate that trains alone, or what the objective does not run."""
    if recipe.tuning.method == "gate":
        return list(_ALL_BUT_THE_GATE)
    if recipe.objective == "pipo":
        return []
    return [*_PAIR_ONLY, *(() if recipe.loss.mtp else ("mtp",))]


def keeps_fp32_weights(recipe: AnyTraining) -> bool:
    """Return whether pipo keeps the trained weights in fp32 while the arithmetic runs in bf16.

    An update of 1e-4 is lost in bf16, whose neighbours of 1.0 are 0.0078 apart. DeepSpeed keeps fp32 copies itself.
    """
    return recipe.precision == "bf16" and recipe.launch.deepspeed is None
