"""How long an answer takes: tokens from an evaluation, times from a benchmark."""

from collections.abc import Mapping
from typing import Any


def answer_seconds(bench: Mapping[str, Any], tokens: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of an answer after the benchmark's first prompt: ``TTFT + (tokens − 1) · TPOT``, medians.

    Nothing is known of any answer if the benchmark has no table of one request at a time.

    Args:
        bench: the results of `run_bench`.
        tokens: real tokens of an answer by the arm's label; labels that were not measured are left out.
    """
    return {
        arm["label"]: arm["ttft_s"]["median"] + (tokens[arm["label"]] - 1) * arm["tpot_s"]["median"]
        for length in bench["lengths"][:1]
        for arm in length["arms"]
        if arm["label"] in tokens
    }
