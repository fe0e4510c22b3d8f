"""Costs of answers against sums written out step by step."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipo_core.data.problems import Problem
from pipo_core.decode.method import StepLoad
from pipo_core.decode.registry import METHOD_CLASSES
from pipo_core.decode.traffic import step_bytes
from pipo_core.evaluate.cost import Shape, answer_bytes, costs, curves, wall_seconds
from pipo_core.evaluate.scores import ScoredAnswer, outcome
from pipo_core.evaluate.verdicts import verdicts
from pipo_core.model.checkpoint import load_config
from pipo_core.model.sizes import BF16, INT8, model_sizes
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding

QUESTIONS, SAMPLES, LIMIT = 7, 3, 12


def answers(seed: int = 0, *, known: bool = True, pairs: bool = True) -> list[ScoredAnswer]:
    """Return made-up answers: some cut off, some wrong, in two sessions."""
    rng = random.Random(seed)
    found = []
    for place in range(QUESTIONS * SAMPLES):
        counts = [rng.randint(1, 2 if pairs else 1) for _ in range(rng.randint(1, 20))]
        found.append(
            ScoredAnswer.of(
                {
                    "problem": str(place // SAMPLES),
                    "sample": place % SAMPLES,
                    "finish_reason": "stop" if rng.random() < 0.9 else "length",
                    "correct": rng.random() < 0.6,
                    "slot_token_counts": counts if known else None,
                    "written": sum(counts),
                    "drafts": len(counts),
                    "prompt_tokens": rng.randint(3, 40),
                    "session": "b" if place % 2 else "a",
                    "at_s": 10.0 * (place % 2) + place,
                }
            )
        )
    return found


def problems() -> list[Problem]:
    return [Problem(str(number), "?", "1") for number in range(QUESTIONS)]


def shape(method: str = "pipo", batch: int = 1) -> Shape:
    config = load_config(bundled_model("tiny-student"))
    return Shape(config, Decoding(method, tau=0.5 if method == "pipo" else None), batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize(("method", "pairs"), [("pipo", True), ("regular", False)])
def test_the_bytes_of_an_answer_are_those_of_its_steps(method: str, pairs: bool, batch: int) -> None:
    given = shape(method, batch)
    for answer in answers(pairs=pairs):
        assert answer.steps is not None
        steps = answer.steps.tolist()
        share = steps[-1] / len(steps) - 1
        written, total = 0, 0.0
        for reached in steps:
            load = StepLoad(context=(answer.prompt_tokens or 0) + written, batch=batch, acceptance=share)
            total += step_bytes(given.config, given.decoding.method, load) / batch
            written = reached
        # Equal but for the mean context, which is rounded to whole tokens.
        slack = len(steps) * step_bytes(given.config, given.decoding.method, StepLoad(context=1)) * 1e-3
        assert given.bytes_of(answer.prompt_tokens or 0, steps) == pytest.approx(total, abs=slack)


def test_costs_are_sums_over_all_answers_by_the_number_of_right_ones() -> None:
    rows = answers()
    moved = answer_bytes(rows, shape())
    assert moved is not None
    within = outcome(rows, problems(), SAMPLES, "slots", LIMIT)
    found = costs(within, rows, 100.0, moved)
    tokens = steps = whole = right = cut = 0
    read = 0.0
    for answer, bytes_of_it in zip(rows, moved, strict=True):
        assert answer.steps is not None
        kept = min(len(answer.steps), LIMIT)
        steps += kept
        whole += len(answer.steps)
        tokens += int(answer.steps[kept - 1])
        read += bytes_of_it * kept / len(answer.steps)
        ended = answer.ended and len(answer.steps) <= LIMIT
        cut += not ended
        right += ended and answer.correct
    count = len(rows)
    expected = {"tokens": tokens, "steps": steps, "seconds": 100.0 * steps / whole, "bytes": read}
    assert found["cut"] == cut > 0
    assert found["answer"] == pytest.approx({name: total / count for name, total in expected.items()})
    assert found["right"] == pytest.approx({name: total / right for name, total in expected.items()})


def test_what_an_engine_cannot_tell_is_left_out() -> None:
    rows = answers(known=False)
    assert answer_bytes(rows, shape()) is None
    assert answer_bytes(answers(), None) is None
    found = costs(outcome(rows, problems(), SAMPLES, "tokens", LIMIT), rows, None, None)
    assert (found["answer"]["steps"], found["answer"]["seconds"], found["answer"]["bytes"]) == (None, None, None)
    assert found["answer"]["tokens"] > 0
    assert "slots" not in curves({"a": rows}, {"a": None}, {"tokens": 16}, "a")
    assert Shape.of(Path("/nowhere"), Decoding("regular"), 1) is None


def test_an_int8_models_answers_read_less_but_their_keys_and_states() -> None:
    steps = list(range(1, 9))
    plain, half = (replace(shape("regular"), widths=widths) for widths in (BF16, INT8))
    sizes, load = model_sizes(plain.config), StepLoad(context=44)
    saved = 8 * METHOD_CLASSES["regular"].step_weights(sizes, load)
    assert plain.bytes_of(40, steps) - half.bytes_of(40, steps) == saved


def test_wall_time_adds_up_over_sessions() -> None:
    rows = answers()
    assert wall_seconds(rows) == 20.0 + 10.0 + 19.0  # the last answers of the two sessions
    assert wall_seconds([]) is None
    older = ScoredAnswer.of(
        {"problem": "a", "sample": 0, "finish_reason": "stop", "correct": True, "slot_token_counts": [1], "drafts": 0}
    )
    assert wall_seconds([*rows, older]) is None


def test_a_curve_is_the_accuracy_of_generations_with_that_limit() -> None:
    rows = {"base": answers(1, pairs=False), "pair": answers(2)}
    moved = {label: answer_bytes(some, shape("regular" if label == "base" else "pipo")) for label, some in rows.items()}
    found = curves(rows, moved, {"tokens": 32, "slots": 16}, "base")
    assert found["tokens"]["limits"] == [2, 4, 8, 16, 32]
    assert found["slots"]["limits"] == [1, 2, 4, 8, 16]
    for label, some in rows.items():
        for unit in ("tokens", "slots"):
            for limit, value in zip(found[unit]["limits"], found[unit]["arms"][label], strict=True):
                within = outcome(some, problems(), SAMPLES, "slots" if unit == "slots" else "tokens", limit)
                assert value == pytest.approx(within.average().mean())
        for limit, value in zip(found["bytes"]["bytes"], found["bytes"]["arms"][label], strict=True):
            sizes = moved[label]
            assert sizes is not None
            right = [one.ended and one.correct and size <= limit for one, size in zip(some, sizes, strict=True)]
            assert value == pytest.approx(np.mean(right))
    mean = sum(moved["base"]) / sum(one.tokens for one in rows["base"])  # type: ignore[arg-type]
    assert found["bytes"]["bytes"] == pytest.approx([mean * limit for limit in (2, 4, 8, 16, 32)])


def results(right: dict[str, float], difference: dict[str, float]) -> dict[str, Any]:
    cost = {"tokens": 1.0, "steps": 100.0, "seconds": None, "bytes": 1e9}

    def arm(label: str, method: str, times: float) -> dict[str, Any]:
        own = {name: None if value is None else value * times for name, value in cost.items()}
        at = {"cost": {"right": own}, "difference": None if label == "base" else difference}
        engine = {"kind": "torch", "at_once": 64}
        return {"label": label, "method": method, "engine": engine, "budgets": {"slots": at}}

    return {
        "suite": "math",
        "baseline": "base",
        "budget": {"tokens": 32768, "slots": 32768},
        "arms": [arm("base", "regular", 1.0), *(arm(label, "pipo", times) for label, times in right.items())],
        "curves": {
            "bytes": {
                "limits": [2048, 4096, 8192],
                "of": "base",
                "arms": {"base": [0.1, 0.3, 0.5], **{label: [0.2, 0.4, 0.5] for label in right}},
            }
        },
    }


def test_it_is_said_who_pays_and_who_does_not() -> None:
    same = {"value": 0.001, "low": -0.01, "high": 0.01}
    cheap, dear, where = verdicts(results({"cheap": 0.8, "dear": 1.1}, same))
    assert cheap == (
        "math, at most 32K slots: **`cheap` pays here**: a right answer takes 0.80× the steps, 0.80× the bytes read of "
        "one by `base`."
    )
    assert "**`dear` does not pay here**: a right answer takes 1.10× the steps" in dear
    assert where == (
        "math: most accurate of these answers at the bytes that `base` reads for so many tokens (small differences may "
        "be chance) — 2K to 4K: `cheap`, `dear` (20.0 "
        "to 40.0 %); 8K: `base`, `cheap`, `dear` (50.0 %)."
    )
    lossy = verdicts(results({"cheap": 0.8}, {"value": -0.05, "low": -0.08, "high": -0.02}))[0]
    assert "**`cheap` is cheaper here, and less accurate**: a right answer takes 0.80×" in lossy
    assert lossy.endswith("Its accuracy is lower by 5.0 points.")
    assert "does not pay here" in verdicts(results({"same": 0.999}, same))[0]
    mute = results({"mute": 1.0}, same)
    mute["arms"][1]["budgets"]["slots"]["cost"]["right"] = dict.fromkeys(("tokens", "steps", "seconds", "bytes"))
    assert verdicts(mute)[0].endswith("**`mute` does not pay here**: it gave no right answer, `base` did.")
