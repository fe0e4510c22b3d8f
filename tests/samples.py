"""Results of evaluations and benches, made up, for tests of what is said about them."""

from typing import Any


def estimate(value: float, half: float = 0.01) -> dict[str, float]:
    """A share and its interval."""
    return {"value": value, "low": value - half, "high": min(1.0, value + half)}


def arm(name: str, tau: float | None, avg: float, per_slot: float, half: float = 0.01) -> dict[str, Any]:
    """A run of an evaluation: pipo if it has a threshold."""
    figures = {
        "avg": estimate(avg),
        "pass": {"1": estimate(avg), "2": estimate(min(1, avg + 0.02))},
        "difference": None if tau is None else {**estimate(avg - 0.9, half), "p": 0.125},
        "detectable": half,
        "levels": {},
        "tokens_per_slot": per_slot,
        "drafts": 0 if tau is None else 100,
        "drafts_kept": None if tau is None else 0.9,
        "mean_tokens": 40.0,
        "finished": 0.99,
        "cost": {
            "answer": {"tokens": 40.0, "steps": 40 / per_slot, "seconds": 0.5, "bytes": 1e9},
            "right": {"tokens": 40 / avg, "steps": 40 / per_slot / avg, "seconds": 0.5 / avg, "bytes": 1e9 / avg},
            "cut": 5,
        },
    }
    return {
        "arm": name,
        "label": name if tau is None else f"{name}@{tau:g}",
        "method": "regular" if tau is None else "pipo",
        "tau": tau,
        "ckpt": "model",
        "engine": {"kind": "torch", "at_once": 64},
        "budgets": {"tokens": figures, "slots": figures},
    }


def evaluation(*arms: dict[str, Any]) -> dict[str, Any]:
    """What `run_eval` returns of one suite, of the baseline and `arms`."""
    entries = [arm("regular", None, 0.9, 1.0), *arms]
    accuracies = {entry["label"]: [0.1, entry["budgets"]["tokens"]["avg"]["value"]] for entry in entries}
    return {
        "kind": "eval",
        "suite": "tiny",
        "problems": 500,
        "samples": 2,
        "seed": 0,
        "sampling": {},
        "budget": {"tokens": 256, "slots": 128},
        "baseline": "regular",
        "cost_batch": 1,
        "curves": {"tokens": {"limits": [128, 256], "arms": accuracies}},
        "arms": entries,
    }


def quartiles(median: float) -> dict[str, float]:
    return {"median": median, "q1": 0.9 * median, "q3": 1.1 * median}


def bench() -> dict[str, Any]:
    """What `run_bench` returns, of two arms at one prompt length."""

    def one(label: str, tau: float | None, speed: float) -> dict[str, Any]:
        return {
            "arm": label.partition("@")[0],
            "label": label,
            "method": "regular" if tau is None else "pipo",
            "tau": tau,
            "ttft_s": quartiles(0.02 / speed),
            "tpot_s": quartiles(0.01 / speed),
            "speedup": {"ttft_s": quartiles(speed), "tpot_s": quartiles(speed)},
            "tokens_per_slot": 1.0 if tau is None else 1.8,
            "drafts_kept": None if tau is None else 0.8,
            "of_limit": {"ttft_s": None, "tpot_s": 0.5},
        }

    return {
        "kind": "bench",
        "batch": 1,
        "new_tokens": 16,
        "trials": 4,
        "warmup": 1,
        "baseline": "regular",
        "machine": {"device": "cpu"},
        "lengths": [
            {"prompt_tokens": 64, "arms": [one("regular", None, 1.0), one("pipo@0.5", 0.5, 1.5)]},
        ],
        "throughput": [],
    }
