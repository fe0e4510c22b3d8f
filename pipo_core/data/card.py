"""The data card beside a training set: what is in it, what was left out, where it came from, how it is made again."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipo_core import __version__
from pipo_core.data.overlap import MIN_CONTAINED, BenchmarkOverlap
from pipo_core.data.provenance import catalog_entry, name_of, now
from pipo_core.files import write_atomic
from pipo_core.recipes.base import dump
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.problems import GENERATED
from pipo_core.recipes.write import to_yaml

CARD = "card.md"

_PERCENTILES = (5, 25, 50, 75, 95, 99)
_SHOWN_IDS = 10
_UNKNOWN = "unknown"


def length_figures(tokens: Sequence[int]) -> dict[str, Any]:
    """Return mean and percentiles (nearest rank) of answers' lengths in tokens.

    Args:
        tokens: of each answer; not empty.
    """
    ordered = sorted(tokens)
    ranks = {percent: -(-percent * len(ordered) // 100) for percent in _PERCENTILES}
    percentiles = {f"p{percent}": ordered[max(rank, 1) - 1] for percent, rank in ranks.items()}
    return {"mean_tokens": sum(ordered) / len(ordered), "tokens": {**percentiles, "max": ordered[-1]}}


def overlap_figures(overlaps: Sequence[BenchmarkOverlap] | None) -> dict[str, dict[str, Any]] | None:
    """Return the overlap with each benchmark by its name, for JSON; None if there was none to compare with."""
    if overlaps is None:
        return None
    return {
        found.name: {"compared": found.compared, "exact": sorted(found.exact), "contained": sorted(found.contained)}
        for found in overlaps
    }


def write_card(
    path: Path, recipe: BuildRecipe, summary: Mapping[str, Any], *, sources: Sequence[Mapping[str, Any]]
) -> None:
    """Write the card of a training set.

    Args:
        path: the file.
        recipe: the settings, with paths on this disk in place of names.
        summary: of the build.
        sources: what is known of each file of rollouts (`sources.source_facts`); empty for worked solutions.

    Raises:
        MachineError: if the disk is full.
    """
    parts = [
        ["# Data card\n", f"Made {now()} by pipo {__version__}: `pipo build`, rows of {recipe.rows}."],
        ["## Counts\n", *_counts(summary)],
        ["## Left out\n", *_left_out(summary)],
        *([["## Length of the answers, in tokens\n", *_lengths(summary)]] if "tokens" in summary else []),
        ["## Where it came from\n", *_provenance(recipe, sources)],
        ["## Licence and citation\n", *_licences(recipe, sources)],
        ["## Overlap with benchmarks\n", *_overlap(recipe, summary)],
        ["## Split\n", *_rule(recipe)],
        ["## How to make it again\n", *_again(recipe, sources)],
    ]
    write_atomic(path, "\n\n".join("\n".join(part) for part in parts) + "\n")


def _counts(summary: Mapping[str, Any]) -> Iterator[str]:
    labels = {
        "questions": "questions asked",
        "answers": "answers read",
        "train_rows": "rows of train.jsonl",
        "train_questions": "questions of train.jsonl",
        "validation_rows": "rows of validation.jsonl",
        "validation_questions": "questions of validation.jsonl",
    }
    yield from _table(
        ["what", "count"], [[label, f"{summary[key]:,}"] for key, label in labels.items() if key in summary]
    )


def _left_out(summary: Mapping[str, Any]) -> Iterator[str]:
    dropped = summary["dropped"]
    if not dropped:
        yield "Nothing."
        return
    yield from _table(["reason", "count"], [[reason, f"{count:,}"] for reason, count in sorted(dropped.items())])


def _lengths(summary: Mapping[str, Any]) -> Iterator[str]:
    names = ["mean", *summary["tokens"]]
    yield from _table(
        names, [[f"{summary['mean_tokens']:,.1f}", *(f"{value:,}" for value in summary["tokens"].values())]]
    )


def _provenance(recipe: BuildRecipe, sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if recipe.worked is not None:
        yield f"Worked solutions of {_source_name(recipe.worked.source)}."
        return
    for number, source in enumerate(sources, start=1):
        if number > 1:
            yield ""
        yield f"{number}. `{source['file']}`, {source['answers']:,} answers, fingerprint `{source['fingerprint']}`"
        if source["model"] is None:
            yield "   - made by: unknown (the rollout left no record)"
            continue
        problems, shard = source["problems"], source["shard"]
        of_file = f", fingerprint `{source['source_print']}`" if source["source_print"] else ""
        yield f"   - problems: {problems['source']}{of_file}"
        yield f"   - model: {source['model']}, method {source['method']}, engine {source['engine']}"
        yield f"   - {source['samples']} answers a problem: {_pairs(source['sampling'])}, seed {source['seed']}"
        yield f"   - budget: {_pairs(source['budget'])}; graded: {source['grader']}"
        yield f"   - shard {shard['index']} of {shard['count']}; begun {source['begun']}, finished {source['finished']}"


def _licences(recipe: BuildRecipe, sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    named: dict[str, str] = {}
    if recipe.worked is not None:
        named[_source_name(recipe.worked.source)] = "problems and solutions"
    for source in sources:
        if source["model"] is None:
            named.setdefault(source["file"], "answers")
        else:
            named.setdefault(source["problems"]["source"], "problems")
            named.setdefault(source["model"], "model that answered")
    rows = []
    for name, what in named.items():
        if name in GENERATED:
            rows.append([name, what, "generated by pipo: no rights of others", ""])
            continue
        found = catalog_entry(name)
        licence, citation = (found[1].licence, found[1].citation) if found is not None else ("", "")
        rows.append([name, what, licence or _UNKNOWN, citation or _UNKNOWN])
    yield from _table(["from", "what", "licence", "to cite"], rows)


def _overlap(recipe: BuildRecipe, summary: Mapping[str, Any]) -> Iterator[str]:
    overlaps = summary["overlap"]
    if not overlaps:
        yield "Not compared with any benchmark: none was at hand."
        return
    rows = [
        [name, f"{found['compared']:,}", f"{len(found['exact']):,}", f"{len(found['contained']):,}", _some(found)]
        for name, found in sorted(overlaps.items())
        if found["compared"]
    ]
    absent = sorted(name for name, found in overlaps.items() if not found["compared"])
    if absent:
        command = " ".join(f"--suite {name}" for name in absent)
        yield f"Not compared, as their questions are not on this disk: {', '.join(absent)} (`pipo download {command}`)."
        yield ""
    yield from _table(["benchmark", "its questions", "the same", "contained", "training questions"], rows)
    yield ""
    yield (
        "Compared as text in Unicode's form NFKC, in lower case, with single blanks: a training question is the same "
        f"as one of the benchmark, or contains one of at least {MIN_CONTAINED} characters. Paraphrases are not found. "
        + ("These questions were left out." if recipe.drop_overlap else "These questions were kept.")
    )


def _some(found: Mapping[str, Any]) -> str:
    ids = [*found["exact"], *found["contained"]]
    return ", ".join(ids[:_SHOWN_IDS]) + (f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else "")


def _rule(recipe: BuildRecipe) -> Iterator[str]:
    low, high = recipe.hash_range
    yield (
        "A question's place in [0, 1) is the first 53 bits of the SHA-256 of a word for the use, a line feed, and its "
        "text (NFKC, lower case, single blanks). It does not depend on other questions, so every build has the same."
    )
    yield ""
    yield f"- used: questions whose place (`split`) is from {low:g} on and below {high:g}"
    yield (
        f"- held out for validation: those whose place (`validation`) is below {recipe.validation_share:g}"
        if recipe.validation_share
        else "- held out for validation: none"
    )


def _again(recipe: BuildRecipe, sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if sources:
        yield "The recipes of the rollouts are in their folders (`recipe.yaml`); then, with the recipe below:"
        yield ""
    yield "```sh"
    yield from (["pipo rollout recipe.yaml       # in the folder of each rollout"] if sources else [])
    yield "pipo build recipe.yaml         # the recipe below"
    yield "```"
    yield ""
    settings = dump(recipe)
    settings["rollouts"] = [source["file"] for source in sources]
    if recipe.worked is not None:
        settings["worked"]["source"] = _source_name(recipe.worked.source)
    yield "```yaml"
    yield to_yaml(settings).rstrip()
    yield "```"


def _source_name(source: str) -> str:
    return source if source in GENERATED else name_of(Path(source))


def _pairs(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in settings.items() if value is not None)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
