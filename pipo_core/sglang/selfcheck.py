"""Refuses to serve pairs on an SGLang that the hooks were not made for.

SGLang only logs a plugin's exceptions and targets that are not there, and would go on: a pair model without one of the
hooks would write wrong text in silence.
"""

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from sglang.srt.runtime_context import get_server_args

from pipo_core.errors import MachineError
from pipo_core.sglang import TESTED_VERSION
from pipo_core.sglang.hooks import HOOKS, Hook

_UNSUPPORTED: dict[str, Callable[[Any], bool]] = {
    "--pp-size": lambda args: args.pp_size > 1,
    "--enable-dp-attention": lambda args: args.enable_dp_attention or (args.attn_dp_size or 1) > 1,
    "--speculative-algorithm": lambda args: args.speculative_algorithm not in (None, "NONE"),
    "--disaggregation-mode": lambda args: args.disaggregation_mode != "null",
    "--enable-lora": lambda args: args.enable_lora or args.lora_paths,
    "--tokenizer-worker-num": lambda args: args.tokenizer_worker_num > 1,
    "--enable-hierarchical-cache": lambda args: args.enable_hierarchical_cache,
}
"""Options of the server that pairs do not go with, or that nobody has tried with them."""

_EXECUTOR = "sglang.srt.model_executor."
_FULL_GRAPHS = f"{_EXECUTOR}runner_backend.full_cuda_graph_backend.FullCudaGraphBackend"
CALLED: dict[str, tuple[str, ...]] = {
    f"{_FULL_GRAPHS}.capture_one": ("self", "shape_key", "forward_fn"),
    f"{_FULL_GRAPHS}.replay": ("self", "shape_key", "static_forward_batch"),
    f"{_EXECUTOR}runner.shape_key.ShapeKey": ("size", "stream_idx", "variant_label"),
}
"""What `pair_graph` calls of SGLang's recordings, with the names that the first parameters must have."""


def require_support() -> None:
    """Check this process before it serves pairs.

    Raises:
        MachineError: naming everything that is wrong.
    """
    problems, options = list(_problems()), list(_refused_options(get_server_args()))
    if problems or options:
        raise MachineError(
            "\n".join(["this SGLang cannot serve PIPO models:", *(f"  {one}" for one in (*problems, *options))]),
            hint=f"pip install sglang=={TESTED_VERSION}" if problems else "leave these options out",
        )


def _problems() -> Iterator[str]:
    installed = version("sglang")
    if installed != TESTED_VERSION:
        yield f"it is version {installed}, and the tested one is {TESTED_VERSION}"
    for hook in HOOKS:
        problem = _problem_of(hook)
        if problem is not None:
            yield f"{hook.target} {problem}"
    for target, expected in CALLED.items():
        problem = _problem_of_call(target, expected)
        if problem is not None:
            yield f"{target} {problem}"


def _problem_of(hook: Hook) -> str | None:
    try:
        function = pkgutil.resolve_name(hook.target)
    except (ImportError, AttributeError):
        return "is not there"
    function = inspect.unwrap(function, stop=lambda one: _is_wrapped_by(one, hook))
    if not _is_wrapped_by(function, hook):
        return "is not patched"
    return _parameter_problem(function.__wrapped__, hook.parameters)


def _problem_of_call(target: str, expected: tuple[str, ...]) -> str | None:
    try:
        return _parameter_problem(pkgutil.resolve_name(target), expected)
    except (ImportError, AttributeError):
        return "is not there"


def _parameter_problem(function: Callable[..., Any], expected: tuple[str, ...]) -> str | None:
    parameters = tuple(inspect.signature(function).parameters)
    if parameters[: len(expected)] != expected:
        return f"takes ({', '.join(parameters)}) in place of ({', '.join(expected)}, …)"
    return None


def _is_wrapped_by(function: Any, hook: Hook) -> bool:
    """Return whether a function is SGLang's wrapper that calls our hook; its own decorators leave wrappers, too."""
    function = getattr(function, "__func__", function)
    cells = function.__closure__ or ()
    return hasattr(function, "__wrapped__") and any(cell.cell_contents is hook.function for cell in cells)


def _refused_options(args: Any) -> Iterator[str]:
    for option, is_set in _UNSUPPORTED.items():
        if is_set(args):
            yield f"{option} does not go with pairs"
