"""Programs that attack their surroundings end contained, leave nothing alive, and are graded wrong."""

import time
from pathlib import Path

import pytest

from pipo_core.grade import CodeGrader
from pipo_core.sandbox import Limits, Sandbox, seccomp
from pipo_core.sandbox.isolation import Isolation
from tests.sandbox.conftest import Outside, processes_in

PROGRAMS = {path.stem: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("hostile/*.py")}
LIMITS = Limits(seconds=2.0, memory=512 << 20, threads=32, output=1 << 20, work_bytes=4 << 20)
ENDS = {
    **dict.fromkeys(["sleep_forever", "ignore_signals", "busy_loop_in_c", "close_and_stay", "stop_itself"], "time"),
    "busy_threads": "time signal",  # the kernel's limit of processor time may come first
    **dict.fromkeys(["endless_output", "endless_errors"], "output"),
    "memory_bomb": "memory time",  # a slow machine does not come to the limit
    **dict.fromkeys(["core_dump", "crash", "endless_recursion", "kill_all"], "signal"),
    **dict.fromkeys(["fork_bomb", "daemon", "thread_bomb"], "error"),
}
"""How those end for which there is one right way."""
UNBUFFERED = "import sys; sys.stdout.reconfigure(write_through=True)\n"
"""So what a program says has arrived when it is killed."""


def test_the_corpus_is_whole() -> None:
    assert len(PROGRAMS) >= 38
    assert ENDS.keys() <= PROGRAMS.keys()
    assert all(text.startswith("# ") for text in PROGRAMS.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_is_contained(name: str, isolation: Isolation, outside: Outside) -> None:
    if name == "thread_bomb" and isolation.user_namespace and not _counts_threads(isolation):
        pytest.skip("root in a user namespace has no limit of threads; check_sandbox refuses that way")
    with Sandbox(LIMITS, isolation=isolation) as sandbox:
        assert sandbox.run("").reason == "ok"
        driver = sandbox.driver
        namespace = str(Path(f"/proc/{driver}/ns/pid").readlink())
        assert processes_in(namespace) == {driver}
        began = time.monotonic()
        outcome = sandbox.run(UNBUFFERED + PROGRAMS[name], outside.told())
        assert processes_in(namespace) <= {driver}
        assert time.monotonic() - began < 60  # far beyond any limit: it does not hang
        assert b"BREACH" not in outcome.stdout
        assert outcome.reason in ENDS.get(name, outcome.reason).split()
        assert len(outcome.stdout) <= LIMITS.output
        assert len(outcome.stderr) <= LIMITS.output
        outside.check()
        # The next run finds nothing of it.
        after = sandbox.run("import os; print(os.listdir('/tmp'), os.getcwd())")
        assert after.stdout == b"[] /tmp\n"
    assert processes_in(namespace) == set()


@pytest.mark.parametrize("name", PROGRAMS)
def test_is_graded_wrong(name: str, outside: Outside) -> None:
    tests = [{"input": outside.told(), "output": f"{outside.mark}-{number}"} for number in range(2)]
    with CodeGrader(seconds=1.0, memory=512 << 20) as grader:
        assert grader.grade(f"```python\n{PROGRAMS[name]}```", {"tests": tests}) is False
    outside.check()


def test_the_corpus_does_harm_without_the_filter(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch, outside: Outside
) -> None:
    """So the programs do try what they say. The namespaces hold even then."""
    monkeypatch.setattr(seccomp, "program_filter", lambda: seccomp._assemble({}, may_start_processes=True))
    with Sandbox(LIMITS, isolation=isolation) as sandbox:
        for name in ("loopback", "other_program", "memory_outside_of_the_process"):
            assert b"BREACH" in sandbox.run(PROGRAMS[name], outside.told()).stdout, name
        outside.check()


@pytest.mark.parametrize("name", ["daemon", "fork_bomb"])
def test_processes_end_with_the_run_where_the_filter_lets_them_start(
    name: str, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "fork_bomb" and not _counts_threads(isolation):
        pytest.skip("root in a user namespace has no limit of processes; check_sandbox refuses that way")
    monkeypatch.setattr(seccomp, "program_filter", lambda: seccomp._assemble({}, may_start_processes=True))
    with Sandbox(LIMITS, isolation=isolation) as sandbox:
        sandbox.run("")
        driver = sandbox.driver
        namespace = str(Path(f"/proc/{driver}/ns/pid").readlink())
        outcome = sandbox.run(PROGRAMS[name])
        assert outcome.reason == {"daemon": "ok", "fork_bomb": "time"}[name]
        assert processes_in(namespace) <= {driver}


def _counts_threads(isolation: Isolation) -> bool:
    from pipo_core.sandbox.probe import weakness

    return weakness(isolation) is None
