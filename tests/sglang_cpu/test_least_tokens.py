"""Ends are held back in each row by its own number and its own ids."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipo_core.sglang.least_tokens import LeastTokens
from pipo_core.sglang.rows import Rows, rows_of


def request(least: int, ends: list[int], *, ignore_eos: bool = False) -> Any:
    sampling = SimpleNamespace(
        custom_params={"min_tokens": least},
        stop_token_ids=ends,
        ignore_eos=ignore_eos,
        presence_penalty=0,
        frequency_penalty=0,
        repetition_penalty=1,
    )
    return SimpleNamespace(sampling_params=sampling, tokenizer=None, eos_token_ids=None, grammar=None)


def rows(*requests: Any) -> Rows:
    mode = SimpleNamespace(is_decode=lambda: True)
    batch = SimpleNamespace(reqs=list(requests), forward_mode=mode)
    model: Any = SimpleNamespace(tau=0.5)
    return rows_of(batch, None, model, torch.device("cpu"))


@pytest.mark.parametrize("others", [[5], [0, 2, 5], [7, 8, 9, 10]])
def test_an_end_is_held_back_whatever_ends_others(others: list[int]) -> None:
    """Id 0 is an end like any other, also where a row is filled up."""
    batch = rows(request(3, [0, 2]), request(0, others), request(9, [4], ignore_eos=True))
    least = LeastTokens(torch.device("cpu"))
    places = torch.tensor([0, 1, 2])
    for written in range(5):
        logits = torch.zeros(3, 12)
        least.hold_back(logits, batch, places)
        held = [row.isinf().nonzero().flatten().tolist() for row in logits]
        assert held == [[0, 2] if written < 3 else [], [], []]
        least.count(batch, places)
