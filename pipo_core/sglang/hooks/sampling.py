"""Hooks where a step computes and samples; what they do is in `slot_sampling`, which other models never load."""

from typing import TYPE_CHECKING, Any

from pipo_core.sglang.served import served

if TYPE_CHECKING:
    import torch

    from pipo_core.sglang.slot_sampling import SlotSampler


def add_rows(forward_batch: Any, _: Any, batch: Any, runner: Any, *__: Any, **___: Any) -> None:
    """Give a forward pass what it must know of each request."""
    if served() is not None and batch.reqs:
        _sampler(runner).start(forward_batch, batch)


def after_forward(output: Any, runner: Any, forward_batch: Any, *_: Any, **__: Any) -> None:
    """Note how the backbone ran; draft where SGLang samples nothing."""
    if hasattr(forward_batch, "pipo"):
        _sampler(runner).after_forward(forward_batch, replayed=bool(output.can_run_graph))


def record_pair_phase(_: Any, graphs: Any, size: int, *__: Any, **___: Any) -> None:
    """Record the pair phase right after the backbone's decode step of the same batch size, if that is wanted."""
    model = served()
    if model is not None and model.pair_graph:
        _sampler(graphs.model_runner).record_pair_phase(graphs, size)


def sample_slot(original: Any, runner: Any, logits_output: Any, forward_batch: Any) -> Any:
    """Sample a slot for each sequence in place of a token."""
    if not hasattr(forward_batch, "pipo"):
        return original(runner, logits_output, forward_batch)
    return _sampler(runner).sample(original, logits_output, forward_batch)


def count_written(original: Any, penalizers: Any, output_ids: "torch.Tensor") -> None:
    """Keep SGLang's own penalties at nothing: `penalties` and `least_tokens` have what is asked of pair models."""
    if served() is None:
        original(penalizers, output_ids)


def _sampler(runner: Any) -> "SlotSampler":
    if not hasattr(runner, "pipo"):
        from pipo_core.sglang import slot_sampling

        model = served()
        if model is None:
            raise RuntimeError("no pair model is loaded")
        runner.pipo = slot_sampling.SlotSampler(runner, model)
    sampler: SlotSampler = runner.pipo
    return sampler
