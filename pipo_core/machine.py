"""Facts about the machine and the installed packages, found without importing those."""

import importlib.util
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil

from pipo_core import __version__
from pipo_core.errors import MachineError

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
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()}",
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def missing_package(module: str, what: str, extra: str) -> MachineError | None:
    """Return the error to raise if an optional package is not installed; None if it is.

    Args:
        module: the package's module.
        what: what needs it, and its name, for the message.
        extra: of pipo's extras, the one that brings it.
    """
    if importlib.util.find_spec(module) is not None:
        return None
    return MachineError(what, hint=f'in the checkout of pipo: pip install -c constraints.txt -e ".[{extra}]"')


def clocks() -> list[str]:
    """Return the clocks of each GPU, one line each, as the driver reports them; without a GPU, each core's MHz."""
    words = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        asked = None
    if asked is not None and asked.returncode == 0:
        return asked.stdout.strip().splitlines()
    try:
        return [f"{core.current:.3f} MHz" for core in psutil.cpu_freq(percpu=True) or ()]
    except (OSError, RuntimeError, NotImplementedError, AttributeError):  # some virtual machines and Macs have none
        return []


def peak_memory() -> float:
    """Return the peak resident memory in GiB of this process or of any of its ended children, the larger one."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1 << 10  # getrusage counts bytes on macOS, KiB elsewhere
    return round(max(resource.getrusage(kind).ru_maxrss for kind in kinds) * unit / 2**30, 3)


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
