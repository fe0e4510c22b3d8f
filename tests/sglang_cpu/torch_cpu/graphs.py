"""SGLang's own runner of decode graphs on a CPU, where a graph is a function that is called again.

Recording, padding to a recorded batch size, the runner's input buffers, metadata for the padded batch: all is as on a
GPU. Only Python runs in a replay, which a graph would leave out.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.model_executor.graph_shared_output import GraphSharedOutput
from sglang.srt.model_executor.runner.decode_cuda_graph_runner import DecodeCudaGraphRunner
from sglang.srt.model_executor.runner_backend.full_cuda_graph_backend import FullCudaGraphBackend
from sglang.srt.model_executor.runner_utils.capture_mode import model_capture_mode

_LOGGER = logging.getLogger(__name__)


class CpuDecodeGraphRunner(DecodeCudaGraphRunner):
    """The runner without streams and events."""

    def __init__(self, model_runner: Any) -> None:
        for name, value in (("init_cuda_graph_state", _nothing), ("get_cuda_graph_seq_len_fill_value", _one)):
            setattr(TorchNativeAttnBackend, name, value)  # SGLang has this backend for eager steps only
        rows = model_runner.max_shared_logits_buffer_rows()
        model_runner.graph_shared_output = GraphSharedOutput(device=model_runner.device, max_rows=rows)
        model_runner.model.prepare_before_cuda_graph_capture(model_runner)  # which SGLang calls on a GPU only
        super().__init__(model_runner)

    def _capture(self) -> None:
        self.buffers.seq_lens.fill_(self.seq_len_fill_value)
        self.buffers.seq_lens_cpu.fill_(self.seq_len_fill_value)
        self.buffers.reset_index_buffers()
        self.compile_bs: list[int] = []  # SGLang records on a CPU only what it also compiles
        with self.backend.capture_session(None):
            self._capture_one_stream()

    def _record_in_graph_metadata_prep_done(self) -> None: ...

    def _publish_read_done(self, in_graph: bool) -> None: ...


class CpuFullGraphs(FullCudaGraphBackend):
    """Keeps functions in place of graphs."""

    @contextmanager
    def capture_session(self, _: Any) -> Iterator[None]:
        yield

    def capture_one(self, shape_key: Any, forward_fn: Callable[[], Any], *_: Any, **__: Any) -> None:
        forward_fn()
        self._graphs[shape_key] = forward_fn

    def replay(self, shape_key: Any, static_forward_batch: Any, **_: Any) -> Any:
        if shape_key not in self._outputs:
            _LOGGER.info("first replay of %s", shape_key)
            self._outputs[shape_key] = None
        with model_capture_mode():  # what the model does while it is recorded is part of the graph
            return self._graphs[shape_key]()


def _nothing(*_: Any) -> None: ...


def _one(_: Any) -> int:
    return 1
