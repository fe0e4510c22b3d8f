"""Hook where a checkpoint is recognised."""

from pathlib import Path
from typing import Any

from pipo_core.sglang import ARCHITECTURE, TEXT_ARCHITECTURE


def is_pair_config(config: Any) -> bool:
    """Return whether a model's configuration is a pair model's."""
    return ARCHITECTURE in (getattr(config, "architectures", None) or ())


def adopt(config: Any, model: str, *_: Any, **__: Any) -> Any:
    """Give SGLang the configuration and the class of a checkpoint that pipo wrote; None leaves all as it is.

    What is imported here, a server of any other model never loads.
    """
    if is_pair_config(config):
        from pipo_core.sglang.config import as_pair_config, end_as_trained
        from pipo_core.sglang.model import Qwen3_5ForCausalPIPO

        _register(ARCHITECTURE, Qwen3_5ForCausalPIPO)
        end_as_trained(config, Path(model))
        return as_pair_config(config)
    if TEXT_ARCHITECTURE in (getattr(config, "architectures", None) or ()) and _has_hub_names(Path(model)):
        from pipo_core.sglang.config import end_as_trained, rotate_as_trained
        from pipo_core.sglang.plain import HubNamedText

        _register(TEXT_ARCHITECTURE, HubNamedText)
        rotate_as_trained(config)
        end_as_trained(config, Path(model))
    return None


def _register(architecture: str, network: type) -> None:
    from sglang.srt.models.registry import ModelRegistry

    ModelRegistry.models[architecture] = network


def _has_hub_names(folder: Path) -> bool:
    """Return whether a text model's weights have the names that they have in the hub's multimodal checkpoints.

    SGLang expects them in those only. In a text model it would pass over every one of them and serve noise.
    """
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return False
    with safe_open(files[0], framework="pt") as opened:
        return any(name.startswith("model.language_model.") for name in opened.keys())  # noqa: SIM118 - no dictionary
