"""A folder of tokenized examples is named after all that the tokens depend on."""

import shutil
from pathlib import Path

import pytest

from pipo_core.train.token_cache import cache_folder, examples_folder
from tests.train.data_rows import GOOD, write


def test_a_folder_is_named_after_all_that_its_tokens_depend_on(tmp_path: Path) -> None:
    """The same content elsewhere is the same folder; any other content, tokenizer or limit is another one."""
    model = tmp_path / "model"
    model.mkdir()
    for part in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        (model / part).write_text("{}")
    file = write(tmp_path / "train.jsonl", GOOD)

    def name(rows: Path = file, folder: Path = model, max_length: int = 9, limit: int | None = None) -> str:
        return examples_folder(tmp_path, rows, folder, max_length=max_length, limit=limit).name

    first = name()
    moved = shutil.copytree(model, tmp_path / "moved")
    assert name(write(tmp_path / "copy.jsonl", GOOD), moved) == first
    (moved / "config.json").write_text('{"hidden_size": 9}')
    assert name(folder=moved) == first, "a model of another size with the same tokenizer"
    others = [name(max_length=8), name(limit=1), name(write(tmp_path / "two.jsonl", GOOD, GOOD))]
    for changed in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (moved / changed).write_text("[]")
        others.append(name(folder=moved))
    assert len({first, *others}) == 7


def test_the_cache_is_beside_the_runs_or_where_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cache_folder(None, Path("outputs/run/train")) == tmp_path / "outputs" / ".cache" / "rows"
    assert cache_folder("mine", Path("outputs/run/train")) == tmp_path / "mine"
