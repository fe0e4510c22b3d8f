"""The places where these checks run: always on the CPU, and on the GPU where there is one (docs/gpu-checks.md).

Nothing here needs ms-swift or the recipes, so that a bare machine with PyTorch and transformers can run it.
"""

from collections.abc import Iterator

import pytest
import torch

_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=_CUDA)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A place to compute; fp32 means fp32 there, not TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
