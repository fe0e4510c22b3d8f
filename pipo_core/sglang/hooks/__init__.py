"""Every function of SGLang that is hooked, and what for.

A hook ``AROUND`` a function gets the function and its arguments; one ``AFTER`` it gets its result and its arguments.
Hooks let every call pass while no pair model is served. `selfcheck` refuses to serve if a function is gone, unpatched
or takes other parameters than these.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pipo_core.sglang.hooks import finishing, loading, output, prefix_cache, prompts, sampling


class Hook(NamedTuple):
    """A hooked function.

    Attributes:
        target: its dotted name.
        function: ours.
        kind: when ours is called.
        parameters: the names that the function's first parameters must have.
    """

    target: str
    function: Callable[..., Any]
    kind: Literal["AROUND", "AFTER"]
    parameters: tuple[str, ...]


_SRT = "sglang.srt."
_RESULTS = f"{_SRT}managers.scheduler_components."

HOOKS: tuple[Hook, ...] = (
    # Every process: the configuration and the network of checkpoints that pipo wrote.
    Hook(
        f"{_SRT}utils.hf_transformers.config.get_config",
        loading.adopt,
        "AFTER",
        ("model", "trust_remote_code"),
    ),
    # The server's process: prompts become slots, and what pairs cannot do is refused with status 400.
    Hook(
        f"{_SRT}managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
        prompts.pack_prompt,
        "AROUND",
        ("self", "obj", "input_text", "input_ids", "input_embeds", "mm_inputs", "token_type_ids"),
    ),
    # Scheduler: a step writes a slot.
    Hook(
        f"{_SRT}model_executor.forward_batch_info.ForwardBatch.init_new",
        sampling.add_rows,
        "AFTER",
        ("cls", "batch", "model_runner"),
    ),
    Hook(
        f"{_SRT}model_executor.model_runner.ModelRunner.forward",
        sampling.after_forward,
        "AFTER",
        ("self", "forward_batch"),
    ),
    Hook(
        f"{_SRT}model_executor.runner.decode_cuda_graph_runner.DecodeCudaGraphRunner.capture_one_shape",
        sampling.record_pair_phase,
        "AFTER",
        ("self", "size", "forward", "stream_idx", "variant_label", "attention_variant"),
    ),
    Hook(
        f"{_SRT}model_executor.model_runner.ModelRunner.sample",
        sampling.sample_slot,
        "AROUND",
        ("self", "logits_output", "forward_batch"),
    ),
    Hook(
        f"{_SRT}sampling.penaltylib.orchestrator.BatchedPenalizerOrchestrator.cumulate_output_tokens",
        sampling.count_written,
        "AROUND",
        ("self", "output_ids"),
    ),
    # Scheduler: an answer is checked, counted and sent in tokens.
    Hook(
        f"{_SRT}managers.schedule_batch.Req.update_finish_state",
        finishing.finish_by_tokens,
        "AROUND",
        ("self", "new_accepted_len"),
    ),
    Hook(
        f"{_RESULTS}batch_result_processor.SchedulerBatchResultProcessor._maybe_update_reasoning_tokens",
        finishing.count_reasoning,
        "AROUND",
        ("self", "req", "next_token_id"),
    ),
    Hook(
        f"{_RESULTS}output_streamer._GenerationStreamAccumulator.accept",
        output.send_tokens,
        "AROUND",
        ("self", "req"),
    ),
    # Scheduler: the prefix cache tells slots apart by the first token behind them, too.
    Hook(
        f"{_SRT}mem_cache.common._req_radix_key",
        prefix_cache.match_by_pairs,
        "AFTER",
        ("tree_cache", "req", "token_ids"),
    ),
    Hook(
        f"{_SRT}mem_cache.unified_radix_cache.UnifiedRadixCache.checkpoint_into_tree",
        prefix_cache.insert_by_pairs,
        "AROUND",
        ("self", "req", "up_to"),
    ),
)
