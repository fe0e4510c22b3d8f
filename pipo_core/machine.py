"""Facts about the machine and the installed versions, found without importing the packages."""

import os
import platform
import resource
import subprocess
from importlib import metadata
from pathlib import Path

from pipo_core import __version__

PACKAGES = ("torch", "transformers", "ms-swift")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results; absent packages are left out."""
    found = {"python": platform.python_version(), "pipo": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int | float | list[str]]:
    """Return the processor, the number of cores for this process, memory in GiB, GPUs and operating system."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()}",
    }


def clocks() -> list[str]:
    """Return the clocks of each GPU, one line each, as the driver reports them; without a GPU, each core's MHz."""
    words = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        asked = None
    if asked is not None and asked.returncode == 0:
        return asked.stdout.strip().splitlines()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return [line.partition(":")[2].strip() + " MHz" for line in lines if line.startswith("cpu MHz")]


def peak_memory() -> float:
    """Return the peak resident memory in GiB of this process or of any of its ended children, the larger one."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20, 3)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    # Read from the driver: asking torch would import it, and a skipped stage must be quick.
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names
