"""The network: a Qwen3.5 backbone that reads latents of token pairs, its heads, its losses and its files."""

from pipo_core.model.checkpoint import load_checkpoint
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.outputs import ListedTargets, LossWeights, PairOutput, PIPOOutput, TeacherTargets
from pipo_core.model.writing import save_checkpoint

__all__ = [
    "ListedTargets",
    "LossWeights",
    "PIPOOutput",
    "PairOutput",
    "Qwen3_5ForCausalPIPO",
    "TeacherTargets",
    "load_checkpoint",
    "save_checkpoint",
]
