import json

import pytest

from pipo_core.errors import CheckpointError
from tests.cli.calls import Calls, pipo


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CheckpointError("weights are cut off", hint="pipo download x"), 3, "pipo: weights are cut off"),
        (KeyboardInterrupt(), 130, "pipo: interrupted; the same command goes on"),
        (ModuleNotFoundError("no", name="sglang"), 4, "pipo: the Python package 'sglang' is missing"),
        (OSError(28, "No space left on device", "a.bin"), 4, "pipo: a.bin: No space left on device"),
        (PermissionError(13, "Permission denied", "out"), 4, "pipo: out: Permission denied"),
        (FileNotFoundError(2, "No such file or directory", "x"), 3, "pipo: x: No such file or directory"),
        (MemoryError("8 GB"), 4, "pipo: out of memory: 8 GB"),
        (RuntimeError("two\nlines"), 1, "pipo: RuntimeError: two lines"),
        (ZeroDivisionError("by zero"), 1, "pipo: ZeroDivisionError: by zero"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(calls: Calls, error: BaseException, code: int, line: str) -> None:
    calls.error = error
    found, out, err = pipo("train", "train.yaml")
    assert found == code
    assert out == ""
    assert err.startswith(line)
    assert "Traceback" not in err


def test_a_failed_allocation_on_a_cpu_is_a_lack_of_memory(calls: Calls) -> None:
    calls.error = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    )
    code, _, err = pipo("train", "train.yaml")
    assert code == 4
    assert err.startswith("pipo: out of memory: ")
    assert "try: a smaller batch" in err


def test_a_name_too_long_for_a_file_is_a_wrong_word() -> None:
    code, _, err = pipo("train", "x" * 5000)
    assert code == 2
    assert "too long for a file" in err
    assert len(err) < 300


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["eval", "--ckpt", "tiny-student", "--tau", "1.5", "--json"], "--tau"),
        (["train", "train.yaml", "--bogus", "--json"], "--bogus"),
        (["--bogus", "train", "--json"], "--bogus"),
        (["trian", "--json"], "Did you mean 'train'?"),
    ],
)
def test_wrong_usage_is_json_too(calls: Calls, words: list[str], about: str) -> None:
    code, out, err = pipo(*words)
    found = json.loads(out)
    assert found.keys() == {"error", "hint", "exit_code"}
    assert code == found["exit_code"] == 2
    assert about in found["error"]
    assert found["hint"].endswith(" --help")
    assert about in err


def test_debug_shows_the_traceback_before_or_behind_the_command(calls: Calls) -> None:
    calls.error = ZeroDivisionError("by zero")
    for words in (["--debug", "train", "train.yaml"], ["train", "train.yaml", "--debug"]):
        code, _, err = pipo(*words)
        assert code == 1
        assert "Traceback" in err
        assert err.rstrip().endswith("the same with --debug shows where")
