import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from pipo_cli.reporter import pace_text
from pipo_core.errors import RecipeError
from pipo_core.hub.checksums import matches
from pipo_core.hub.sizes import size_text
from pipo_core.recipes.catalog import CATALOG, Kind, find_name
from pipo_core.recipes.load import parse_recipe
from pipo_core.reporting import Progress

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "feature/x-y_z", COMMIT])
@pytest.mark.parametrize("name", ["qwen3.5-4b", "Qwen/Qwen3.5-4B"])
def test_names_take_a_revision(name: str, revision: str) -> None:
    named = find_name(f"{name}@{revision}", "model")
    assert named is not None
    assert (named.entry.repo, named.revision) == ("Qwen/Qwen3.5-4B", revision)
    assert named.download_command == f"pipo download {name}@{revision}"


def test_the_command_says_what_a_hub_id_names() -> None:
    tails: dict[Kind, str] = {"model": "a/b", "data": "a/b --kind data", "benchmark": "--suite a/b"}
    for kind, tail in tails.items():
        named = find_name("a/b", kind)
        assert named is not None
        assert named.download_command == f"pipo download {tail}"
    # A catalog name knows its kind, whatever is asked for.
    named = find_name("pipo-sft-data", "model")
    assert named is not None
    assert (named.entry.kind, named.download_command) == ("data", "pipo download pipo-sft-data")


@given(st.text("aB0_-./@ \n", max_size=12), st.text("a0_-./@", max_size=6))
def test_what_is_taken_for_a_hub_id_is_one_to_the_hub_and_stays_in_its_folder(name: str, revision: str) -> None:
    named = find_name(f"{name}@{revision}", "model")
    if named is not None:
        validate_repo_id(named.entry.repo)
        assert named.entry.repo.count("/") == 1
        place = Path("/refs") / (named.revision or "")
        assert Path(os.path.normpath(place)).parts == ("/", "refs", *(named.revision or "").split("/"))


def problems(**values: str) -> list[str]:
    text = f"kind: train\nmodel: {values['model']}\ndata: {{train: {values['train']}}}\nepochs: 1\n"
    try:
        parse_recipe(text, "x.yaml", (), stages=())
    except RecipeError as error:
        return error.problems
    return []


def test_recipes_name_revisions_too() -> None:
    assert problems(model="qwen3.5-4b@main", train="pipo-sft-data@v2") == []
    assert problems(model=f"Qwen/Qwen3.5-4B@{COMMIT}", train="a/b@refs/pr/1") == []
    found = problems(model="qwen35-4b@main", train="pipo-sft-data@../x")
    assert "did you mean 'qwen3.5-4b'?" in found[0]
    assert "'../x' is not a revision of 'pipo-sft-data'" in found[1]
    assert "bundled and has no revisions" in problems(model="tiny-student@main", train="pipo-sft-data")[0]
    assert "is a data set in the catalog; a model is needed" in problems(model="pipo-sft-data", train="x/y")[0]


def test_every_entry_names_one_place() -> None:
    for name, entry in CATALOG.items():
        assert bool(entry.repo) != entry.bundled
        named = find_name(name, "model")
        assert named is not None
        assert (named.entry, named.revision) == (entry, entry.revision)


# Git's names of these contents, as `git hash-object` prints them.
@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
        (b"abc", hashlib.sha256(b"abc").hexdigest()),
        (b"x" * 3_000_000, hashlib.sha256(b"x" * 3_000_000).hexdigest()),
    ],
)
def test_checksums_are_gits_or_sha256(tmp_path: Path, content: bytes, digest: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    read: list[int] = []
    assert matches(file, digest, read.append)
    assert sum(read) == len(content)
    file.write_bytes(content[:-1] + b"?")
    assert not matches(file, digest)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (14_800, "14.8 kB"),
        (999_400, "999 kB"),
        (5_450_000, "5.45 MB"),
        (9_320_000_000, "9.32 GB"),
        (2.5e12, "2.50 TB"),
    ],
)
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert size_text(count) == text


def test_progress_counts_bytes_as_people_do() -> None:
    now = 0.0
    said: list[str] = []
    progress = Progress("", 9_000_000_000, "byte", lambda event: said.append(pace_text(event)), clock=lambda: now)
    progress.update(1_000_000_000)
    now = 10.0
    progress.update(2_000_000_000)
    with Progress("", None, "byte", lambda event: said.append(pace_text(event))):
        pass
    assert said == ["1.00 GB of 9.00 GB", "2.00 GB of 9.00 GB  100 MB/s  1m10s left", "0 bytes", "0 bytes"]
