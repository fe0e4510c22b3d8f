"""A whole bench on a small shape with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipo_core.bench import runner
from pipo_core.bench.arms import OpenArm
from pipo_core.bench.asked import Lengths
from pipo_core.bench.loads import LoadTrial, run_load
from pipo_core.bench.runner import run_bench
from pipo_core.bench.table import bench_tables
from pipo_core.decode.method import StepLoad
from pipo_core.decode.traffic import step_bytes
from pipo_core.engine import Engine, Engines
from pipo_core.errors import Interrupted, MachineError, MissingInputError, PipoError, UsageError
from pipo_core.files import read_json, write_json
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.model.sizes import FP32
from pipo_core.pipeline.compare import _settings, compare_results, read_results
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import EngineSettings
from pipo_core.recipes.methods import Decoding
from pipo_core.reporting import Progress, SilentReporter
from tests.tiny import make_model

ENGINE = {"device": "cpu", "precision": "fp32", "threads": 1}
ARMS: list[dict[str, Any]] = [
    {"name": "regular", "method": "regular"},
    {"name": "mtp", "method": "mtp"},
    {"name": "eagle", "method": "eagle"},
    {"name": "pipo", "method": "pipo", "acceptance": [0.0, 0.5, 1.0]},
    {"name": "few", "method": "pipo", "acceptance": [1.0], "draft_vocab": 40},
]


def recipe(**changes: Any) -> BenchRecipe:
    values = {
        "arms": ARMS,
        "random_weights": "qwen3.5-0.8b",
        "prompt_tokens": [9, 24],
        "new_tokens": 40,
        "trials": 2,
        "warmup": 0,
        "concurrency": [1, 3],
        "concurrent_prompt_tokens": 8,
        "concurrent_new_tokens": 6,
        "concurrent_trials": 1,
        "baseline": "regular",
        "engine": ENGINE,
    }
    return BenchRecipe.model_validate({**values, **changes})


@pytest.fixture
def small_shape(monkeypatch: pytest.MonkeyPatch, reference: Qwen3_5ForCausalPIPO) -> None:
    """Replace the published shape by a small model."""
    monkeypatch.setattr("pipo_core.engine.torch_opening.random_shape_model", lambda name, **options: reference)


@pytest.mark.usefixtures("small_shape")
def test_all_methods_run_on_random_weights_and_shares_are_as_fixed(
    tmp_path: Path, reference: Qwen3_5ForCausalPIPO
) -> None:
    results = run_bench(recipe(), tmp_path)
    labels = ["regular", "mtp", "eagle", "pipo@0%", "pipo@50%", "pipo@100%", "few@100%"]
    for length in results["lengths"]:
        found = {arm["label"]: arm for arm in length["arms"]}
        assert list(found) == labels
        assert found["regular"]["tokens_per_slot"] == found["pipo@0%"]["tokens_per_slot"] == 1.0
        assert found["mtp"]["tokens_per_slot"] == found["pipo@100%"]["tokens_per_slot"] == 2.0
        assert 0.4 < found["pipo@50%"]["drafts_kept"] < 0.6
        assert all(0 < arm["of_limit"]["tpot_s"] < 1 for arm in found.values())
        # With every draft kept a step writes two tokens, and reads the LM head twice.
        moved = step_bytes(reference.config, "pipo", StepLoad(context=length["prompt_tokens"]), widths=FP32)
        limit = moved / results["limits_of"]["bandwidth"] / 2
        every = found["pipo@100%"]
        assert every["of_limit"]["tpot_s"] * every["tpot_s"]["median"] == pytest.approx(limit)
    for row in results["throughput"]:
        assert [arm["label"] for arm in row["arms"]] == labels
        assert row["arms"][0]["speedup"]["median"] == 1.0
    raw = read_json(tmp_path / "results.json")["raw_throughput"]
    assert {trial["tokens"] for trial in raw} == {6, 18}  # real tokens, no more than asked for
    (proof,) = results["lossless"]  # of the one arm that claims it
    assert (proof["label"], proof["checked"], proof["equal"]) == ("eagle", True, 4)
    assert bench_tables(results)[0].note == "eagle: 4 of 4 greedy answers equal regular decoding's."


@pytest.mark.usefixtures("small_shape")
def test_an_arm_that_is_not_lossless_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    def open_liar(source: Path | str, decoding: Decoding, settings: EngineSettings) -> Engine:
        lying = replace(decoding, method="mtp", drafts=None) if decoding.method == "eagle" else decoding
        return Engines().open(source, lying, settings)

    with pytest.raises(PipoError, match="eagle is not lossless"):
        run_bench(recipe(arms=ARMS[:3]), tmp_path, open_engine=open_liar)
    assert not (tmp_path / "results.json").exists()


def test_a_checkpoint_is_loaded_once_for_all_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(path: Path, **at: Any) -> Qwen3_5ForCausalPIPO:
        loaded.append(path)
        return load_checkpoint(path, **at)

    monkeypatch.setattr("pipo_core.engine.torch_opening.load_checkpoint", load)
    ckpt = str(make_model(tmp_path / "pair", layout="pipo"))
    arms = [{**arm, "ckpt": ckpt} for arm in ARMS[:4]]
    run_bench(recipe(arms=arms, random_weights=None, prompt_tokens=[9], concurrency=[]), tmp_path)
    assert loaded == [Path(ckpt)]


def test_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no shape is called"):
        run_bench(recipe(random_weights="qwen9"), tmp_path)


@pytest.mark.usefixtures("small_shape")
def test_training_passes_are_measured_where_lengths_are_given(tmp_path: Path) -> None:
    arms = [{"name": "regular", "method": "regular"}]
    few = {"prompt_tokens": [9], "new_tokens": 3, "concurrency": [], "training_tokens": [16, 32], "training_trials": 1}
    results = run_bench(recipe(arms=arms, **few), tmp_path)
    assert [row["tokens"] for row in results["training"]] == [16, 32]
    for row in results["training"]:
        assert set(row["arms"]) == {"regular", "pipo"}
        assert row["speedup"] > 0
        assert row["peak_ratio"] > 0
    table = bench_tables(results)[-1]
    assert [cells[:2] for cells in table.rows] == [[n, o] for n in ("16", "32") for o in ("regular", "pipo")]
    assert table.rows[1][4] == f"{results['training'][0]['speedup']:.2f}×"


@pytest.mark.usefixtures("small_shape")
def test_what_was_measured_stays_if_a_training_pass_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Any) -> Any:
        raise MachineError("no memory")

    monkeypatch.setattr(runner, "measure_training", fail)
    arms = [{"name": "regular", "method": "regular"}]
    few = {"prompt_tokens": [9], "new_tokens": 3, "concurrency": [], "training_tokens": [16]}
    with pytest.raises(MachineError):
        run_bench(recipe(arms=arms, **few), tmp_path)
    assert read_json(tmp_path / "unfinished.json")["lengths"]
    assert not (tmp_path / "results.json").exists()


class Heard(SilentReporter):
    """Keeps warnings, and how much of each progress there was to do."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.totals: dict[str, int | None] = {}

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def progress(self, title: str, total: int | None, unit: str = "item") -> Progress:
        self.totals[title] = total
        return super().progress(title, total, unit)


SMALL: dict[str, Any] = {
    "arms": ARMS[:1],
    "prompt_tokens": [9, 24],
    "new_tokens": 3,
    "concurrency": [1, 2],
    "users": {"context": [9, 30], "requests": [1, 2], "new_tokens": 20, "trials": 1},
    "equal_memory": {"gib": 0.0305, "context": [40, 400], "new_tokens": 12},
    "training_tokens": [16, 32],
    "training_trials": 1,
}


@pytest.mark.usefixtures("small_shape")
@pytest.mark.parametrize("stops", [KeyboardInterrupt, MachineError])
def test_a_bench_that_ends_early_keeps_its_rows_and_the_next_one_measures_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: type[BaseException]
) -> None:
    """The second context at equal memory is never measured: all rows before it are kept, with their trials."""
    heard = Heard()

    def stop(arm: OpenArm, lengths: Lengths, *more: Any) -> LoadTrial:
        if lengths.prompt == 400:
            raise stops("here")
        return run_load(arm, lengths, *more)

    with monkeypatch.context() as patch:
        patch.setattr("pipo_core.bench.equal_memory.run_load", stop)
        with pytest.raises((stops, Interrupted)) as ended:
            run_bench(recipe(**SMALL), tmp_path, reporter=heard)
    file = tmp_path / "unfinished.json"
    # At Ctrl-C the line that the terminal ends with says it, else one before the failure's.
    if stops is KeyboardInterrupt:
        assert isinstance(ended.value, Interrupted)
        said = f"{ended.value.message}; {ended.value.hint}"
    else:
        [said] = heard.warnings
    assert f"what was measured is in {file}; the same command measures anew" in said
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished.json"]
    kept = read_json(file)
    assert kept["kind"] == "unfinished bench"
    assert [row["prompt_tokens"] for row in kept["lengths"]] == [9, 24]
    assert [row["requests"] for row in kept["throughput"]] == [1, 2]
    assert len(kept["users"]) == len(kept["raw_users"]) == 4
    assert [row["context"] for row in kept["equal_memory"]["computed"]] == [40, 400]
    assert [row["context"] for row in kept["equal_memory"]["measured"]] == [40]
    assert len(kept["raw_equal_memory"]) == 1
    with pytest.raises(MissingInputError, match="holds a stage of pipo bench that is not finished"):
        read_results(tmp_path)
    with pytest.raises(MissingInputError, match="holds a stage of pipo bench that is not finished"):
        read_results(file)

    rows: list[int] = []
    written = write_json

    def count(path: Path, obj: Any) -> None:
        rows.append(sum(len(table["measured"] if isinstance(table, dict) else table) for table in tables(obj)))
        written(path, obj)

    def tables(obj: Any) -> list[Any]:
        return [obj[key] for key in ("lengths", "throughput", "users", "equal_memory", "training")]

    monkeypatch.setattr("pipo_core.bench.keeping.write_json", count)
    monkeypatch.setattr(runner, "measure_training", lambda case: {"tokens": case.tokens, "arms": {}})  # takes long
    again = Heard()
    asked = recipe(**SMALL)
    results = run_bench(asked, tmp_path, reporter=again)
    assert rows == [*range(1, 13), 12]  # the disk has each row as soon as it is measured, from the first one on
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert again.warnings == []
    whole = read_results(tmp_path)
    assert whole["kind"] == "bench"
    assert {key: value for key, value in whole.items() if not key.startswith("raw")} == results
    assert len(whole["training"]) == 2
    planned = asked.trials_by_table()
    assert list(planned.values()) == [again.totals[title] for title in ("bench", "throughput", "users", "equal memory")]
    # What is a table and what a setting is known of every key, so that a comparison takes none for the other.
    assert set(_settings(whole)) == {
        *("batch", "weights", "new_tokens", "trials", "warmup", "baseline", "sampling", "machine", "versions", "loads")
    }
    assert whole["loads"]["throughput"] == {"prompt_tokens": 8, "new_tokens": 6, "trials": 1}
    assert compare_results(whole, whole)["settings"] == {}


@pytest.mark.usefixtures("small_shape")
def test_a_bench_that_fails_before_its_first_row_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise PipoError("here")

    heard = Heard()
    monkeypatch.setattr("pipo_core.bench.latency.stream", stop)
    with pytest.raises(PipoError, match="here"):
        run_bench(recipe(**SMALL), tmp_path, reporter=heard)
    assert (heard.warnings, list(tmp_path.iterdir())) == ([], [])


def test_repeated_numbers_are_refused() -> None:
    for key in ("prompt_tokens", "concurrency", "training_tokens"):
        with pytest.raises(ValueError, match="16 is given twice"):
            recipe(**{key: [16, 8, 16]})
