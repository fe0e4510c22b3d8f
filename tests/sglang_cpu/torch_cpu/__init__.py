"""A platform plugin for SGLang: a CPU through PyTorch alone.

SGLang's own CPU platform needs kernels that its wheels do not carry.
"""

import torch


def activate() -> str | None:
    """Return the platform's class, unless there is a GPU."""
    return None if torch.cuda.is_available() else "torch_cpu.platform.TorchCpuPlatform"
