"""Every file of a finished and of an interrupted run as a place to be damaged at.

`python -m tools.damage.sweep [--every N] [--first N] [--only NAME] [--out FILE]`: each file has a bit flipped, is cut
in half, or is deleted, one at a time, and the same command is given again. It must either make the file good, so that
the run's files are what they were, or refuse, leaving the other files as they were. In both cases it must name the
file. Prints how often each of these happened, and writes every try as JSON.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipo_core.files import read_json
from tools.kill.world import Contents, Step, World, contents, fault, pipo, start

Act = Literal["flip", "cut", "delete"]
ACTS: tuple[Act, ...] = ("flip", "cut", "delete")


@dataclass(frozen=True)
class Try:
    """What became of one damaged file.

    Attributes:
        run: the run that it belongs to.
        file: its path.
        act: what was done to it.
        outcome: ``made good``: named, and all files are what they were; ``restored``: nothing was said, for nothing was
            lost: the file is what it was, or a copy of what lies elsewhere; ``as killed``: a kill may leave an
            unfinished run just so, and what was missing has been made without a word; ``refused``: the command names
            it and has changed no other file; ``named``: a plot, which nothing is made from, is named and stays as it
            is; ``not needed``: the finished run reads it no more, and whoever reads it next checks it (tokenized rows,
            and checkpoints, which are named all the same); ``SILENT``: none of these.
        said: the line that names it.
    """

    run: str
    file: str
    act: Act
    outcome: str
    said: str


def damage(file: Path, act: Act) -> None:
    """Flip the lowest bit of the middle byte of a file, cut it in half, or delete it."""
    if act == "delete":
        file.unlink()
        return
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if act == "flip" else content[:middle]
    )


def try_damage(world: World, run: str, whole: Path, expected: Contents, file: Path, act: Act, folder: Path) -> Try:
    """Damage ``file`` (relative) in a copy of the run ``whole`` and give the run's command again.

    Args:
        world: has the recipes.
        run: the recipe's name.
        whole: the folder of runs, finished or interrupted.
        expected: what an undisturbed run leaves.
        file: the file to damage, relative to ``whole``.
        act: what to do to it.
        folder: for the copy; it is removed again.
    """
    out = folder / "out"
    shutil.copytree(whole, out, symlinks=True)  # with the times of the files
    before = (out / file).read_bytes()
    damage(out / file, act)
    done = pipo(world.words(run, out))
    whole_again = (out / file).is_file() and (out / file).read_bytes() == before
    said = [line for line in [*done.err.splitlines(), *done.out.splitlines()] if _names(line, file)]
    unneeded = _is_unneeded(run, whole, file)
    if unneeded and (out / file).parent.is_dir():
        (out / file).write_bytes(before)  # it stays as it is, and is not compared
    found = {name: content for name, content in contents(out).items() if ".previous" not in name}
    if done.code == 0 and found == expected:
        outcome = "made good" if said else "restored" if whole_again or file.name[0] == "." else "SILENT"
        outcome = "as killed" if outcome == "SILENT" and _is_as_killed(whole, file, act) else outcome
        outcome = "not needed" if unneeded else outcome
    elif done.code == 0 and said and file.suffix == ".png" and _differing(found, expected) <= {file.as_posix()}:
        outcome = "named"
    elif done.code not in (0, 1) or (done.code == 1 and said):
        outcome = "refused" if said else "SILENT"
    else:
        outcome = "SILENT"
    if outcome == "SILENT":
        changed = sorted(_differing(found, expected))
        said = [f"exit {done.code}; differs: {changed}; {done.err[-300:]!r}"]
    shutil.rmtree(folder)
    return Try(run, file.as_posix(), act, outcome, said[0].strip() if said else "")


def _differing(found: Contents, expected: Contents) -> set[str]:
    return {name for name in {*found, *expected} if found.get(name) != expected.get(name)}


def _is_unneeded(run: str, whole: Path, file: Path) -> bool:
    """Return whether nothing reads a file any more: notes of the libraries, and what a later step has replaced."""
    if run == "run_train" and (file.parts[0] == ".cache" or "checkpoints" in file.parts):
        return True
    steps = sorted(int(path.name.rpartition("-")[2]) for path in whole.glob("*/*/checkpoints/checkpoint-*"))
    older = {f"checkpoint-{step}" for step in steps[:-1]}
    notes = ("README.md", "args.json", "logging.jsonl", "log.txt", "events.jsonl", "worker.log", "job.json")
    return (file.name in notes and run != "run_train") or bool(older & {*file.parts})


def _is_as_killed(whole: Path, file: Path, act: Act) -> bool:
    """Return whether a kill may leave an unfinished run so: a log of answers torn or not begun, or no time measured."""
    record = whole.joinpath(*file.parts[:2], "stage.json")
    if act == "flip" or (record.is_file() and read_json(record)["state"] == "done"):
        return False
    return "answers" in file.parts[2:] or (act == "delete" and file.name == "steps.json")


def _names(line: str, file: Path) -> bool:
    """Return whether a line names a file, or the checkpoint or model folder that it is part of."""
    return file.name in line or any(
        part in line for part in file.parts[:-1] if part.startswith("checkpoint-") or part in ("model", "adapter")
    )


def _interrupted(world: World, run: str, out: Path, seconds: float) -> None:
    """Leave a run that was stopped by Ctrl-C once its training has made a checkpoint."""
    process = start(world.words(run, out))
    deadline = time.monotonic() + seconds
    while not list(out.glob("*/*/checkpoints/checkpoint-*/complete.json")):
        assert time.monotonic() < deadline, "no checkpoint was made"
        assert process.poll() is None, "the run ended before it was stopped"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=seconds)
    assert process.returncode == 130, process.returncode


def _killed_behind(world: World, run: str, name: str, steps: list[Step], out: Path) -> None:
    """Leave a run that was killed right after it had written a file called ``name`` for the first time.

    Args:
        world: has the recipes.
        run: the recipe's name.
        name: of the file.
        steps: of the same run when nothing happens.
        out: the folder of runs.
    """
    at = next(number for role, number, act, path in steps if (role, act) == ("pipo", "rename") and path.endswith(name))
    done = pipo(world.words(run, out), fault(out, out.with_suffix(".log"), "pipo", at + 1))
    assert done.code == -signal.SIGKILL, done.err


def sweep(folder: Path, first: int, every: int, only: str = "") -> list[Try]:
    """Try each kind of damage at the files of a pipeline, a training and a calibration, finished or interrupted.

    Args:
        folder: for all files.
        first: the number of the first try.
        every: each how many-th try is made from there on.
        only: part of the paths of the files that are tried.
    """
    world = World(folder / "world")
    wholes: dict[tuple[str, str], tuple[Path, Contents]] = {}
    calibrated, halfway = folder / "calibrated", folder / "halfway"
    done = pipo(world.words("calibrate", calibrated), fault(calibrated, folder / "calibrated.log"))
    assert done.code == 0
    wholes["finished", "calibrate"] = (calibrated, contents(calibrated))
    _killed_behind(world, "calibrate", "steps.json", done.steps, halfway)
    wholes["interrupted", "calibrate"] = (halfway, contents(calibrated))
    finished = folder / "finished"
    assert pipo(world.words("run_train", finished)).code == 0
    wholes["finished", "run_train"] = (finished, contents(finished))
    stopped, ended = folder / "stopped", folder / "ended"
    _interrupted(world, "train", stopped, 120)
    shutil.copytree(stopped, ended, symlinks=True)
    assert pipo(world.words("train", ended)).code == 0
    wholes["interrupted", "train"] = (stopped, contents(ended))
    jobs = []
    for (_, run), (whole, expected) in wholes.items():
        files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
        jobs += [
            (run, whole, expected, file, act)
            for file in files
            if ".lock" not in {file.name, *file.parts} and ".locks" not in file.parts
            for act in ACTS
            if only in file.as_posix()
        ]
    chosen = list(enumerate(jobs[first::every]))

    def one(numbered: tuple[int, tuple[str, Path, Contents, Path, Act]]) -> Try:
        number, (run, whole, expected, file, act) = numbered
        try:
            found = try_damage(world, run, whole, expected, file, act, folder / f"try-{number}")
        except Exception as error:  # noqa: BLE001 - the others are tried all the same
            found = Try(run, file.as_posix(), act, "SILENT", repr(error))
        sys.stderr.write(f"{number + 1}/{len(chosen)} {found.run} {found.act} {found.file}: {found.outcome}\n")
        return found

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, chosen))


def main() -> None:
    """Sweep and print the table."""
    parser = argparse.ArgumentParser(description="Damage each file of a run and give its command again.")
    parser.add_argument("--every", type=int, default=1, help="try each N-th damage only")
    parser.add_argument("--first", type=int, default=0, help="begin with this damage, counted from 0")
    parser.add_argument("--only", default="", help="try files whose path contains this")
    parser.add_argument("--out", type=Path, help="write every try here, as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tries = sweep(Path(folder), given.first, given.every, given.only)
    table = Counter((found.run, found.act, found.outcome) for found in tries)
    for (run, act, outcome), count in sorted(table.items()):
        sys.stdout.write(f"{run:10} {act:7} {outcome:10} {count}\n")
    for found in tries:
        if found.outcome == "SILENT":
            sys.stdout.write(f"SILENT {found.run} {found.act} {found.file} {found.said}\n")
    if given.out is not None:
        given.out.write_text(json.dumps([asdict(found) for found in tries], indent=1) + "\n", encoding="utf-8")
    sys.exit(any(found.outcome == "SILENT" for found in tries))


if __name__ == "__main__":
    main()
