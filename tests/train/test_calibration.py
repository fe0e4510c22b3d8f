"""The gate's table against plain counting, and its findings."""

from typing import Any

import pytest
import torch

from pipo_core.train.calibration import calibration_of, calibration_table
from pipo_core.train.worker.gate_metric import GateMetric


def drafts(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return confidences, most of them near 1, and acceptances that have something to do with them."""
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(count, generator=generator) ** 0.2
    acceptance = (confidence + 0.4 * torch.randn(count, generator=generator)).clamp(0, 1)
    return confidence, acceptance


def measured(confidence: torch.Tensor, acceptance: torch.Tensor, step: int = 10) -> dict[str, Any]:
    metric = GateMetric(torch.device("cpu"))
    half = len(confidence) // 2
    for part in (slice(0, half), slice(half, None)):
        metric.update(confidence[part], acceptance[part])
    return {"step": step, **{f"calibration_{name}": value for name, value in metric.compute().items()}}


def test_bins_and_area_equal_plain_counting() -> None:
    confidence, acceptance = drafts(700)
    found = calibration_of([measured(confidence, acceptance)], "distill")
    assert found is not None
    c, t = confidence.double(), acceptance.double()
    pairs = t[:, None] * (1 - t)[None]  # draft i accepted, draft j rejected
    above = (c[:, None] > c[None]).double() + 0.5 * (c[:, None] == c[None])
    assert found["auc"] == pytest.approx(((pairs * above).sum() / pairs.sum()).item(), abs=2e-3)
    error = 0.0
    for place, row in enumerate(found["bins"]):
        inside = (c >= place / 10) & (c < (place + 1) / 10)
        assert row["drafts"] == int(inside.sum())
        if row["drafts"]:
            assert row["confidence"] == pytest.approx(c[inside].mean().item(), abs=1e-4)
            assert row["acceptance"] == pytest.approx(t[inside].mean().item(), abs=1e-4)
            error += float(inside.sum() * (c[inside].mean() - t[inside].mean()).abs()) / 700
    assert found["ece"] == pytest.approx(error, abs=1e-4)
    assert found["drafts"] == 700


def test_certain_drafts_are_counted_and_have_no_area() -> None:
    row = measured(torch.ones(4), torch.ones(4))
    assert row["calibration_bins"][9] == [4.0, 4.0, 4.0]
    assert row["calibration_auc"] is None


def test_the_last_tenth_of_the_steps_counts() -> None:
    bad, good = (torch.full((50,), value) for value in (0.2, 0.9))
    rows = [measured(bad, good, step) for step in range(10, 190, 10)] + [measured(good, good, 190)]
    found = calibration_of([*rows, measured(good, good, 200)], "train")
    assert found is not None
    assert found["steps"] == [181, 200]
    assert (found["drafts"], round(found["ece"], 6)) == (100, 0.0)
    assert "steps 181 to 200" in calibration_table(found).title


def test_without_drafts_there_is_no_table() -> None:
    assert calibration_of([{"step": 5, "loss": 1.0}], "train") is None
    metric = GateMetric(torch.device("cpu"))
    assert metric.compute() == {"bins": None, "auc": None}


@pytest.mark.parametrize(
    ("confidence", "acceptance", "word"),
    [
        (torch.linspace(0.7, 1, 400), torch.linspace(0.4, 0.9, 400), "too sure"),
        (torch.linspace(0.3, 0.7, 400), torch.linspace(0.5, 0.9, 400), "too timid"),
        (torch.linspace(0.1, 0.5, 400), torch.linspace(0.1, 0.5, 400), "drafts are the limit"),
        (torch.linspace(0.5, 0.9, 400), torch.linspace(0.9, 0.5, 400), "hardly tells"),
        (torch.linspace(0.2, 0.99, 400), torch.linspace(0.2, 0.99, 400), "says what is measured"),
    ],
)
def test_findings_name_what_is_wrong(confidence: torch.Tensor, acceptance: torch.Tensor, word: str) -> None:
    found = calibration_of([measured(confidence, acceptance)], "distill")
    assert found is not None
    assert len(found["findings"]) == 1
    assert word in found["findings"][0]


def test_nothing_is_concluded_from_few_drafts() -> None:
    found = calibration_of([measured(torch.full((299,), 0.9), torch.full((299,), 0.1))], "train")
    assert found is not None
    assert found["findings"] == ["299 drafts are too few to judge the gate by."]


def test_nan_and_infinite_values_are_left_out() -> None:
    row = measured(torch.tensor([0.95, float("nan"), 0.5, 0.2]), torch.tensor([1.0, 0.5, float("inf"), 0.0]))
    assert sum(count for count, _, _ in row["calibration_bins"]) == 2
    assert calibration_of([{"step": 1, "calibration_bins": None}], "train") is None
