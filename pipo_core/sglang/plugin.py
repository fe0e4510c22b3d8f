"""What SGLang calls in each of its processes (entry point ``sglang.srt.plugins``)."""

from sglang.srt.configs.linear_attn_model_registry import LinearAttnModelSpec, register_linear_attn_model
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from pipo_core.sglang import ARCHITECTURE
from pipo_core.sglang.config import PairConfig
from pipo_core.sglang.hooks import HOOKS

_BACKEND = "sglang.srt.layers.attention.linear.gdn_backend.GDNAttnBackend"


def register() -> None:
    """Register the hooks, and pair models as ones with linear attention."""
    for hook in HOOKS:
        HookRegistry.register(hook.target, hook.function, HookType[hook.kind])
    register_linear_attn_model(
        LinearAttnModelSpec(
            config_class=PairConfig,
            backend_class_name=_BACKEND,
            arch_names=[ARCHITECTURE],
            support_mamba_cache_extra_buffer=True,
        )
    )
