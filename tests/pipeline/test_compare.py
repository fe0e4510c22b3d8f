"""Two results side by side."""

import copy
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import write_json
from pipo_core.pipeline.compare import compare_results, comparison_table, read_results
from tests.samples import arm, evaluation
from tests.samples import bench as bench_results


def eval_results(accuracy: float = 0.8) -> dict[str, Any]:
    return evaluation(arm("regular", None, accuracy, 1.0), arm("pipo", 0.5, accuracy - 0.1, 1.8))


def changed_bench() -> dict[str, Any]:
    """Results with times halved, another machine, and an arm that the other lacks."""
    results = copy.deepcopy(bench_results())
    for row in results["lengths"][0]["arms"]:
        row["ttft_s"]["median"] /= 2
    results["machine"]["device"] = "another"
    results["lengths"][0]["arms"].append({**results["lengths"][0]["arms"][0], "label": "more"})
    return results


def test_times_are_ratios_and_what_differs_is_said() -> None:
    found = compare_results(bench_results(), changed_bench())
    assert [row["TTFT"] for row in found["rows"]] == pytest.approx([2.0, 2.0])
    assert [row["TPOT"] for row in found["rows"]] == pytest.approx([1.0, 1.0])
    assert found["only_second"] == [["64 prompt tokens", "more"]]
    assert found["settings"] == {"machine.device": ["cpu", "another"]}
    assert comparison_table(found).rows[0] == ["64 prompt tokens · regular", "2.00×", "1.00×"]


def test_training_passes_are_rows_and_no_setting() -> None:
    def trained(rate: float, peak: int) -> dict[str, Any]:
        arms = {"pipo": {"tokens_per_second": rate, "seconds": [1.0], "peak_bytes": peak}}
        return {**bench_results(), "training": [{"tokens": 512, "arms": arms}]}

    found = compare_results(trained(10.0, 800), trained(15.0, 400))
    assert found["rows"][-1] == {"row": ["training on 512 tokens", "pipo"], "tokens/s": 1.5, "peak memory": 0.5}
    assert found["settings"] == {}


def test_accuracies_are_differences_in_points() -> None:
    first, second = eval_results(0.8), eval_results(0.85)
    found = compare_results(first, second)
    name = f"avg@{first['samples']}"
    assert all(row[name] == pytest.approx(5.0) for row in found["rows"])
    assert found["settings"] == {}


def test_results_are_found_by_file_stage_and_run(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "bench"
    stage.mkdir(parents=True)
    write_json(stage / "results.json", bench_results())
    assert read_results(stage) == read_results(stage / "results.json") == read_results(tmp_path / "run")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no results\.json"):
        read_results(tmp_path)
    write_json(tmp_path / "results.json", {"kind": "rollout"})
    with pytest.raises(UsageError, match="does not hold results of pipo eval or pipo bench"):
        read_results(tmp_path)
    with pytest.raises(UsageError, match="the first is a result of pipo bench, the second of pipo eval"):
        compare_results(bench_results(), eval_results())
    other = copy.deepcopy(bench_results())
    other["lengths"][0]["prompt_tokens"] = 65
    with pytest.raises(UsageError, match="no row in common"):
        compare_results(bench_results(), other)
