from typing import Any

import pytest
import torch

from pipo_core.bench.training import ORDER, TrainingCase, measure_training, run_passes
from pipo_core.errors import MachineError, UsageError
from pipo_core.model.modeling import Objective, Qwen3_5ForCausalPIPO
from pipo_core.model.shapes import shape_config


def case(tokens: int = 512, **changes: Any) -> TrainingCase:
    """A small model whose activations are far larger than its weights; attention alone, which is fast on a CPU."""
    config = shape_config("qwen3.5-0.8b")
    for name, value in {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 8192,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention"] * 2,
    }.items():
        setattr(config, name, value)
    return TrainingCase(config, tokens, trials=2, precision="fp32", checkpointing=False, **changes)


def test_pairs_train_on_the_same_text_in_less_memory() -> None:
    found = measure_training(case(1024))
    regular, pipo = found["arms"]["regular"], found["arms"]["pipo"]
    assert len(regular["seconds"]) == len(pipo["seconds"]) == 2 * ORDER.count("pipo")
    assert regular["tokens_per_second"] == pytest.approx(1024 / sorted_median(regular["seconds"]))
    assert found["speedup"] == pytest.approx(pipo["tokens_per_second"] / regular["tokens_per_second"])
    assert regular["weights_bytes"] == pipo["weights_bytes"]
    # Half the positions: the difference in activations is large against the noise of resident memory.
    assert pipo["peak_bytes"] < 0.9 * regular["peak_bytes"]


def sorted_median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle - 1] + ordered[middle]) / 2 if len(ordered) % 2 == 0 else ordered[middle]


@pytest.mark.parametrize(("objective", "positions"), [("regular", 64), ("pipo", 32)])
def test_both_read_the_same_tokens(objective: Objective, positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    run = Qwen3_5ForCausalPIPO.run_backbone

    def noting(self: Qwen3_5ForCausalPIPO, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(inputs.shape[:2]))
        return run(self, inputs)

    monkeypatch.setattr(Qwen3_5ForCausalPIPO, "run_backbone", noting)
    found = run_passes(case(64), objective)
    assert seen == [(1, positions)] * 3
    assert len(found["seconds"]) == 2


def test_what_cannot_be_measured_is_refused() -> None:
    for tokens in (7, 9, 6):
        with pytest.raises(UsageError, match="even number"):
            case(tokens)
    with pytest.raises(UsageError, match="neither"):
        TrainingCase(shape_config("qwen3.5-0.8b"), 8, precision="fp8")
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="no GPU"):
            measure_training(case(64, device="cuda"))
