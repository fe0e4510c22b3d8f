"""Rollouts in shards: the training set is the same however many there are, and a missing one is named."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.build import run_build
from pipo_core.data.provenance import ABOUT, catalog_entry, name_of, read_about
from pipo_core.data.rollouts import run_rollout
from pipo_core.errors import MissingInputError
from pipo_core.files import read_jsonl, read_record, write_record
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.rollout import RolloutRecipe
from tests.data.fake_engine import FakeEngine

COUNT, SAMPLES = 40, 3


def even(text: str, answer: object) -> bool:
    return int(text[-1]) % 2 == 0


@pytest.fixture
def roll(tmp_path: Path) -> Callable[..., Path]:
    def run(name: str, index: int = 0, count: int = 1, **settings: Any) -> Path:
        out = tmp_path / name
        out.mkdir()
        asked = {"model": "m", "problems": {"count": COUNT}, "samples": SAMPLES, "budget": {"tokens": 50}}
        recipe = RolloutRecipe.model_validate({**asked, "shard": {"index": index, "count": count}, **settings})
        run_rollout(recipe, out, judge=even, open_engine=FakeEngine().open)
        return out / "rollouts.jsonl"

    return run


def build(out: Path, rollouts: list[Path], **settings: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return run_build(BuildRecipe(rollouts=[str(path) for path in rollouts], **settings), out)


@pytest.mark.parametrize("settings", [{}, {"pick": "shortest"}, {"rows": "questions", "minimum_solved": 0.3}])
def test_the_training_set_does_not_depend_on_the_number_of_shards(
    tmp_path: Path, roll: Callable[..., Path], settings: dict[str, Any]
) -> None:
    whole = [roll("whole")]
    parts = [roll(f"part{index}", index, 3) for index in range(3)]
    assert all(len(read_jsonl(path)) < len(read_jsonl(whole[0])) for path in parts)
    one = build(tmp_path / "one", whole, validation_share=0.2, **settings)
    three = build(tmp_path / "three", parts[::-1], validation_share=0.2, **settings)
    assert one == three
    for name in ("train.jsonl", "validation.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
        assert (tmp_path / "one" / name).stat().st_size > 0


def test_a_missing_shard_is_named_with_the_command_that_makes_it(tmp_path: Path, roll: Callable[..., Path]) -> None:
    parts = [roll(f"part{index}", index, 4) for index in range(4)]
    with pytest.raises(MissingInputError, match="shard 2 of 4 is missing") as caught:
        build(tmp_path / "out", [*parts[:2], parts[3]])
    assert caught.value.hint is not None
    assert "shard.index=2 shard.count=4" in caught.value.hint
    with pytest.raises(MissingInputError, match="shards 0, 1, 3 of 4 are missing"):
        build(tmp_path / "out", [parts[2]])
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (ABOUT, "rollouts.jsonl"):
        (copy / name).write_bytes((parts[1].parent / name).read_bytes())
    with pytest.raises(MissingInputError, match=r"shard 1 of 4 is there twice: .*part1.* and .*copy"):
        build(tmp_path / "out", [*parts, copy / "rollouts.jsonl"])


def test_shards_of_different_divisions_do_not_go_together(tmp_path: Path, roll: Callable[..., Path]) -> None:
    parts = [roll("a", 0, 2), roll("b", 1, 3)]
    with pytest.raises(MissingInputError, match=r"divided differently: .*a.* is shard 0 of 2, .*b.* is shard 1 of 3"):
        build(tmp_path / "out", parts)


def test_other_questions_are_another_set(tmp_path: Path, roll: Callable[..., Path]) -> None:
    """Two rollouts go together if their problems differ; each must have all of its shards."""
    tiny = [roll(f"t{index}", index, 2) for index in range(2)]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"question": f"What is {n}?", "answer": n}) + "\n" for n in range(30)))
    own = roll("own", problems={"source": str(file)})
    summary = build(tmp_path / "out", [*tiny, own])
    assert summary["questions"] == COUNT + 30
    with pytest.raises(MissingInputError, match=r"shard 0 of 2 is missing beside .*t1"):
        build(tmp_path / "out", [tiny[1], own])
    again = roll("again", problems={"source": str(file)}, seed=1)
    with pytest.raises(MissingInputError, match=r"own.* and .*again.* both hold answer p-30#2") as caught:
        build(tmp_path / "out", [own, again])
    assert caught.value.hint is not None


def test_an_empty_shard_is_a_shard(tmp_path: Path, roll: Callable[..., Path]) -> None:
    parts = [roll(f"part{index}", index, 12, problems={"count": 3}, seed=2) for index in range(12)]
    assert min(path.stat().st_size for path in parts) == 0
    assert build(tmp_path / "out", parts)["questions"] == 3


def test_an_unfinished_rollout_and_a_changed_record_are_refused(tmp_path: Path, roll: Callable[..., Path]) -> None:
    path = roll("one")
    about = read_record(path.parent / ABOUT)
    write_record(path.parent / ABOUT, {**about, "finished": None})
    with pytest.raises(MissingInputError, match="the rollout is not finished"):
        build(tmp_path / "out", [path])
    (path.parent / ABOUT).write_text((path.parent / ABOUT).read_text().replace('"count": 1', '"count": 2'))
    with pytest.raises(MissingInputError, match="was changed since it was written"):
        build(tmp_path / "out", [path])
    (path.parent / ABOUT).unlink()  # of an older version, or a file by itself
    build(tmp_path / "out", [path])
    assert "unknown (the rollout left no record)" in (tmp_path / "out" / "card.md").read_text()


def test_a_run_that_goes_on_keeps_its_beginning_and_makes_a_damaged_record_again(
    tmp_path: Path, roll: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RolloutRecipe.model_validate({"model": "m", "problems": {"count": 2}, "budget": {"tokens": 5}})
    times = iter(f"2026-01-0{day}" for day in range(1, 9))
    monkeypatch.setattr("pipo_core.data.provenance.now", lambda: next(times))
    with pytest.raises(KeyboardInterrupt):
        run_rollout(recipe, tmp_path, judge=even, open_engine=FakeEngine(2, KeyboardInterrupt()).open)
    about = read_about(tmp_path)
    assert about is not None
    assert (about["begun"], about["finished"], about["asked"]) == ("2026-01-01", None, 2)
    run_rollout(recipe, tmp_path, judge=even, open_engine=FakeEngine().open)
    about = read_about(tmp_path)
    assert about is not None
    assert (about["begun"], about["finished"]) == ("2026-01-01", "2026-01-03")
    (tmp_path / ABOUT).write_text("{")
    run_rollout(recipe, tmp_path, judge=even, open_engine=FakeEngine().open)
    assert read_record(tmp_path / ABOUT)["finished"] == "2026-01-05"


def test_the_card_says_what_is_in_the_set_and_where_it_came_from(tmp_path: Path, roll: Callable[..., Path]) -> None:
    parts = [roll(f"part{index}", index, 2) for index in range(2)]
    summary = build(tmp_path / "out", parts, validation_share=0.2, max_tokens=3, hash_range=[0.0, 0.9])
    card = (tmp_path / "out" / "card.md").read_text()
    for part in ("train", "validation"):
        rows = read_jsonl(tmp_path / "out" / f"{part}.jsonl")
        assert f"| rows of {part}.jsonl | {len(rows):,} |" in card
        asked = {row["messages"][0]["content"] for row in rows}
        assert f"| questions of {part}.jsonl | {len(asked):,} |" in card
    assert f"| answers read | {COUNT * SAMPLES} |" in card
    for reason, count in summary["dropped"].items():
        assert f"| {reason} | {count} |" in card
    assert "| mean | p5 | p25 | p50 | p75 | p95 | p99 | max |" in card
    assert "| 3.0 | 3 | 3 | 3 | 3 | 3 | 3 | 3 |" in card
    for index in range(2):
        assert f"shard {index} of 2; begun 20" in card
    assert "temperature 1, top p 0.95, top k 20" in card
    assert "| tiny | problems | generated by pipo: no rights of others |" in card
    assert "| m | model that answered | unknown | unknown |" in card
    assert "from 0 on and below 0.9" in card
    assert "below 0.2" in card
    recipe = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)
    assert recipe is not None
    assert "max_tokens: 3\n" in recipe[1]


def test_names_that_mean_something_elsewhere() -> None:
    cache = Path("/x/.cache/huggingface/hub")
    dapo = cache / "datasets--open-r1--DAPO-Math-17k-Processed" / "snapshots" / ("ab12" * 10) / "all"
    assert name_of(dapo) == "open-r1/DAPO-Math-17k-Processed, all at commit ab12ab12ab12"
    model = cache / "models--Qwen--Qwen3.5-9B" / "snapshots" / ("cd" * 20)
    assert name_of(model) == "Qwen/Qwen3.5-9B at commit cdcdcdcdcdcd"
    assert name_of(Path("/x/pipo_core/bundled/tiny-teacher")) == "tiny-teacher (bundled)"
    assert name_of(Path("/x/y/outputs/a/rollout/rollouts.jsonl")) == "outputs/a/rollout/rollouts.jsonl"
    assert name_of(Path("/x/problems/mine.jsonl")) == "problems/mine.jsonl"
    assert name_of(Path("/mine.jsonl")) == "mine.jsonl"
    for name, short in ((name_of(dapo), "dapo-math"), (name_of(model), "qwen3.5-9b")):
        found = catalog_entry(name)
        assert found is not None
        assert found[0] == short
        assert found[1].licence
    assert catalog_entry(
        name_of(cache / "datasets--AlbertTan--PIPO" / "snapshots" / "e" / "data" / "rl_0.5.jsonl")
    ) == (
        "pipo-opd-data",
        catalog_entry("AlbertTan/PIPO, data/rl_0.5.jsonl at commit e")[1],  # type: ignore[index]
    )
    assert catalog_entry("outputs/a/rollout/rollouts.jsonl") is None
