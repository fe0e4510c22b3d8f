"""Profiles, made up, for tests of what is made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipo_core.recipes.profile import Profile


def interval(value: float, half: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def setting(
    tau: float | None, accuracy: float | None = 0.9, difference: float | None = 0.0, **more: Any
) -> dict[str, Any]:
    """A pair setting, or regular decoding without a threshold; ``difference`` is the upper end of the interval."""
    name = "regular" if tau is None else f"pipo@{tau:g}"
    return {
        "label": name,
        "method": "regular" if tau is None else "pipo",
        "tau": tau,
        "tokens_per_step": 1.0 if tau is None else 1.8,
        "answer_tokens": 40.0,
        "accuracy": None if accuracy is None else interval(accuracy),
        "difference": None if difference is None else {"value": difference - 0.1, "low": -1.0, "high": difference},
        **more,
    }


def profile(settings: Sequence[Mapping[str, Any]], speeds: Mapping[int, Sequence[float]], **more: Any) -> Profile:
    """A profile of settings, with the tokens a second of each by the number of requests."""
    loads = [
        {
            "requests": requests,
            "costs": [
                {"label": one["label"], "step_s": 0.01, "tokens_per_second": speed}
                for one, speed in zip(settings, row, strict=True)
            ],
        }
        for requests, row in speeds.items()
    ]
    values = {
        "checkpoint": {"folder": "outputs/demo/merge/model", "weights": "0123456789abcdef"},
        "machine": {"device": "cpu", "precision": "float32", "threads": 1},
        "asked": {"what": "tiny", "questions": 10, "samples": 1},
        "context": 64,
        "settings": list(settings),
        "loads": loads,
    }
    return Profile.model_validate({**values, **more})
