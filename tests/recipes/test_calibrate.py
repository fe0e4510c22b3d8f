"""What a calibration measures, and recipes that contradict themselves."""

from typing import Any

import pytest

from pipo_core.recipes.calibrate import SHARES, CalibrateRecipe


def recipe(**changes: Any) -> CalibrateRecipe:
    return CalibrateRecipe.model_validate({"ckpt": "x/pair", "suite": "tiny", **changes})


def test_every_setting_is_asked_and_timed_under_its_own_label() -> None:
    made = recipe(
        tau=[0.0, 0.5],
        draft_vocab=[None, 48],
        regular={"ckpt": "x/plain", "drafts": [1, 2]},
        loads={"requests": [4, 1], "context": 32},
        samples=3,
        seed=7,
    )
    labels = [decoding.label(name) for name, decoding in [*made.pairs(), *made.uncompressed()]]
    assert labels == ["pipo@0", "pipo@0.5", "pipo-48@0", "pipo-48@0.5", "regular", "eagle-1", "eagle-2"]
    evaluation = made.evaluation()
    asked = [decoding.label(arm.name) for arm in evaluation.arms for decoding in arm.decodings()]
    assert asked == labels
    assert [arm.ckpt for arm in evaluation.arms] == ["x/pair", "x/pair", "x/plain", "x/plain", "x/plain"]
    assert (evaluation.suite, evaluation.samples, evaluation.seed) == ("tiny", 3, 7)
    bench = made.bench()
    timed = [decoding.label(arm.name) for arm in bench.arms for decoding in arm.decodings()]
    assert timed[: len(SHARES)] == ["pipo@0%", "pipo@50%", "pipo@100%"]
    assert timed[2 * len(SHARES) :] == labels[4:]
    assert bench.users is not None
    assert (bench.users.requests, bench.users.context) == ([4, 1], [32])


def test_without_an_uncompressed_model_only_pairs_are_measured() -> None:
    assert recipe().uncompressed() == []
    assert {arm.method for arm in recipe().evaluation().arms} == {"pipo"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"suite": None}, "suite: give suite or rows"),
        ({"rows": {"file": "x/y"}, "budget": {"tokens": 8}}, "suite: give suite or rows"),
        ({"suite": None, "rows": {"file": "x/y"}}, "budget: missing"),
        (
            {"suite": None, "rows": {"file": "x/y"}, "budget": {"tokens": 8}, "problems": {"seed": 1}},
            "problems: nothing reads it where rows are asked",
        ),
        ({"tau": [0.5, 0.9, 0.5]}, "tau.2: 0.5 is given twice"),
        ({"draft_vocab": [None, None]}, "draft_vocab.1: null is given twice"),
        ({"loads": {"requests": [4, 4]}}, "loads.requests.1: 4 is given twice"),
        ({"regular": {"ckpt": "x/y", "drafts": [2, 2]}}, "regular.drafts.1: 2 is given twice"),
        ({"engine": {"compile": True}}, "engine.compile: pipo serve compiles no steps"),
        ({"engine": {"quantization": "int8"}}, "engine.quantization: pipo serve stores no matrices in 8 bits"),
        ({"tau": [1.5]}, "tau.0"),
        ({"loads": {"trial": 3}}, "loads.trial"),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace(".", r"\.")):
        recipe(**changes)
