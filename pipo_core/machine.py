"""What a stage ran on: machine and versions, found without importing any of them."""

import os
import platform
import resource
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("pipo", "torch", "transformers", "ms-swift")


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that decides results; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int | float | list[str]]:
    """Return the processor, the cores this process may use, memory in GiB, GPUs and operating system."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()}",
    }


def clocks() -> list[str]:
    """Return what the GPUs' driver says of their clocks, one line each, or the cores' current MHz on a CPU."""
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
    """Return the most memory (GiB, resident) that this process, or any ended child of it, has held so far."""
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
    # The driver's own listing: asking torch would import it, and a skipped stage must stay quick.
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names
