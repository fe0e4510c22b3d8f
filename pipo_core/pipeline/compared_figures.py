"""The figures of results that are compared: a row's name, and its figures by name; and what stands beside them."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipo_core.evaluate.table import suite_results
from pipo_core.recipes.methods import METHODS

Results = Mapping[str, Any]
Row = tuple[tuple[str, ...], dict[str, float | None]]

LESS_IS_BETTER = frozenset({"TTFT", "TPOT", "step", "peak memory"})
"""Figures whose ratio is the first over the second."""
ACCURACY, KEPT = "accuracy", "drafts kept"
"""Shares, whose difference is told in points; so is avg@k."""


def counted(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def bench_figures(results: Results) -> Iterator[Row]:
    """Yield the rows of all tables of a bench."""
    for length in results["lengths"]:
        for arm in length["arms"]:
            key = (f"{length['prompt_tokens']:,} prompt tokens", arm["label"])
            yield key, {"TTFT": arm["ttft_s"]["median"], "TPOT": arm["tpot_s"]["median"]}
    for row in results.get("throughput", ()):
        for arm in row["arms"]:
            key = (counted(row["requests"], "request"), arm["label"])
            yield key, {"tokens/s": arm["tokens_per_second"]["median"]}
    for row in results.get("users", ()):
        for arm in row["arms"]:
            key = (f"{counted(row['requests'], 'user')} of {row['context']:,} tokens", arm["label"])
            yield key, _decoding(arm)
    memory = results.get("equal_memory")
    if memory is not None:
        yield from _equal_memory_figures(memory)
    for row in results.get("training", ()):
        for name, arm in row["arms"].items():
            key = (f"training on {row['tokens']:,} tokens", name)
            yield key, {"tokens/s": arm["tokens_per_second"], "peak memory": float(arm["peak_bytes"])}


def _equal_memory_figures(memory: Mapping[str, Any]) -> Iterator[Row]:
    for how in ("computed", "measured"):
        for row in memory[how]:
            for arm in row["arms"]:
                key = (f"{memory['gib']:g} GiB, {row['context']:,} tokens, {how}", arm["label"])
                yield key, {"fit": float(arm["fit"]), **(_decoding(arm) if how == "measured" else {})}


def _decoding(arm: Mapping[str, Any]) -> dict[str, float | None]:
    return {"tokens/s": arm["tokens_per_second"]["median"], "step": arm["step_s"]["median"]}


def eval_figures(results: Results) -> Iterator[Row]:
    """Yield the rows of all suites of an evaluation, by budget and arm."""
    for suite in suite_results(results):
        for arm in suite["arms"]:
            for unit, at in arm["budgets"].items():
                key = (suite["suite"], f"{suite['budget'][unit]:,} {unit}", arm["label"])
                points = {f"avg@{suite['samples']}": at["avg"]["value"]}
                yield key, {**points, "tokens a slot": at["tokens_per_slot"]}


def profile_figures(profile: Results) -> Iterator[Row]:
    """Yield the settings of a calibration, by what was asked; then what each costs, by load."""
    for setting in profile["settings"]:
        accuracy = setting["accuracy"]
        drafts = METHODS[setting["method"]].fixed_drafts if setting["drafts"] is None else setting["drafts"]
        yield (
            (profile["asked"]["what"], setting["label"]),
            {
                ACCURACY: accuracy and accuracy["value"],
                KEPT: (setting["tokens_per_step"] - 1) / drafts if drafts else None,
            },
        )
    for load in profile["loads"]:
        for cost in load["costs"]:
            key = (f"{counted(load['requests'], 'request')} of {profile['context']:,} tokens", cost["label"])
            costs = {"tokens/s": cost["tokens_per_second"], "step": cost["step_s"]}
            yield key, {**costs, "right answers/s": cost["right_per_second"]}


def proofs_of(results: Results) -> dict[str, str]:
    """Return what was found of arms that claim to be lossless, in words, by their names and those of suites."""
    if results["kind"] == "eval":
        suites = suite_results(results)
        return {
            f"{suite['suite']}, {proof['label']}": proof["words"]
            for suite in suites
            for proof in suite.get("lossless", ())
        }
    return {proof["label"]: proof["words"] for proof in results.get("lossless", ())}


def recommendations(first: Results, second: Results) -> list[dict[str, Any]]:
    """Return what two calibrations recommend at each load that both have: of all settings, and of the pairs alone.

    A recommendation is a setting's label, or None where nothing was graded.
    """
    others = {load["requests"]: load for load in second["loads"]}
    return [
        {
            "requests": load["requests"],
            **{key: [load[key], others[load["requests"]][key]] for key in ("best", "best_pairs")},
        }
        for load in first["loads"]
        if load["requests"] in others
    ]
