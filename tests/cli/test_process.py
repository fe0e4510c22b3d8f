"""`pipo` as a process of its own: what it imports, signals, pipes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "swift", "pydantic", "rich", "numpy", "huggingface_hub", "matplotlib"}


def _imported(*words: str) -> set[str]:
    code = (
        "import sys\nfrom pipo_cli.app import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('\\n' + '\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


def test_help_imports_nothing_heavy() -> None:
    assert sorted(_imported("--help") & HEAVY) == []


@pytest.mark.parametrize("words", ["train --help", "recipes ls", "recipes validate sft", "download --help"])
def test_light_commands_import_nothing_heavy_but_pydantic(words: str) -> None:
    # Typer itself takes pydantic to read arguments.
    assert sorted(_imported(*words.split()) & (HEAVY - {"pydantic"})) == []


def test_ctrl_c_is_one_line_and_130(tmp_path: Path) -> None:
    # Shells let background jobs ignore SIGINT, and children inherit that: the child asks for Python's own handler.
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pipo_cli.main import main\nimport pipo_core.recipes.locate as locate\n"
        "def slow():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "locate.shipped_files = slow\nmain()"
    )
    words = [sys.executable, "-c", code, "recipes", "ls"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "pipo: interrupted; the same command goes on\n")


def test_ctrl_c_while_the_commands_load_is_one_line_and_130() -> None:
    code = (
        "import sys\nclass Interrupting:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\nfrom pipo_cli.main import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "pipo: interrupted; the same command goes on\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m pipo_cli.main recipes schema train | head -n 1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("run")
