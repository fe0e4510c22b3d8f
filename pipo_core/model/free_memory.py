"""The memory that is free on a device."""

from pathlib import Path

import psutil
import torch

_CGROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the memory that this process can still take on ``device``."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(psutil.virtual_memory().available, cgroup_free(_CGROUPS))


def cgroup_free(root: Path) -> int:
    """Return the bytes that this process can still take under its control group's limit; 2^62 without a limit.

    Cached file contents count as free. A container sees its own group at the root, in version 1 or 2.

    Args:
        root: where the control groups are mounted.
    """
    for folder, limit, used, cached in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if not (folder / limit).is_file():
            continue
        most = (folder / limit).read_text(encoding="ascii").strip()
        if most == "max":
            break
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        statistics = dict(line.split(maxsplit=1) for line in lines)
        taken = int((folder / used).read_text(encoding="ascii")) - int(statistics.get(cached, 0))
        return max(int(most) - taken, 0)
    return 2**62
