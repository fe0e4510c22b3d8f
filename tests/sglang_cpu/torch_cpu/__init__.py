"""A platform plugin for SGLang: a CPU through PyTorch alone.

SGLang's own CPU platform needs kernels that its wheels do not carry.
"""


def activate() -> str | None:
    """Return the platform's class, unless there is a GPU."""
    import torch  # here, because every Python of the environment imports this package when it starts

    return None if torch.cuda.is_available() else "torch_cpu.platform.TorchCpuPlatform"
