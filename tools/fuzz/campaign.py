"""A long search for inputs that crash or hang, run by hand: ``python -m tools.fuzz.campaign --seconds 1200``.

It prints one JSON object: cases by area, how many were taken, refused or aborted inside a library, and every finding
once, with the seed that shows it again (``--area NAME --case SEED``).
"""

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from pipo_core.recipes.locate import shipped_recipes
from tools.fuzz import areas

SLOW_SECONDS = 5.0
GREEDY_BYTES = 1 << 30
SHARES = {
    **{"recipe": 4, "override": 4, "recipe_file": 2, "weights": 3, "index": 1, "config": 3, "tokenizer": 2},
    **{"chat": 2, "training": 2},
}


def open_areas(folder: Path) -> dict[str, Callable[[Random], str]]:
    """Return every area as a function of a `Random`."""
    places = {name: folder / name for name in SHARES}
    for place in places.values():
        place.mkdir()
    return {
        "recipe": areas.recipe,
        "override": areas.override,
        "recipe_file": lambda rng: areas.recipe_file(rng, places["recipe_file"]),
        "weights": partial(_swapped, areas.weights, areas.reference_checkpoint(places["weights"])),
        "index": partial(_swapped, areas.index, areas.reference_checkpoint(places["index"])),
        "config": partial(_swapped, areas.config, areas.reference_checkpoint(places["config"])),
        "tokenizer": partial(_forked, partial(_swapped, areas.tokenizer, areas.tokenizer_folder(places["tokenizer"]))),
        "chat": areas.chat,
        "training": partial(_swapped, areas.training, areas.tiny_template()),
    }


def hunt(case: Callable[[Random], str], name: str, seed: str, seconds: float) -> dict[str, Any]:
    """Try cases for `seconds` of CPU time and return their results."""
    outcomes: Counter[str] = Counter()
    findings: dict[str, dict[str, Any]] = {}
    began = _cpu_time()
    slowest = 0.0
    while _cpu_time() - began < seconds:
        one = f"{seed}-{outcomes.total()}"
        before, memory = _cpu_time(), _memory()
        try:
            outcomes[case(Random(f"{name}-{one}"))] += 1
        except Exception as error:  # noqa: BLE001 - what is looked for
            outcomes["failed"] += 1
            _note(findings, f"{type(error).__name__} at {_place(error)}", one, str(error)[:300])
        spent = _cpu_time() - before
        slowest = max(slowest, spent)
        if spent > SLOW_SECONDS:
            _note(findings, "slow", one, f"{spent:.1f} s")
        if _memory() - memory > GREEDY_BYTES:
            _note(findings, "greedy", one, f"{(_memory() - memory) >> 20} MiB more")
    return {"cases": outcomes.total(), **outcomes, "slowest_s": round(slowest, 2), "findings": findings}


def cut_recipes() -> dict[str, Any]:
    """Try every shipped recipe cut off at every character."""
    outcomes: Counter[str] = Counter()
    findings: dict[str, dict[str, Any]] = {}
    for path in shipped_recipes().values():
        text = path.read_text()
        for length in range(len(text)):
            try:
                outcomes[areas.parsed(text[:length], str(path))] += 1
            except Exception as error:  # noqa: BLE001 - what is looked for
                _note(
                    findings, f"{type(error).__name__} at {_place(error)}", f"{path.name}[:{length}]", str(error)[:300]
                )
    return {"cases": outcomes.total(), **outcomes, "findings": findings}


def main() -> int:
    """Run the campaign and return 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200, help="CPU time for all areas together")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--area", choices=SHARES, help="this one alone")
    parser.add_argument("--case", help="one case of --area, as a finding names it")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        cases = open_areas(Path(folder))
        if options.case:
            sys.stdout.write(cases[options.area](Random(f"{options.area}-{options.case}")) + "\n")
            return 0
        chosen = [options.area] if options.area else list(SHARES)
        unit = options.seconds / sum(SHARES[name] for name in chosen)
        report = {name: hunt(cases[name], name, options.seed, unit * SHARES[name]) for name in chosen}
    if not options.area:
        report["recipes cut off"] = cut_recipes()
    report["peak_memory_mib"] = {"all": _memory() >> 20}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return int(any(area.get("findings") for area in report.values()))


def _swapped(area: Callable[[Random, Any], str], place: Any, rng: Random) -> str:
    return area(rng, place)


def _forked(area: Callable[[Random], str], rng: Random) -> str:
    """Try a case in its own process, because a damaged file can make the tokenizers library abort its process."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = area(rng)
        except BaseException as error:  # noqa: BLE001 - handed to the parent
            said = f"{type(error).__name__} at {_place(error)}: {error}"[:1000]
        os.write(theirs, said.encode("utf-8", "replace"))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if status:
        return "aborted"
    if said not in ("taken", "refused"):
        raise AssertionError(said)
    return said


def _note(findings: dict[str, dict[str, Any]], what: str, case: str, message: str) -> None:
    findings.setdefault(what, {"case": case, "message": message, "times": 0})["times"] += 1


def _place(error: BaseException) -> str:
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/pipo_" in frame.filename]
    frames = ours or traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"


def _cpu_time() -> float:
    """Return CPU seconds of this process and of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
