"""Whatever is done to a shipped recipe: it is valid, or every problem is told on a line with its place."""

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipo_core.errors import MissingInputError, RecipeError
from pipo_core.recipes.base import MAX_NAME
from pipo_core.recipes.check import MOST_PROBLEMS
from pipo_core.recipes.load import load_recipe, parse_recipe
from pipo_core.recipes.locate import shipped_recipes
from tools.fuzz import areas
from tools.fuzz.mutations import HUGE

TRAIN = "kind: train\nmodel: tiny-student\ndata: {train: some/rows.jsonl}\nmax_steps: 10\n"
DRAWN = st.randoms(use_true_random=False)


def few(count: int) -> settings:
    return settings(derandomize=True, max_examples=count, database=None)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yaml", overrides)
    return caught.value.problems


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@few(200)
@given(DRAWN)
def test_any_mutation_of_a_shipped_recipe(rng: Random) -> None:
    areas.recipe(rng)


@few(120)
@given(DRAWN)
def test_any_override_of_a_shipped_recipe(rng: Random) -> None:
    areas.override(rng)


@few(60)
@given(DRAWN)
def test_any_bytes_through_the_command_line(folder: Path, rng: Random) -> None:
    areas.recipe_file(rng, folder)


def test_a_recipe_cut_off_anywhere() -> None:
    path = shipped_recipes()["tiny/build.yaml"]
    text = path.read_text()
    for length in range(len(text)):
        areas.parsed(text[:length], str(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("%YAML " + "1" * 5000 + "\n---\na: 1", "not valid YAML: a number is out of range"),
        ('a: "\\U99999999"', "not valid YAML"),
        (TRAIN + "seed: 99999999999999999999", "r.yaml:5:7 99999999999999999999 does not fit into 64 bits"),
        (TRAIN + "? |\n  two\n  lines\n: 1\n", r"two\nlines\n: unknown key"),
        (TRAIN + '"\\e[31m": 1\n', r"\x1b[31m: unknown key"),
        (TRAIN + '"\\ud800": 1\n', "r.yaml:5:1 half of a surrogate pair"),
        (TRAIN + "<<: {seed: 1}\n", "<<: unknown key"),
        (TRAIN + "!!python/name:os.system seed: 1\n", "r.yaml:5:1 the tag tag:yaml.org,2002:python/name:os.system"),
        (TRAIN + "run: !!python/name:os.system x\n", "the tag tag:yaml.org,2002:python/name:os.system is not allowed"),
    ],
)
def test_odd_yaml_is_one_printable_line(text: str, problem: str) -> None:
    found = problems(text)
    assert all(line.isprintable() for line in found)
    assert problem in found[0]


def test_what_would_take_for_ever_does_not() -> None:
    many = problems(TRAIN + "".join(f"key{number}: 1\n" for number in range(5000)))
    assert len(many) == MOST_PROBLEMS + 1
    assert many[-1].startswith("r.yaml:1:1 more problems")
    long = f"x: &long {'q' * 300_000}\ntuning: {{targets: [{','.join(['*long'] * 500)}]}}\n"
    assert len("".join(problems(TRAIN + long))) < 100_000
    assert "keys deep" in problems(TRAIN, "a." * 30_000 + "a=1")[0]
    phases = f"pad_augmentation: [{','.join(['{kind: split, rho_max: 9}'] * 3000)}]\n"
    assert "rho_max" in problems(TRAIN + phases)[0]
    item = "pad_augmentation: [{kind: split, rho_max: 0.1}]\n"
    assert "not the number of an item" in problems(TRAIN + item, f"pad_augmentation.{'9' * 5000}=1")[0]


@pytest.mark.parametrize(
    "name",
    [
        *("../../x", "/etc/x", ".", "..", "a/b", "", " ", "a b", "~", "é", "a\0b", "a\n", "\n", "-x", ".hidden", "C:x"),
        *("x" * (MAX_NAME + 1), "%s\\x", "$(id)", "\u202e", "\ud800"),
    ],
)
def test_names_that_become_folders_stay_inside(name: str) -> None:
    quoted = '"' + "".join(f"\\U{ord(character):08X}" for character in name) + '"'
    for text, key in (
        (TRAIN + f"run: {quoted}\n", "run"),
        (f"kind: pipeline\nstages: [{{name: {quoted}, recipe: tiny/sft.yaml}}]\n", "stages.0.name"),
        (f"kind: bench\narms: [{{name: {quoted}, method: pipo, ckpt: x/y}}]\n", "arms.0.name"),
    ):
        assert any(f" {key}: " in line or "half of a surrogate pair" in line for line in problems(text))


def test_a_long_file_name_makes_a_run_name_that_fits(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 240}.yaml"
    path.write_text(TRAIN)
    assert load_recipe(path).run == "x" * MAX_NAME


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path, tmp_path / ("x" * 5000), Path("a\0b"), Path("\ud800")):
        with pytest.raises(MissingInputError):
            load_recipe(path)
        stage = f'kind: pipeline\nstages: [{{name: a, recipe: "{str(path).encode("unicode_escape").decode()}"}}]\n'
        assert any("stages.0.recipe: " in line or "half of a surrogate pair" in line for line in problems(stage))
    (tmp_path / "long.yaml").write_bytes(b"a" * (5 * 10**6))
    with pytest.raises(RecipeError, match="too long for a recipe"):
        load_recipe(tmp_path / "long.yaml")


@pytest.mark.parametrize("reference", ["x" * 5000, "\0", "\ud800", f"x{HUGE}"])
def test_references_that_cannot_be_a_path_are_no_crash(reference: str) -> None:
    quoted = '"' + "".join(f"\\U{ord(character):08X}" for character in reference) + '"'
    assert problems(TRAIN.replace("tiny-student", quoted))[0].startswith("r.yaml:2:8 ")
