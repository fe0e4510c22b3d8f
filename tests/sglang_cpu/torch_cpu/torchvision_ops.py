"""Lets `import torchvision` pass where its compiled part, made for CUDA, does not load.

It registers operators of that part when it is imported; the two that it asks for are declared here first. A ``.pth``
file of the environment imports this module when Python starts.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the operators just before torchvision is imported for the first time, and finds nothing."""

    library: Any = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision" and type(self).library is None:
            import torch

            library = type(self).library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
