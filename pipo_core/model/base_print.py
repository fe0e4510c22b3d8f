"""A short fingerprint of a model's weights, to tell bases of one shape apart without reading gigabytes.

Adapters on disk hold it, so it stays as it is. `sampled_print` is another one, which sees more.
"""

from pathlib import Path

import torch
from safetensors import safe_open

from pipo_core.files import fingerprint
from pipo_core.model.weight_files import locate_weights

_LEADING = 64
"""Values of each weight that count. Two trained models differ in nearly all of them."""


def weights_print(folder: Path) -> str:
    """Return a fingerprint of names, shapes and the leading values of all weights of a checkpoint.

    It does not depend on number of files, prefixes of names or the number format in which the values are stored, as
    far as bf16 holds them.

    Raises:
        CheckpointError: if files are missing or damaged.
    """
    entries: list[object] = []
    for name, source in sorted(locate_weights(folder).items()):
        with safe_open(source.file, framework="pt") as opened:
            part = opened.get_slice(source.name)
            leading = part[: max(1, _LEADING // max(1, source.shape[-1]))] if source.shape else part[...]
        values = leading.flatten()[:_LEADING].to(torch.bfloat16).float().tolist()
        entries.append([name, list(source.shape), values])
    return fingerprint(entries)
