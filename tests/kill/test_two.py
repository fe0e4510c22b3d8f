"""Two pipo processes on one output folder: the second says so and touches nothing."""

import time
from pathlib import Path

import pytest

from pipo_core.files import FolderLock, lock_of
from tools.kill.world import World, pipo, start


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("kill"))


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["train", "merge", "eval", "rollout", "run"])
def test_a_folder_that_another_process_holds_is_left_alone(world: World, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "r" if name == "run" else tmp_path / "r" / name
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text('{"state": "running"}')
    with FolderLock(folder if name == "run" else lock_of(folder)):
        before = times(tmp_path)
        done = pipo(world.words(name, tmp_path))
        assert times(tmp_path) == before
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"pipo: another pipo process works in {folder}",
        "  try: wait for it to end, or work in another folder (run=NAME)",
    ]


def test_of_two_real_processes_the_second_stops(world: World, tmp_path: Path) -> None:
    first = start(world.words("rollout", tmp_path))
    deadline = time.monotonic() + 60
    while not (tmp_path / "r" / "rollout" / "events.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = pipo(world.words("rollout", tmp_path))
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert (second.code, "another pipo process works in" in second.err) == (2, True)
