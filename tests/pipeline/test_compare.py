"""Two results side by side."""

import copy
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import write_json, write_record
from pipo_core.pipeline.compare import compare_results, comparison_lines, comparison_table, read_results
from pipo_core.pipeline.records import write_stage_record
from pipo_core.recipes.base import dump
from pipo_core.recipes.profile import recommended
from pipo_core.tables import ABSENT
from tests.profiles import profile, setting
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
    assert found["rows"][-1] == {"row": ["training on 512 tokens", "pipo"], "tokens/s": 1.5, "peak memory": 2.0}
    assert found["settings"] == {}


USERS = Path(__file__).parents[2] / "docs" / "results" / "raw" / "users.json"


def test_decoding_by_users_and_at_equal_memory_are_rows() -> None:
    """A real bench of these tables alone, and the same with other figures."""
    first = read_results(USERS)
    second = copy.deepcopy(first)
    of_users, computed, measured = (
        second["users"][0]["arms"][0],
        second["equal_memory"]["computed"][0]["arms"][0],
        second["equal_memory"]["measured"][0]["arms"][0],
    )
    of_users["tokens_per_second"]["median"] *= 1.5
    of_users["step_s"]["median"] *= 2
    measured["fit"] *= 2
    measured["tokens_per_second"]["median"] *= 3
    computed["fit"] = 0
    second["raw_users"], second["raw_equal_memory"] = [], []
    second["lossless"][0]["words"] = "another finding."
    found = compare_results(first, second)
    rows = {tuple(row.pop("row")): row for row in found["rows"]}
    assert len(rows) == 9 * 6 + 2 * 2 * 6
    assert rows["1 user of 512 tokens", "regular"] == {"tokens/s": pytest.approx(1.5), "step": pytest.approx(0.5)}
    assert rows["4 users of 512 tokens", "regular"] == {"tokens/s": 1.0, "step": 1.0}
    at = "2 GiB, 2,048 tokens"
    assert rows[f"{at}, measured", "regular"] == {"fit": 2.0, "tokens/s": pytest.approx(3.0), "step": 1.0}
    assert rows[f"{at}, computed", "regular"] == {"fit": 0.0}
    assert compare_results(second, first)["rows"][9 * 6]["fit"] is None  # none fitted: there is no ratio to it
    assert found["settings"] == {}
    [(arm_name, words)] = found["lossless"].items()
    assert (arm_name, words[1]) == (first["lossless"][0]["label"], "another finding.")
    [line] = comparison_lines(found)
    assert line.startswith(f"differs: lossless: {arm_name}: A: eagle-1, where it verifies its drafts: 4 of 4")


def test_what_the_loads_were_asked_for_is_a_setting() -> None:
    def asked(tokens: int) -> dict[str, Any]:
        return {**bench_results(), "loads": {"users": {"new_tokens": tokens, "trials": 3}}}

    found = compare_results(asked(32), asked(64))
    assert found["settings"] == {"loads.users.new_tokens": [32, 64]}


def calibration(tmp_path: Path, name: str, graded: bool = True, **changes: Any) -> Path:
    """The folder of a calibration with regular decoding, and pairs at two thresholds."""
    folder = tmp_path / name / "calibrate"
    accuracies = (0.8, 0.9, 0.95) if graded else (None, None, None)
    settings = [
        setting(0.5, accuracies[0], -0.05 if graded else None),
        setting(0.9, accuracies[1], 0.0 if graded else None, tokens_per_step=1.6),
        setting(None, accuracies[2], -0.05 if graded else None),
    ]
    made = profile(settings, {1: [300, 200, 100], 8: [900, 800, 700]}, **changes)
    loads = [
        load.model_copy(update={"best": one and one.label, "best_pairs": pair and pair.label})
        for load in made.loads
        for one, pair in [recommended(load, made.settings)]
    ]
    write_record(folder / "profile.json", dump(made.model_copy(update={"loads": loads})))
    return folder


def test_calibrations_are_compared_by_setting_load_and_recommendation(tmp_path: Path) -> None:
    one = calibration(tmp_path, "one")
    write_json(one / "results.json", eval_results())  # of the questions, as each calibration has it
    first = read_results(one)
    assert read_results(tmp_path / "one") == read_results(one / "profile.json") == first
    second = copy.deepcopy(first)
    second["settings"][1]["accuracy"]["value"] = 0.85
    second["settings"][1]["tokens_per_step"] = 1.7
    second["loads"][0]["costs"][1].update(step_s=0.005, tokens_per_second=400.0)
    second["loads"][1].update(requests=16)
    second["loads"][0].update(best="regular")
    second["machine"]["threads"] = 2
    found = compare_results(first, second)
    rows = {tuple(row.pop("row")): row for row in found["rows"]}
    points = {"accuracy": pytest.approx(-5.0), "drafts kept": pytest.approx(10.0)}
    assert rows["tiny", "pipo@0.9"] == points
    assert rows["tiny", "regular"] == {"accuracy": 0.0, "drafts kept": None}
    costs = {"tokens/s": 2.0, "step": 2.0, "right answers/s": None}
    assert rows["1 request of 64 tokens", "pipo@0.9"] == costs
    assert [key[0] for key in found["only_second"]] == ["16 requests of 64 tokens"] * 3
    assert found["settings"] == {"machine.threads": [1, 2]}
    [load] = found["recommended"]
    assert load == {"requests": 1, "best": ["pipo@0.9", "regular"], "best_pairs": ["pipo@0.9", "pipo@0.9"]}
    lines = comparison_lines(found)
    assert "recommended at 1 request: pipo@0.9 in A, regular in B; of the pairs pipo@0.9 in both" in lines
    same = compare_results(first, first)
    assert comparison_table(same).columns == ["row", "accuracy", "drafts kept", "tokens/s", "step"]
    assert comparison_table(same).rows[1] == ["tiny · pipo@0.9", "+0.0 points", "+0.0 points", ABSENT, ABSENT]
    assert comparison_lines(same) == [
        "recommended at 1 request: pipo@0.9 in both",
        "recommended at 8 requests: pipo@0.9 in both",
    ]


def test_ungraded_calibrations_are_compared_by_what_is_known(tmp_path: Path) -> None:
    first = read_results(calibration(tmp_path, "one", graded=False))
    found = compare_results(first, read_results(calibration(tmp_path, "two")))
    assert [row["accuracy"] for row in found["rows"][:3]] == [None] * 3
    assert "recommended at 1 request: nothing in A, pipo@0.9 in B" in comparison_lines(found)


def test_an_unfinished_calibration_is_no_evaluation(tmp_path: Path) -> None:
    folder = calibration(tmp_path, "one")
    record = {"kind": "calibrate", "state": "failed", "message": "x", "settings": {}, "inputs": {}, "files": {}}
    write_stage_record(folder, {**record, "summary": None, "outputs": None})
    write_json(folder / "results.json", eval_results())
    (folder / "profile.json").unlink()
    with pytest.raises(MissingInputError, match="holds a stage of pipo calibrate that is not finished"):
        read_results(tmp_path / "one")
    assert read_results(folder / "results.json")["kind"] == "eval"  # named itself, it is what it is


def test_a_stage_that_is_not_finished_is_refused_whatever_it_holds(tmp_path: Path) -> None:
    empty: dict[str, Any] = dict.fromkeys(("message", "settings", "inputs", "files", "summary", "outputs"))
    record = {"kind": "bench", **empty}
    write_json(tmp_path / "results.json", bench_results())
    for state in ("running", "failed", "interrupted"):
        write_stage_record(tmp_path, {**record, "state": state})
        with pytest.raises(MissingInputError, match="holds a stage of pipo bench that is not finished"):
            read_results(tmp_path)
    write_stage_record(tmp_path, {**record, "state": "done"})
    assert read_results(tmp_path) == bench_results()


def test_a_result_that_was_set_aside_is_not_counted(tmp_path: Path) -> None:
    for name in ("bench", "bench.previous"):
        write_json(tmp_path / name / "results.json", bench_results())
    assert read_results(tmp_path) == bench_results()


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
    with pytest.raises(MissingInputError, match=r"no results\.json and no profile\.json"):
        read_results(tmp_path)
    write_json(tmp_path / "results.json", {"kind": "rollout"})
    with pytest.raises(UsageError, match="does not hold results of pipo eval, pipo bench or pipo calibrate"):
        read_results(tmp_path)
    with pytest.raises(UsageError, match="the first is a result of pipo bench, the second of pipo eval"):
        compare_results(bench_results(), eval_results())
    other = copy.deepcopy(bench_results())
    other["lengths"][0]["prompt_tokens"] = 65
    with pytest.raises(UsageError, match="no row in common"):
        compare_results(bench_results(), other)
