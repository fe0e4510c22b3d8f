"""Commands on a disk that fills up: `unshare -rm python -m tools.kill.full_disk [TRY …]`.

A try is `N/COMMAND`. The disk is a small one in memory, of which a file takes all but a part of what the command needs,
so that it gets so far and no further: N parts, evenly spread. It must say so in one line, keep what was there, and go
on when there is room. Prints a JSON table.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.kill.sweep import COMMANDS, forked, import_everything, prepare
from tools.kill.world import World, check_killed, contents, fault, leftovers, processes_in, wait_for_end

_DISK_BYTES = 64 << 20
_PAGE = 4096
LINE = "could not be written: the disk is full"
HINT = "  try: free space there, then give the same command again"


def fill(world: World, title: str, parts: int, disk: Path) -> dict[str, Any]:
    """Run one command with ``parts`` parts of the space that it needs and return how often it ended correctly."""
    name, before = COMMANDS[title]
    said, log, out = world.folder / "said.txt", world.folder / "steps.log", disk / "out"

    def run() -> int:
        log.unlink(missing_ok=True)
        code = forked(world.words(name, out), fault(out, log), said)
        wait_for_end(processes_in(log))
        return code

    def fresh() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if before is not None:
            before(world, out)

    prepare(world, title)
    fresh()
    allowed = [contents(out)]
    start = _used(disk)
    assert run() == 0, said.read_text()
    whole = contents(out)
    allowed.append(whole)
    need = _used(disk) - start
    stopped, failures = 0, []
    for part in range(parts):
        fresh()
        room = (2 * part + 1) * need // (2 * parts) // _PAGE * _PAGE
        with (disk / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, _free(disk) - room)
        try:
            code = run()
            lines = said.read_text().splitlines()
            stopped += code == 4
            assert code == 4, f"exit code {code}: {lines}"
            assert sum(line.startswith("pipo: ") and line.endswith(LINE) for line in lines) == 1, lines
            assert lines[-1] == HINT, lines
            assert not any("Traceback" in line for line in lines), lines
            check_killed(out, allowed, [])
            (disk / "ballast").unlink()
            assert run() == 0, said.read_text()
            assert contents(out) == whole
            assert not leftovers(out), leftovers(out)
        except AssertionError as error:
            failures.append({"room": room, "found": str(error)[-2000:]})
        (disk / "ballast").unlink(missing_ok=True)
    went_on = parts - len(failures)
    return {"command": title, "KiB": need >> 10, "stopped": stopped, "went on": went_on, "failures": failures}


def _used(disk: Path) -> int:
    return shutil.disk_usage(disk).used


def _free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def main() -> None:
    """Do the tries and print the table."""
    words = sys.argv[1:] or [f"20/{title}" for title in COMMANDS]
    tries = [(int(parts), title) for parts, title in (word.split("/", 1) for word in words)]
    import_everything()
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", str(disk)]
        subprocess.run(mount, check=True)
        world = World(Path(folder) / "world")
        table = [fill(world, title, parts, disk) for parts, title in tries]
        subprocess.run(["/usr/bin/umount", str(disk)], check=True)
    sys.stdout.write(json.dumps(table, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
