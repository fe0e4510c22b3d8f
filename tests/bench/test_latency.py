from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipo_core.bench.prompts import make_prompt
from pipo_core.bench.runner import run_bench
from pipo_core.chat import load_tokenizer
from pipo_core.data.problems import load_problems, user_message
from pipo_core.data.tiny.tokenizer import train_tokenizer
from pipo_core.engine import Completion, Delta, Reports, Request
from pipo_core.errors import PipoError, UsageError
from pipo_core.files import read_json
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.methods import Decoding
from tests.canned_engine import CannedEngine


@dataclass
class FakeEngine(CannedEngine):
    """An engine whose steps take `step` seconds and prompt tokens `prefill` seconds, times `Clock.tick`."""

    clock: "Clock"
    label: str
    pattern: Sequence[int]
    step: float
    prefill: float
    tokenizer: PreTrainedTokenizerFast
    reports = Reports(device="cpu")

    def stream(self, requests: Iterable[Request]) -> Iterator[Delta]:
        for request in requests:
            self.clock.calls.append((self.label, request))
            assert request.ignore_end
            assert request.max_tokens is not None
            counts: list[int] = []
            while sum(counts) < request.max_tokens:
                planned = self.pattern[len(counts) % len(self.pattern)]
                counts.append(min(planned, request.max_tokens - sum(counts)))
            slow = self.clock.tick()
            ttft = slow * self.prefill * len(request.prompt_ids)
            completion = Completion(
                id=request.id,
                token_ids=[1] * sum(counts),
                text="",
                tokens=sum(counts),
                slots=len(counts),
                drafts=len(counts) if max(self.pattern) == 2 else 0,
                kept=counts.count(2),
                finish_reason="length",
                ttft_s=ttft,
                time_s=ttft + slow * self.step * (len(counts) - 1),
                slot_token_counts=counts,
            )
            yield Delta(request.id, completion=completion)


@dataclass
class Clock:
    """Slows all engines down from round to round, by far more than they differ."""

    arms: int = 2
    calls: list[tuple[str, Request]] = field(default_factory=list)
    ticks: int = 0

    def tick(self) -> float:
        self.ticks += 1
        return 1.0 + ((self.ticks - 1) // self.arms) * 0.5

    def open(self, source: Path | str, decoding: Decoding, settings: Any) -> FakeEngine:
        assert settings.batch == 1
        tokenizer = load_tokenizer(Path(source))
        if decoding.method == "regular":
            return FakeEngine(self, "regular", [1], step=0.010, prefill=0.0010, tokenizer=tokenizer)
        pattern = [2] if decoding.tau == 0 else [2, 1]
        label = f"pipo@{decoding.tau:g}"
        return FakeEngine(self, label, pattern, step=0.012, prefill=0.0006, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of two checkpoint folders that the bench reads itself: the tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("base", "pair"):
        train_tokenizer().save_pretrained(folder / name)
    return folder


def recipe(models: Path, **changes: Any) -> BenchRecipe:
    return BenchRecipe.model_validate(
        {
            "arms": [
                {"name": "regular", "method": "regular", "ckpt": str(models / "base")},
                {"name": "pipo", "method": "pipo", "ckpt": str(models / "pair"), "tau": 0.0},
            ],
            "prompt_tokens": [64, 256],
            "new_tokens": 17,
            "trials": 6,
            "warmup": 2,
            "baseline": "regular",
            **changes,
        }
    )


def test_ratios_are_those_of_the_machine_whatever_its_drift(models: Path, tmp_path: Path) -> None:
    results = run_bench(recipe(models), tmp_path, open_engine=Clock().open)
    for length in results["lengths"]:
        regular, pipo = length["arms"]
        assert regular["speedup"] == {time: {"median": 1.0, "q1": 1.0, "q3": 1.0} for time in ("ttft_s", "tpot_s")}
        assert pipo["speedup"]["ttft_s"]["median"] == pytest.approx(0.0010 / 0.0006)
        # A slot of two, then 7 of two and one of one: 8 steps of 12 ms for 15 tokens, against 10 ms each.
        assert pipo["speedup"]["tpot_s"]["median"] == pytest.approx(0.010 / (8 * 0.012 / 15))
        assert pipo["tokens_per_slot"] == pytest.approx(17 / 9)


def test_tpot_counts_real_tokens_after_the_first_step(models: Path, tmp_path: Path) -> None:
    @dataclass
    class Steady(Clock):
        def tick(self) -> float:
            return 1.0

    arms = [{"name": "pipo", "method": "pipo", "ckpt": str(models / "pair"), "tau": [0.0, 0.95]}]
    results = run_bench(recipe(models, arms=arms, baseline=None, new_tokens=14), tmp_path, open_engine=Steady().open)
    every, some = results["lengths"][0]["arms"]
    assert every["tpot_s"]["median"] == pytest.approx(0.012 / 2)
    # 2 1 2 1 2 1 2 1 2: after the first slot 8 steps for 12 tokens.
    assert some["tpot_s"]["median"] == pytest.approx(8 * 0.012 / 12)
    assert some["ttft_s"]["median"] == pytest.approx(64 * 0.0006)
    assert (every["label"], some["label"]) == ("pipo@0", "pipo@0.95")
    assert every["speedup"] is None


def test_arms_take_turns_and_answer_the_same(models: Path, tmp_path: Path) -> None:
    clock = Clock()
    run_bench(recipe(models, prompt_tokens=[64]), tmp_path, open_engine=clock.open)
    rounds = [clock.calls[start : start + 2] for start in range(0, len(clock.calls), 2)]
    assert len(rounds) == 8
    assert [first for (first, _), _ in rounds] == ["regular", "pipo@0"] * 4
    for (_, one), (_, other) in rounds:
        assert one.prompt_ids == other.prompt_ids
        assert one.sampling == other.sampling
    prompts = [one.prompt_ids for (_, one), _ in rounds]
    assert len(set(prompts)) == 8
    assert {len(prompt) for prompt in prompts} == {64}


def test_results_keep_every_measured_trial_and_what_they_ran_on(models: Path, tmp_path: Path) -> None:
    results = run_bench(recipe(models), tmp_path, open_engine=Clock().open)
    kept = read_json(tmp_path / "results.json")
    raw = kept.pop("raw")
    assert [kept.pop(f"raw_{table}") for table in ("throughput", "users", "equal_memory")] == [[], [], []]
    assert kept == results
    assert len(raw) == 2 * 2 * 6
    # Each round is slower by half a unit. The warm-up rounds, 1.0 and 1.5, are not among the trials.
    fastest = min(trial["ttft_s"] for trial in raw if trial["label"] == "regular" and trial["prompt_tokens"] == 64)
    assert fastest == pytest.approx(64 * 0.0010 * 2.0)
    assert results["machine"]["threads"] == torch.get_num_threads()
    assert results["versions"]["torch"] == version("torch")
    assert results["machine"]["device"] == "cpu"
    assert results["sampling"]["top_k"] == 20
    assert set(results["definitions"]) >= {"ttft_s", "tpot_s", "speedup"}


@pytest.mark.parametrize("length", [2, 5, 1_000, 50_000])
def test_a_prompt_has_the_length_asked_for(length: int) -> None:
    tokenizer = train_tokenizer()
    prompt = make_prompt(tokenizer, length, seed=4)
    assert len(prompt) == length
    assert prompt == make_prompt(tokenizer, 60_000, seed=4)[:length]
    first = user_message(load_problems("tiny", "heldout", 1, 4)[0])
    assert tokenizer.decode(prompt).startswith(first) or first.startswith(tokenizer.decode(prompt))


def test_what_cannot_be_measured_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 3"):
        run_bench(recipe(models, new_tokens=2), tmp_path, open_engine=Clock().open)
    arms = [{"name": "pipo", "method": "pipo", "ckpt": str(models / "pair"), "tau": [0.0, 0.95]}]
    with pytest.raises(UsageError, match="2 thresholds"):
        run_bench(recipe(models, arms=arms, baseline="pipo"), tmp_path, open_engine=Clock().open)

    class Lazy(Clock):
        def open(self, source: Path | str, decoding: Decoding, settings: Any) -> FakeEngine:
            return FakeEngine(self, "lazy", [10**6], 1, 1, load_tokenizer(Path(source)))

    with pytest.raises(PipoError, match="after the first step"):
        run_bench(recipe(models), tmp_path, open_engine=Lazy().open)


def test_medians_and_quartiles_are_those_of_the_trials(models: Path, tmp_path: Path) -> None:
    class Noisy(Clock):
        def tick(self) -> float:
            self.ticks += 1
            return 1 + (self.ticks * 0.618) % 1

    results = run_bench(recipe(models, trials=5, prompt_tokens=[64]), tmp_path, open_engine=Noisy().open)
    raw = read_json(tmp_path / "results.json")["raw"]
    times = sorted(trial["ttft_s"] for trial in raw if trial["label"] == "regular")
    summary = results["lengths"][0]["arms"][0]["ttft_s"]
    assert (summary["q1"], summary["median"], summary["q3"]) == (times[1], times[2], times[3])
