import os
from typing import Any

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import PlatformCapabilities, SRTPlatform

_GRAPHS = bool(os.environ.get("TORCH_CPU_GRAPHS"))
"""Whether decode steps are recorded and replayed, see `graphs`."""


class TorchCpuPlatform(CpuDeviceMixin, SRTPlatform):
    """A CPU on which everything runs as plain PyTorch."""

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"
    capabilities = PlatformCapabilities(graph_capture=_GRAPHS)

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_dispatch_key_name(self) -> str:
        return "native"

    def is_pin_memory_available(self, device: Any = None) -> bool:
        return False

    def get_compile_backend(self, mode: Any = None) -> str:
        return "eager"

    def get_graph_runner_cls(self) -> type | None:
        if not _GRAPHS:
            return None
        from torch_cpu.graphs import CpuDecodeGraphRunner  # SGLang's runners need the platform first

        runner: type = CpuDecodeGraphRunner
        return runner

    def get_full_graph_backend_cls(self) -> type[Any]:
        from torch_cpu.graphs import CpuFullGraphs

        backend: type[Any] = CpuFullGraphs
        return backend

    def support_mamba_cache_extra_buffer(self) -> bool:
        return True
