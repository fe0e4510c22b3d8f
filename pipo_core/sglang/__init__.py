"""Pair models on stock SGLang: a plugin that its processes load themselves (entry point ``sglang.srt.plugins``).

Inside SGLang a slot is one token: one id, one position of the caches, one step. Scheduler, memory pools, prefix cache,
chunked prefill, retraction and overlap then need no change. At the edges, where a prompt comes in and where an answer
is checked, counted and sent, hooks turn slots into tokens and back.

Where to look first: `pair_ids.py` for the id, `model.py` for the network, `hooks/__init__.py` for every function of
SGLang that is hooked and why, `selfcheck.py` for what is refused.
"""

ARCHITECTURE = "Qwen3_5ForCausalPIPO"
"""What a pair checkpoint's config.json names (`pipo_core.model.weight_files`, which other models need not load)."""

TEXT_ARCHITECTURE = "Qwen3_5ForCausalLM"
"""What an uncompressed text checkpoint's names."""

TESTED_VERSION = "0.5.23"
"""The release that the tests run on. Its functions change from one release to the next, so others are refused."""
