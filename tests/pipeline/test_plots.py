import struct
from pathlib import Path
from typing import Any

import pytest

from pipo_core.pipeline import plots, speed_plots


def size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1)}


def evaluation(taus: list[float], baseline: str | None = "regular") -> dict[str, Any]:
    def arm(name: str, tau: float | None) -> dict[str, Any]:
        at = {"avg": estimate(0.9), "tokens_per_slot": 1.0 if tau is None else 1.7}
        label = name if tau is None else f"{name}@{tau:g}"
        return {"arm": name, "label": label, "tau": tau, "budgets": {"tokens": at, "slots": at}}

    arms = [arm("regular", None), arm("base", None), *(arm("pipo", tau) for tau in taus)]
    budget = {"tokens": 100, "slots": 100}
    return {"problems": 10, "samples": 4, "budget": budget, "baseline": baseline, "arms": arms}


def bench(lengths: list[int]) -> dict[str, Any]:
    time = {"median": 0.01, "q1": 0.009, "q3": 0.012}
    arms = [{"label": label, "ttft_s": time, "tpot_s": time} for label in ("regular", "pipo@0.95")]
    return {
        "trials": 3,
        "batch": 1,
        "new_tokens": 16,
        "machine": {"device": "cpu"},
        "lengths": [{"prompt_tokens": length, "arms": arms} for length in lengths],
    }


@pytest.mark.parametrize("steps", [1, 2, 59, 60, 500])
def test_training_draws_losses_and_shares(tmp_path: Path, steps: int) -> None:
    rows = [
        {"step": step, "loss": 3.0, "backbone_loss": 1.0, "mtp_loss": 1.5, "confidence_loss": 0.5}
        | {
            "confidence_mean": 0.4,
            "confidence_target_mean": 0.5,
            "acceptance_0.5": 0.3,
            "acceptance_0.95": 0.1,
        }
        for step in range(1, steps + 1)
    ]
    files = plots.training(rows, tmp_path)
    assert [size(file)[0] for file in files] == [1280, 1280]


def test_what_was_not_logged_is_not_drawn(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1.0, "backbone_loss": 1.0, "mtp_loss": None} for step in range(5)]
    files = plots.training(rows, tmp_path)
    assert [file.name for file in files] == ["training_loss.png"]
    assert plots.training([], tmp_path) == []
    assert plots.training([{"step": 1}], tmp_path) == []


@pytest.mark.parametrize("taus", [[0.95], [0.0, 0.5, 0.9, 0.95, 0.98, 1.0]])
@pytest.mark.parametrize("baseline", ["regular", None])
def test_evaluation_draws_each_budget_and_tokens_a_slot(
    tmp_path: Path, taus: list[float], baseline: str | None
) -> None:
    files = plots.evaluation(evaluation(taus, baseline), tmp_path)
    assert {file.name for file in files} == {
        "eval_accuracy_tokens.png",
        "eval_accuracy_slots.png",
        "eval_tokens_per_slot.png",
    }
    assert all(size(file)[0] == 1280 for file in files)


def test_without_a_threshold_there_is_no_curve(tmp_path: Path) -> None:
    assert plots.evaluation(evaluation([]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lengths", [[128], [128, 2048, 131072]])
def test_latency_draws_bars(tmp_path: Path, lengths: list[int]) -> None:
    (file,) = speed_plots.latency(bench(lengths), tmp_path)
    assert size(file)[0] == 1280


def test_the_same_figures_give_the_same_file(tmp_path: Path) -> None:
    (one,) = speed_plots.latency(bench([64]), tmp_path / "a")
    (two,) = speed_plots.latency(bench([64]), tmp_path / "b")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("limit", [1.8, None])
def test_speed_ups_by_users_are_drawn_beside_the_limits(tmp_path: Path, limit: float | None) -> None:
    ratio = {"median": 1.7, "q1": 1.6, "q3": 1.7}
    arms = [
        {"arm": label, "label": label, "speedup": ratio, "limit_speedup": limit}
        for label in ("regular", "eagle", "pipo")
    ]
    rows = [{"context": 512, "requests": requests, "arms": arms} for requests in (1, 16)]
    results = {**bench([64]), "users": rows, "baseline": "regular"}
    (file,) = speed_plots.users(results, tmp_path)
    assert file.name == "bench_users.png"
    assert size(file)[0] == 1280
    assert speed_plots.users({**results, "users": []}, tmp_path) == []
    assert speed_plots.users({**results, "baseline": None}, tmp_path) == []
    assert speed_plots.users({**results, "users": [{**rows[0], "arms": arms[:1]}]}, tmp_path) == []


def test_throughput_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    rate = {"median": 100.0, "q1": 90.0, "q3": 120.0}
    arms = [{"label": label, "tokens_per_second": rate} for label in ("regular", "pipo@0.95")]
    results = {**bench([64]), "throughput": [{"requests": count, "arms": arms} for count in (1, 4, 64)]}
    (file,) = speed_plots.throughput(results, tmp_path)
    assert file.name == "bench_throughput.png"
    assert size(file)[0] == 1280
    assert speed_plots.throughput({**results, "throughput": []}, tmp_path) == []


def test_calibration_is_drawn_from_the_bins_that_have_drafts(tmp_path: Path) -> None:
    bins = [
        {"from": place / 10, "to": (place + 1) / 10, "drafts": place // 8, "confidence": None, "acceptance": None}
        for place in range(10)
    ]
    for place in (8, 9):
        bins[place] |= {"confidence": place / 10 + 0.05, "acceptance": 0.7}
    (file,) = plots.calibration({"drafts": 2, "bins": bins}, tmp_path)
    assert file.name == "calibration.png"
    assert size(file)[0] == 1280


def test_accuracy_over_a_cost_has_a_point_for_each_arm_that_has_one(tmp_path: Path) -> None:
    results = evaluation([0.0, 0.5, 1.0])
    costs = {"regular": 1.0, "pipo@0": 1.9, "pipo@0.5": 1.8}
    (file,) = plots.trade_off(results, costs, "tokens", tmp_path)
    assert size(file)[0] == 1280
    assert plots.trade_off(results, {"regular": 1.0}, "tokens", tmp_path) == []
