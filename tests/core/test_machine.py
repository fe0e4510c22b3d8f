"""Facts about the machine, also on a system that has nothing of Linux; and packages that are not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipo_core import machine
from pipo_core.errors import MachineError

CHECKOUT = str(Path(__file__).resolve().parents[2])
MAC = """
import os, pathlib, sys

sys.path.insert(0, {checkout!r})
import psutil, torch, transformers  # they find out about the system for themselves
import transformers.models.qwen3_5.modeling_qwen3_5, transformers.cache_utils, transformers.masking_utils

sys.platform = "darwin"
del os.sched_getaffinity
def absent(name):
    plain = getattr(pathlib.Path, name)
    def method(self, *args, **kwargs):
        if str(self).startswith(("/proc", "/sys")):
            if name in ("is_file", "is_dir", "exists"):
                return False
            raise FileNotFoundError(2, "there is no such place on a Mac", str(self))
        return plain(self, *args, **kwargs)
    setattr(pathlib.Path, name, method)
for name in ("is_file", "is_dir", "exists", "open", "read_text", "read_bytes", "write_text", "stat", "iterdir"):
    absent(name)
import ctypes
class NoRename:
    def __init__(self, *args, **kwargs):
        pass
ctypes.CDLL = NoRename
"""


def on_a_mac(code: str) -> str:
    """Run code in a process to which Linux's places and calls do not exist, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", MAC.format(checkout=CHECKOUT) + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_mac_has_its_facts() -> None:
    out = on_a_mac(
        "from pipo_core.machine import clocks, machine, peak_memory\n"
        "found = machine()\n"
        "assert found['cores'] > 0 and found['memory_gib'] > 0 and found['gpus'] == [] and found['cpu'], found\n"
        "assert peak_memory() < 0.01, peak_memory()  # getrusage counts bytes there: a thousandth of Linux's\n"
        "clocks()\n"
        "from pipo_core.model.free_memory import free_bytes\n"
        "assert free_bytes(torch.device('cpu')) > 0\n"
        "print('done')"
    )
    assert out.endswith("done\n")


def test_a_mac_builds_data_and_answers_in_the_tiny_world(tmp_path: Path) -> None:
    """Every room but the training process and SGLang's plugin, whose libraries are not for a Mac."""
    out = on_a_mac(
        "import importlib, pkgutil, pipo_core, pipo_cli\n"
        "for package in (pipo_core, pipo_cli):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not any(word in module.name for word in ('train.worker', 'core.sglang.', '__main__')):\n"
        "            importlib.import_module(module.name)\n"
        "from typer.testing import CliRunner\n"
        "from pipo_cli.app import app\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "words = ['eval', '--suite', 'tiny', '--ckpt', 'tiny-student', 'problems.count=2', 'samples=1',\n"
        "         'budget={tokens: 4}', 'engine.threads=1']\n"
        "for _ in range(2):\n"
        "    result = CliRunner().invoke(app, words)\n"
        "    assert result.exit_code == 0, (result.output, result.exception)\n"
        "print('done')"
    )
    assert out.endswith("done\n")


def test_a_package_that_is_not_installed_is_named_with_the_command() -> None:
    assert machine.missing_package("json", "this needs json", "train") is None
    lack = machine.missing_package("no_such_package", "this needs a package", "train")
    assert isinstance(lack, MachineError)
    assert (lack.message, lack.exit_code) == ("this needs a package", 4)
    assert lack.hint == 'in the checkout of pipo: pip install -c constraints.txt -e ".[train]"'


@pytest.mark.parametrize(
    ("hidden", "words", "code", "said"),
    [
        ("swift", ["train", "tiny/sft", "data.train=rows.jsonl", "max_steps=1"], 4, "training needs ms-swift"),
        ("matplotlib", ["run", "demo"], 4, "plots need matplotlib"),
    ],
)
def test_without_an_extra_a_command_says_so_before_it_starts(
    tmp_path: Path, hidden: str, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "1"}]}\n'
    )
    hide = (
        "import importlib.util, sys\n"
        "plain = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *more: None if name == {hidden!r} else plain(name, *more)\n"
        "from pipo_cli.main import main\n"
        f"sys.argv = ['pipo', *{words!r}]\n"
        "main()\n"
    )
    env = {**os.environ, "PYTHONPATH": CHECKOUT}
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert f"pipo: {said}" in done.stderr
    assert "pip install -c constraints.txt -e" in done.stderr
    assert not (tmp_path / "outputs" / "demo").exists()
