"""Many requests at once: what is measured of a load, and what stands beside it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipo_core.bench import runner
from pipo_core.bench.loads import LoadTrial, _figures, _Piece
from pipo_core.bench.runner import run_bench
from pipo_core.bench.table import bench_tables
from pipo_core.decode.method import StepLoad
from pipo_core.decode.traffic import kept_bytes, resident_bytes, step_bytes
from pipo_core.errors import MachineError, PipoError, UsageError
from pipo_core.files import read_json
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.sizes import FP32
from pipo_core.recipes.bench import BenchRecipe

ARMS: list[dict[str, Any]] = [
    {"name": "regular", "method": "regular"},
    {"name": "mtp", "method": "mtp"},
    {"name": "eagle", "method": "eagle", "drafts": 2, "acceptance": [0.5]},
    {"name": "pipo", "method": "pipo", "acceptance": [1.0]},
]


def recipe(**changes: Any) -> BenchRecipe:
    values = {
        "arms": ARMS,
        "random_weights": "qwen3.5-0.8b",
        "prompt_tokens": [],
        "baseline": "regular",
        "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
    }
    return BenchRecipe.model_validate({**values, **changes})


@pytest.fixture
def small_shape(monkeypatch: pytest.MonkeyPatch, reference: Qwen3_5ForCausalPIPO) -> None:
    """Replace the published shape by a small model."""
    monkeypatch.setattr("pipo_core.engine.torch_opening.random_shape_model", lambda name, **options: reference)


def test_a_load_is_measured_while_all_its_requests_run() -> None:
    """The second request begins at 3 s, the first ends at 9 s; what is written outside does not count."""
    first = [_Piece(1.0, 1), _Piece(2.0, 2), _Piece(4.0, 2), _Piece(6.0, 1), _Piece(9.0, 2)]
    second = [_Piece(3.0, 9), _Piece(5.0, 2), _Piece(8.0, 2), _Piece(11.0, 2)]
    found = _figures([first, second], began=3.0, first_end=9.0, cache_bytes=7)
    # First: from 4 to 9 s, 3 tokens in 2 steps. Second: from 3 to 8 s, 4 tokens in 2 steps.
    assert found == LoadTrial(3 / 5 + 4 / 5, (5 + 5) / 4, 7 / 4, 7)
    with pytest.raises(PipoError, match="less than two steps"):
        _figures([first, second[:1]], began=3.0, first_end=9.0, cache_bytes=None)


@pytest.mark.usefixtures("small_shape")
def test_every_arm_answers_every_load_beside_its_limit(tmp_path: Path, reference: Qwen3_5ForCausalPIPO) -> None:
    users = {"context": [9, 30], "requests": [1, 3], "new_tokens": 40, "trials": 2}
    results = run_bench(recipe(users=users), tmp_path)
    assert results["lengths"] == results["throughput"] == []
    assert [(row["context"], row["requests"]) for row in results["users"]] == [(9, 1), (9, 3), (30, 1), (30, 3)]
    bandwidth = results["limits_of"]["bandwidth"]
    for row in results["users"]:
        arms = {arm["label"]: arm for arm in row["arms"]}
        assert list(arms) == ["regular", "mtp", "eagle@50%", "pipo@100%"]
        steps = {label: arm["tokens_per_step"] for label, arm in arms.items()}
        assert (steps["regular"], steps["mtp"], steps["pipo@100%"]) == (1.0, 2.0, 2.0)
        assert steps["eagle@50%"] == pytest.approx(2.0, abs=0.1)
        assert arms["regular"]["speedup"]["median"] == arms["regular"]["limit_speedup"] == 1.0
        load = StepLoad(context=row["context"] + 20, batch=row["requests"])
        moved = {name: step_bytes(reference.config, name, load, widths=FP32) for name in ("regular", "pipo")}
        limit = row["requests"] * 2 * bandwidth / moved["pipo"]
        pair = arms["pipo@100%"]
        assert pair["of_limit"] * limit == pytest.approx(pair["tokens_per_second"]["median"])
        assert pair["limit_speedup"] == pytest.approx(2 * moved["regular"] / moved["pipo"])
        assert pair["cache_bytes"] > row["requests"] * kept_bytes(reference.config, "pipo", row["context"])
    raw = read_json(tmp_path / "results.json")["raw_users"]
    assert len(raw) == 4 * 4 * 2
    [proof] = results["lossless"]  # the share of drafts is fixed in what is measured, not in what is proven
    assert (proof["label"], proof["checked"], proof["equal"]) == ("eagle", True, 4)
    [table] = bench_tables(results)
    assert table.note == "eagle, where it verifies its drafts: 4 of 4 greedy answers equal regular decoding's."
    assert [cells[:3] for cells in table.rows][:2] == [["9", "1", "regular"], ["9", "1", "mtp"]]


@pytest.mark.usefixtures("small_shape")
def test_what_fits_is_computed_and_then_run(tmp_path: Path, reference: Qwen3_5ForCausalPIPO) -> None:
    gib = 0.0305
    memory = {"gib": gib, "context": [40, 400], "new_tokens": 12}
    results = run_bench(recipe(equal_memory=memory), tmp_path)
    equal = results["equal_memory"]
    for computed, measured in zip(equal["computed"], equal["measured"], strict=True):
        for arm, run in zip(computed["arms"], measured["arms"], strict=True):
            left = gib * 2**30 - resident_bytes(reference.config, run["method"], widths=FP32)
            kept = kept_bytes(reference.config, run["method"], computed["context"], widths=FP32)
            assert arm["fit"] == int(left / kept)
            assert (arm["fit_with_copies"] < arm["fit"]) == (run["method"] == "eagle")
            # The engine also plans for the answer, the sampler and a buffer that grows; nothing goes beyond.
            assert 1 <= run["fit"] < arm["fit"]
            assert run["fit"] * kept <= run["cache_bytes"] <= left
    assert [len(table.rows) for table in bench_tables(results)] == [8, 8]


@pytest.mark.usefixtures("small_shape")
def test_memory_that_is_too_small_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"equal_memory.gib is 0.0005, and the weights of arm regular take"):
        run_bench(recipe(equal_memory={"gib": 0.0005, "context": [40]}), tmp_path)
    with pytest.raises(MachineError) as refused:
        run_bench(recipe(equal_memory={"gib": 0.0305, "context": [30_000]}), tmp_path)
    assert "not one request of 30,032 tokens fits" in str(refused.value)


@pytest.mark.usefixtures("small_shape")
@pytest.mark.parametrize("table", ["users", "equal_memory"])
def test_what_can_never_fit_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(runner, "measure_latency", lambda *_: pytest.fail("something was measured"))
    asked = {"users": {"context": [9, 40_000], "requests": [1]}, "equal_memory": {"gib": 1, "context": [40_000]}}
    with pytest.raises(UsageError, match="a prompt of 40000 tokens and a budget of 32 can never fit"):
        run_bench(recipe(prompt_tokens=[9], **{table: asked[table]}), tmp_path)


def test_pieces_whose_tokens_are_not_told_are_no_load() -> None:
    silent = [_Piece(1.0, 0), _Piece(2.0, 0), _Piece(3.0, 0)]
    with pytest.raises(PipoError, match="does not tell how many tokens each piece"):
        _figures([silent], began=1.0, first_end=3.0, cache_bytes=None)


@pytest.mark.usefixtures("small_shape")
def test_requests_that_do_not_run_at_once_are_no_load(tmp_path: Path) -> None:
    engine = {"device": "cpu", "precision": "fp32", "threads": 1, "memory_gib": 0.016, "prefill_chunk": 8}
    users = {"context": [2000], "requests": [8], "new_tokens": 8, "trials": 1}
    with pytest.raises(PipoError, match="the 8 requests did not run at once"):
        run_bench(recipe(users=users, engine=engine), tmp_path)


def test_a_bench_measures_something_and_plans_only_its_own_memory() -> None:
    with pytest.raises(ValidationError, match="there is nothing to measure"):
        recipe()
    remote = {"kind": "remote", "urls": ["http://127.0.0.1:1"]}
    asked = {"arms": [{**ARMS[0], "ckpt": "x/y"}], "engine": remote, "equal_memory": {"gib": 1, "context": [9]}}
    with pytest.raises(ValidationError, match="only the torch engine's memory is known, and arm regular has another"):
        recipe(random_weights=None, **asked)
