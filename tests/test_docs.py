"""The documents say what is so: generated pages are up to date, links lead somewhere, commands and messages exist."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_cli.reference.commands import commands, examples
from pipo_cli.reference.pages import PAGES as GENERATED
from pipo_cli.reference.pages import page
from pipo_core import errors
from pipo_core.recipes.kinds import KINDS
from pipo_core.recipes.locate import shipped_recipes
from pipo_core.recipes.schema import dotted_keys
from tests.documents import (
    PAGES,
    ROOT,
    blocks,
    broken_lines,
    broken_links,
    command_lines,
    command_problems,
    header_command_lines,
    unknown_messages,
    unknown_options,
    unknown_settings,
)

TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_up_to_date(name: str) -> None:
    if TEXTS[f"docs/{name}"] != page(name):
        pytest.fail(f"docs/{name} is out of date: make docs (or python -m pipo_cli.reference)", pytrace=False)


def test_the_reference_of_commands_has_all_that_users_see() -> None:
    text = TEXTS["docs/cli.md"]
    for path, command in commands():
        section = text.partition(f"\n## {path}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
            assert (f"| `{name}" in section) is not parameter.hidden, (path, name)


def test_the_reference_of_recipes_has_every_key() -> None:
    text = TEXTS["docs/recipes.md"]
    for kind, model in KINDS.items():
        assert f"\n## kind: {kind}\n" in text
        for key in dotted_keys(model):
            assert f"\n| `{key.rpartition('.')[2]}` |" in text, (kind, key)
    headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    assert len(set(headings)) == len(headings)


@pytest.mark.parametrize("name", TEXTS)
def test_tables_and_lists_are_whole(name: str) -> None:
    assert broken_lines(TEXTS[name]) == []


def test_the_check_of_tables_and_lists_sees_what_is_wrong() -> None:
    table = "| a | b |\n| --- | --- |\n"
    assert broken_lines(f"{table}| `x|y` | 1 |\n") == []
    for broken in (f"{table}| a | one\ntwo | | b | c |\n", f"{table}| a |\n", "- **One:** this. - **Two:** that.\n"):
        assert broken_lines(broken) != [], broken


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    assert broken_links(ROOT / name, TEXTS[name]) == []


@pytest.mark.parametrize("name", TEXTS)
def test_commands_can_be_given(name: str) -> None:
    assert [problem for line in command_lines(TEXTS[name]) for problem in command_problems(line)] == []


@pytest.mark.parametrize("name", shipped_recipes())
def test_commands_at_the_top_of_recipes_can_be_given(name: str) -> None:
    lines = list(header_command_lines(shipped_recipes()[name].read_text(encoding="utf-8")))
    assert lines
    assert [problem for line in lines for problem in command_problems(line)] == []


@pytest.mark.parametrize("name", TEXTS)
def test_options_named_in_the_text_exist(name: str) -> None:
    assert unknown_options(TEXTS[name]) == []


@pytest.mark.parametrize("name", TEXTS)
def test_settings_are_keys_of_recipes(name: str) -> None:
    assert unknown_settings(TEXTS[name]) == []


def test_quoted_messages_are_in_the_code() -> None:
    quoted = [line for block in blocks(TEXTS["docs/troubleshooting.md"], "text") for line in block.splitlines()]
    assert len(quoted) > 30
    assert unknown_messages(quoted) == []


def test_exit_codes_are_those_of_the_errors() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXTS["docs/cli.md"], re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PipoError)]
    assert listed == {0, *(kind.exit_code for kind in kinds)}


def test_the_example_of_an_invalid_recipe_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = blocks(TEXTS["docs/recipes.md"], "yaml")[0]
    printed = next(block for block in blocks(TEXTS["docs/recipes.md"]) if block.startswith("pipo: "))
    monkeypatch.chdir(tmp_path)
    Path("my-sft.yaml").write_text(recipe)
    result = CliRunner().invoke(app, ["recipes", "validate", "my-sft.yaml"])
    assert (result.exit_code, result.stderr) == (2, printed)


# ------------------------------------------------------------------ the checks themselves


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("pipo trian recipes/sft.yaml", "no command 'trian'"),
        ("pipo train recipes/sft.yaml --steps 3", "--steps"),
        ("pipo train recipes/gone.yaml", "no such recipe"),
        ("pipo train sft sede=3", "unknown key"),
        ("pipo run demo merg.seed=3", "no stage 'merg'"),
        ("pipo eval --ckpt x --tau 2", "--tau"),
        ("pipo bench promt_tokens=[4]", "unknown key"),
        ("pipo download qwen3.5-5b", "neither in the catalog"),
        ("pipo recipes schema trian", "no recipe kind"),
        ("pipo recipes ls|sow", "no command 'sow'"),
        ("pipo merge", ""),
    ],
)
def test_the_check_of_commands_sees_what_is_wrong(line: str, about: str) -> None:
    found = command_problems(line)
    assert any(about in problem for problem in found) == bool(about), found


def test_the_checks_see_what_is_wrong() -> None:
    text = "# A b\n[x](#a-b) [y](#a-c) [z](gone.md) [w](docs/cli.md#gone) [v](https://example.org) `[n](o)`\n"
    assert broken_links(ROOT / "README.md", text) == ["#a-c", "gone.md", "docs/cli.md#gone"]
    settings = "`batch.per_device=1`, `loss.chunks`, `seed=1`, `sede=1`, `~epochs`, `log.txt`, `train.max_steps=1`"
    assert unknown_settings(settings) == ["loss.chunks", "sede=1", "train.max_steps=1"]
    assert unknown_options("`--tau 0.5` and `--taus`") == ["--taus"]
    lines = ["pipo: launch.processes: 8 need a GPU each, and there are 2", "  try: give precision=fp16"]
    assert unknown_messages(lines) == ["give precision=fp16"]
    assert list(command_lines("```\n$ OMP_NUM_THREADS=1 pipo train a  # why\n```\nor `pipo run b`")) == [
        "pipo train a  # why",
        "pipo run b",
    ]


def test_examples_of_epilogs_are_taken_apart() -> None:
    found = examples("Examples: pipo run demo; pipo run demo train.max_steps=50 (changes a stage).")
    assert found == [("pipo run demo", ""), ("pipo run demo train.max_steps=50", "changes a stage")]
