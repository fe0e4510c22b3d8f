"""The floors of docs/architecture.md, read from the imports: only from its own room or from below."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from pipo_core.decode.registry import METHOD_CLASSES
from pipo_core.recipes.methods import METHODS, MethodName

ROOT = Path(__file__).resolve().parent.parent

# Bottom up: rooms of one floor do not know each other.
FLOORS: list[set[str]] = [
    {
        "pipo_core",
        "pipo_core.errors",
        "pipo_core.files",
        "pipo_core.guard",
        "pipo_core.machine",
        "pipo_core.messages",
        "pipo_core.reporting",
        "pipo_core.tables",
        "pipo_core.text",
    },
    {"pipo_core.recipes", "pipo_core.sandbox"},
    {"pipo_core.model", "pipo_core.chat"},
    {"pipo_core.decode", "pipo_core.sglang"},
    {"pipo_core.engine"},
    {"pipo_core.hub", "pipo_core.data", "pipo_core.grade"},
    {"pipo_core.train", "pipo_core.evaluate", "pipo_core.bench", "pipo_core.serve"},
    {"pipo_core.merge", "pipo_core.sizing", "pipo_core.calibrate"},
    {"pipo_core.pipeline"},
    {"pipo_cli"},
]
# The ground floor's modules are one room.
GROUND = FLOORS[0]
# Rooms that import torch as soon as they are imported.
TORCH_ROOMS = {"pipo_core.model", "pipo_core.chat", "pipo_core.decode", "pipo_core.engine"}
WORKER = "pipo_core.train.worker"
HEAVY = {"torch", "transformers", "swift", "peft", "datasets", "safetensors", "numpy", "matplotlib"}


def room_of(module: str) -> str | None:
    """Return the room that a module of ours lies in, or None if it has none."""
    rooms = [room for floor in FLOORS for room in floor if room != "pipo_core"]
    found = [room for room in rooms if module == room or module.startswith(f"{room}.")]
    return found[0] if found else ("pipo_core" if module in ("pipo_core", "pipo_core.__init__") else None)


def floor_of(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def imports(source: str, module: str, *, at_start_up_only: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of each import, or only of those that importing the module runs."""
    for node in _statements(ast.parse(source), at_start_up_only):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])
            if base == "pipo_core":  # from pipo_core import errors
                yield from ((node.lineno, f"pipo_core.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def _statements(node: ast.AST, at_start_up_only: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if at_start_up_only and (late or typing_only):
            continue
        yield child
        yield from _statements(child, at_start_up_only)


def violations(source: str, module: str) -> list[str]:
    """Return one line for each import of a module of ours that the floors do not allow."""
    room = room_of(module)
    if room is None:
        return [f"{module}: lies in no room; add it to the drawing"]
    found: list[str] = []
    for line, name in imports(source, module):
        if name.partition(".")[0] not in ("pipo_core", "pipo_cli"):
            continue
        target = room_of(name) or "pipo_core"  # a name such as pipo_core.__version__
        allowed = target == room or {target, room} <= GROUND or floor_of(target) < floor_of(room)
        if not allowed:
            found.append(f"{module}:{line}: {room} imports {name}")
    return found


def start_up_imports(source: str, module: str) -> set[str]:
    """Return the top packages that importing the module imports by itself."""
    return {name.partition(".")[0] for _, name in imports(source, module, at_start_up_only=True)}


def all_imports(source: str, module: str) -> set[str]:
    return {name.partition(".")[0] for _, name in imports(source, module)}


def _modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package in ("pipo_core", "pipo_cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name] = path
    return found


MODULES = _modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    assert violations(MODULES[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize("module", MODULES)
def test_the_lowest_floors_and_the_terminal_start_without_torch(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    level = floor_of(room_of(module) or "pipo_cli")
    if level <= 1:
        assert not all_imports(source, module) & HEAVY
    if module.startswith("pipo_cli"):
        assert not start_up_imports(source, module) & HEAVY


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pipo_core")])
def test_floors_below_training_do_not_know_ms_swift(module: str) -> None:
    if floor_of(room_of(module) or "pipo_cli") <= 4:
        assert "swift" not in all_imports(MODULES[module].read_text(encoding="utf-8"), module)


def torch_in_users_process(source: str, module: str) -> list[str]:
    """Return one line for each import, late ones too, that brings torch into the process that starts a training."""
    found = []
    for line, name in imports(source, module):
        ours = room_of(name) in TORCH_ROOMS or name == WORKER or name.startswith(f"{WORKER}.")
        if ours or name.partition(".")[0] in HEAVY | {"accelerate", "trl"}:
            found.append(f"{module}:{line}: imports {name}")
    return found


@pytest.mark.parametrize(
    "module", [name for name in MODULES if room_of(name) == "pipo_core.train" and not name.startswith(WORKER)]
)
def test_what_starts_and_hears_a_training_knows_no_torch(module: str) -> None:
    assert torch_in_users_process(MODULES[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import torch",
        "if TYPE_CHECKING:\n    from transformers import PreTrainedModel",
        "def f():\n    from pipo_core.model.checkpoint import load_config",
        "def f():\n    from .worker import process",
        "from pipo_core.train.worker.session import PairSession",
    ],
)
def test_the_check_sees_torch(source: str) -> None:
    assert torch_in_users_process(source, "pipo_core.train.supervisor")


def test_starting_a_training_imports_no_torch() -> None:
    """Whatever the modules import in turn."""
    names = [name for name in MODULES if room_of(name) == "pipo_core.train" and not name.startswith(WORKER)]
    code = f"import sys, {', '.join(names)}; sys.exit(len({HEAVY} & set(sys.modules)) and 'imported')"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipo_core.recipes.load", "import pipo_core.model.modeling"),
        ("pipo_core.recipes.load", "from pipo_core import model"),
        ("pipo_core.errors", "from pipo_core.recipes.base import Loc"),
        ("pipo_core.data.build", "from pipo_core.grade.math import MathGrader"),
        ("pipo_core.data.build", "from ..grade.math import MathGrader"),
        ("pipo_core.train.sft", "def f():\n    from pipo_core.evaluate import runner"),
        ("pipo_core.model.losses", "if TYPE_CHECKING:\n    from pipo_core.decode.pair import step"),
        ("pipo_core.pipeline.run", "from pipo_cli.reporter import open_reporter"),
        ("pipo_core.attic.thing", ""),
    ],
)
def test_the_check_sees_a_violation(module: str, source: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipo_core.files", "from pipo_core.errors import PipoError"),
        ("pipo_core.data.rollouts", "from pipo_core.engine.api import Engine"),
        ("pipo_core.train.sft", "from pipo_core.data.collate import collate\nfrom . import worker"),
        ("pipo_core.model.modeling", "from .losses import x\nimport torch"),
        ("pipo_cli.main", "from pipo_core import __version__"),
        ("pipo_cli.plan", "from pipo_core.pipeline.stage import check_stage"),
    ],
)
def test_the_check_allows_what_is_drawn(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_the_check_tells_start_up_from_later() -> None:
    source = "import json\nif TYPE_CHECKING:\n    import numpy\n"
    source += "def f():\n    import torch\nclass A:\n    import rich\n"
    assert start_up_imports(source, "pipo_cli.x") == {"json", "rich"}
    assert all_imports(source, "pipo_cli.x") == {"json", "rich", "torch", "numpy"}


def method_comparisons(source: str) -> list[int]:
    """Return the lines that compare something with a method's name; objectives and layouts share some of the names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            leaves = [leaf.value for part in parts for leaf in ast.walk(part) if isinstance(leaf, ast.Constant)]
            about_another = any(word in ast.unparse(part) for word in ("objective", "layout") for part in parts)
            if not about_another and any(leaf in METHODS for leaf in leaves if isinstance(leaf, str)):
                found.append(node.lineno)
        elif isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant) and node.value.value in METHODS:
            found.append(node.value.lineno)
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if name != "pipo_core.recipes.methods"])
def test_no_method_is_told_by_its_name(module: str) -> None:
    """The table in `recipes.methods` knows what a method has; a comparison elsewhere would miss the next method."""
    assert method_comparisons(MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('if arm.method == "pipo":\n    pass', [1]),
        ('x = name in ("mtp", "eagle")', [1]),
        ('match name:\n    case "regular":\n        pass', [2]),
        ('if recipe.objective == "regular":\n    pass', []),
        ('x = METHODS["pipo"]', []),
    ],
)
def test_the_check_sees_methods_told_by_name(source: str, lines: list[int]) -> None:
    assert method_comparisons(source) == lines


def test_every_method_has_one_class_that_decodes_it() -> None:
    assert METHOD_CLASSES.keys() == METHODS.keys() == set(get_args(MethodName))
    for spec, method in zip(METHODS.values(), METHOD_CLASSES.values(), strict=True):
        assert method.spec is spec
        assert method.__module__.startswith("pipo_core.decode.")
    assert len({method.__module__ for method in METHOD_CLASSES.values()}) == len(METHODS)
