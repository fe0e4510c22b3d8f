"""The sentences and small tables of a report. Every figure is stated with its baseline."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pipo_core.evaluate.table import budgets_alike, steps_of_an_answer
from pipo_core.evaluate.verdicts import verdicts
from pipo_core.pipeline.answer_time import answer_seconds
from pipo_core.pipeline.recommend import Recommendation, recommend
from pipo_core.recipes.methods import METHODS
from pipo_core.tables import Table

Results = Mapping[str, Any]
Record = Mapping[str, Any]

_TINY = ("tiny", "tiny-code", "tiny-letters")
"""Suites whose questions pipo makes."""


def conclusions(evals: Mapping[str, Results], benches: Mapping[str, Results]) -> list[str]:
    """Return the main findings as sentences: the threshold to use, its price in accuracy, its speed."""
    lines = ["A slot is one decode step: regular decoding writes one token a slot, PIPO one or two."]
    chosen: set[str] = set()
    for results in evals.values():
        for units in budgets_alike(results):
            found = recommend(results, units[0])
            if found is not None:
                chosen.add(found.arm["label"])
                lines.append(_recommendation(results, found, units))
            elif results["baseline"] is None:
                lines.append("No baseline was named, so no threshold can be recommended.")
        lines.extend(_pair_against_pair(results))
        lines.extend(_against_verified(results, chosen, list(benches.values())))
        lines.extend(verdicts(results, _told(results, chosen)))
    for results in benches.values():
        lines.extend(_speed_lines(results, chosen))
    return list(dict.fromkeys(lines)) if evals or benches else []


def _told(results: Results, chosen: set[str]) -> set[str] | None:
    """Return the arms whose cost is told: of a sweep of thresholds the recommended one; None for all."""
    swept = {arm["label"] for arm in results["arms"] if arm["tau"] is not None}
    return None if not chosen else {arm["label"] for arm in results["arms"]} - (swept - chosen)


def caveats(evals: Mapping[str, Results], benches: Mapping[str, Results]) -> list[str]:
    """Return what a reader must know before using the figures."""
    lines: list[str] = []
    for name, results in evals.items():
        tokens, slots = results["budget"]["tokens"], results["budget"].get("slots")
        if slots is None:
            lines.append(f"{name}: an answer may take at most {tokens:,} tokens. The engine does not report slots.")
        else:
            lines.append(
                f"{name}: an answer may take at most {tokens:,} tokens or, counted by itself, {slots:,} slots. "
                "At equal tokens all methods may write answers of the same length. At equal slots, as the paper "
                "compares, PIPO may write up to twice as many tokens as regular decoding."
            )
        lines.append(
            f"{name}: the intervals are 95 % over {results['problems']} problems with {results['samples']} "
            "answers each. They cover the chance in problems and answers, not in training: each model was "
            "trained once, with one seed."
        )
    if any(arm["tau"] is not None for results in evals.values() for arm in results["arms"]):
        lines.append(
            "The threshold was chosen on the problems that its accuracy was measured on, which favours it a "
            "little. Problems of another seed would show how much."
        )
    if evals:
        lines.append("An answer that is not finished within the budget counts as wrong.")
    if any(results["suite"] in _TINY for results in evals.values()):
        lines.append(
            "The tiny world has small models and generated problems. It shows that the method works from end "
            "to end, not what it costs or gains with a real model."
        )
    for name, results in benches.items():
        lines.append(
            f"{name}: one request at a time on {results['machine']['device']}; PAD is not counted as a token. "
            "Ratios between methods depend on the machine, the batch and the length of the prompt."
        )
    return lines


def stage_table(records: Sequence[Record]) -> Table:
    """Return a table with name, kind, time and attempts of every stage."""
    rows = [
        [
            record["name"],
            record["kind"],
            duration(record["seconds"]),
            str(record["attempts"]),
            record["finished"],
        ]
        for record in records
    ]
    return Table("", ["stage", "kind", "time", "attempts", "finished (UTC)"], rows, words=(0, 1))


def machine_lines(records: Sequence[Record]) -> list[str]:
    """Return lines with the machine, versions, commands and peak memory; lines that stages share appear once."""
    lines: list[str] = []
    for record in records:
        machine = record["machine"]
        gpus = ", ".join(machine["gpus"]) or "no GPU"
        lines.append(f"machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB memory, {gpus}")
        packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines.append(f"versions: {packages}")
        lines.append(f"command: `{record['command']}`")
    peak = max(record["peak_memory_gib"] for record in records)
    return [*dict.fromkeys(lines), f"most memory of any one process: {peak:.2f} GiB"]


def training_line(record: Record, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence about a training: what was trained, from what, on what, and its last losses."""
    settings = record["settings"]
    what = "the uncompressed model" if settings.get("objective") == "regular" else "the pair model"
    method = {"full": "all weights", "lora": "LoRA", "gate": "the gate alone"}[settings["tuning"]["method"]]
    line = f"{what}, {method}, from `{settings['model']}` on `{settings['data']['train']}`"
    if record["kind"] == "distill":
        line += f", taught by `{settings['teacher']}`"
    if not rows:
        return f"{line}."
    last = rows[-1]
    losses = [f"{key.replace('_', ' ')} {last[key]:.3f}" for key in last if key.endswith("loss")]
    return f"{line}; at step {last['step']}: {', '.join(losses)}." if losses else f"{line}."


def data_line(record: Record) -> Iterator[str]:
    """Yield a sentence about the data of a rollout or build stage; nothing for other kinds."""
    name, made = record["name"], record["summary"]
    if record["kind"] == "rollout":
        yield (
            f"{name}: {made['answers']:,} answers to {made['problems']:,} problems by "
            f"`{record['settings']['model']}`; {100 * made['finished']:.1f} % finished, "
            f"{100 * made['solved']:.1f} % correct, {made['mean_tokens']:.0f} tokens on average."
        )
    elif record["kind"] == "build" and record["settings"].get("worked") is not None:
        yield (
            f"{name}: {made['train_rows']:,} training and {made['validation_rows']:,} validation examples "
            f"from the worked solutions of {made['questions']:,} problems."
        )
    elif record["kind"] == "build":
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in made["dropped"].items()) or "none"
        yield (
            f"{name}: {made['train_rows']:,} training and {made['validation_rows']:,} validation examples "
            f"from {made['answers']:,} answers; dropped: {dropped}."
        )


def duration(seconds: float) -> str:
    """Return a length of time as `8.2 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _recommendation(results: Results, found: Recommendation, units: Sequence[str]) -> str:
    arm, at = found.arm, found.figures
    difference = {name: 100 * at["difference"][name] for name in ("value", "low", "high")}
    limit = " or ".join(f"{results['budget'][unit]:,} {unit}" for unit in units)
    accuracy = (
        f"avg@{results['samples']} {100 * at['avg']['value']:.1f} %, "
        f"{difference['value']:+.1f} points to `{results['baseline']}` "
        f"[{difference['low']:+.1f}, {difference['high']:+.1f}]"
    )
    cost = " **It costs accuracy:** the whole interval is below the baseline." if found.loses else ""
    return (
        f"At {limit} an answer, **use τ = {arm['tau']:g}** with `{arm['arm']}`: {_speed(at)}, the most of all "
        f"thresholds whose accuracy is within the interval of the most accurate one's; {accuracy}.{cost}"
    )


def _speed(at: Mapping[str, Any]) -> str:
    return f"{_number(at)} tokens a slot"


def _number(at: Mapping[str, Any]) -> str:
    """Return the tokens a slot, which not every engine reports."""
    found = at["tokens_per_slot"]
    return "an unknown number of" if found is None else f"{found:.2f}"


def _pair_against_pair(results: Results) -> Iterator[str]:
    """Yield what changed from each pair model to the next, such as from fine-tuning to distillation.

    Only thresholds that both models have are compared.
    """
    unit = next(iter(results["budget"]))
    arms: dict[str, dict[float, Mapping[str, Any]]] = {}
    for arm in results["arms"]:
        if arm["tau"] is not None:
            arms.setdefault(arm["arm"], {})[arm["tau"]] = arm["budgets"][unit]
    for (before, old), (after, new) in pairwise(arms.items()):
        changes = [
            f"at τ = {tau:g} avg@{results['samples']} {100 * old[tau]['avg']['value']:.1f} → "
            f"{100 * new[tau]['avg']['value']:.1f} % and {_number(old[tau])} → {_speed(new[tau])}"
            for tau in sorted(old.keys() & new.keys())
        ]
        if changes:
            yield f"From `{before}` to `{after}`: {'; '.join(changes)}."


def _against_verified(results: Results, chosen: set[str], benches: Sequence[Results]) -> Iterator[str]:
    """Yield who needs fewer steps and less time for an answer: verified drafts, or the recommended pair model."""
    unit = next(iter(results["budget"]))
    verified = [arm for arm in results["arms"] if METHODS[arm["method"]].verified]
    for arm in verified:
        for other in (other for other in results["arms"] if other["label"] in chosen):
            steps = {one["label"]: steps_of_an_answer(one["budgets"][unit]) for one in (arm, other)}
            if None in steps.values():
                continue
            told = ", ".join(f"`{label}` {count:.1f} steps" for label, count in steps.items())
            fewest = min(steps, key=lambda label: steps[label] or 0.0)
            yield (
                f"An answer takes {told}. **`{fewest}` needs the fewest.** The drafts of `{arm['label']}` are "
                "verified: its accuracy is that of decoding without drafts."
            )
            for bench in benches:
                yield from _seconds_line(
                    bench, {one["label"]: one["budgets"][unit]["mean_tokens"] for one in (arm, other)}
                )


def _seconds_line(bench: Results, tokens: Mapping[str, float]) -> Iterator[str]:
    """Yield the time of an answer of so many tokens after the shortest prompt of a benchmark."""
    seconds = answer_seconds(bench, tokens)
    if seconds and len(seconds) == len(tokens):
        shortest = bench["lengths"][0]
        told = ", ".join(f"`{label}` {1000 * found:.0f} ms" for label, found in seconds.items())
        quickest = min(seconds, key=lambda label: seconds[label])
        yield (
            f"After a prompt of {shortest['prompt_tokens']:,} tokens such an answer takes {told} "
            f"(batch {bench['batch']}, {bench['machine']['device']}): **`{quickest}` is quickest.**"
        )


def _speed_lines(results: Results, chosen: set[str]) -> Iterator[str]:
    """Yield the speed of verified drafts and of pairs: of the recommended ones, if they were measured."""
    measured = chosen & {arm["label"] for length in results["lengths"] for arm in length["arms"]}
    for length in results["lengths"]:
        for arm in length["arms"]:
            spec = METHODS[arm["method"]]
            shown = arm["label"] in measured if spec.reads_pairs and measured else spec.reads_pairs or spec.verified
            if arm["speedup"] is None or not shown:
                continue
            first, each = (arm["speedup"][time]["median"] for time in ("ttft_s", "tpot_s"))
            yield (
                f"After {length['prompt_tokens']:,} prompt tokens `{arm['label']}` gives the first token "
                f"{first:.2f}× as fast as `{results['baseline']}` and each further one {each:.2f}× as fast "
                f"(batch {results['batch']}, {results['machine']['device']})."
            )
