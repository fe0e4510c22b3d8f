"""What a measurement ran on: figures of speed mean nothing without it."""

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("pipo", "torch", "transformers")


def facts(device: str) -> dict[str, object]:
    """Return what `device` (auto, cpu or cuda) stands for, processor, cores, threads and versions, JSON-able.

    Nothing in it names the machine.
    """
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
