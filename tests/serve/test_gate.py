"""Thresholds by the load: what is chosen, what a live server gives its requests, and what is refused at the start."""

import logging
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.engine import Request
from pipo_core.engine.live import LiveStream
from pipo_core.engine.profiles import checkpoint_of, machine_of
from pipo_core.engine.torch_opening import TorchOpener
from pipo_core.errors import UsageError
from pipo_core.files import write_record
from pipo_core.model.frequent_tokens import FrequentTokens, write_draft_vocab
from pipo_core.recipes.base import dump
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.profile import Profile
from pipo_core.serve.gate import LoadGate
from pipo_core.serve.service import Service
from pipo_core.serve.tracing import LOG
from tests.profiles import profile, setting
from tests.serve.conftest import Start
from tests.serve.test_clients import post

SETTINGS = [setting(0.0, 0.5, -0.2), setting(0.2), setting(0.5), setting(0.9)]
# The fastest of the admissible ones: 0.2 for one request, 0.5 for 3, 0.9 for 6.
SPEEDS = {1: [9.0, 4.0, 3.0, 2.0], 3: [9.0, 3.0, 4.0, 2.0], 6: [9.0, 2.0, 3.0, 4.0]}


def wait_until_idle(service: Service) -> None:
    """Wait until no request counts as running."""
    deadline = time.monotonic() + 20
    while service.live.pending:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def made(**more: Any) -> Profile:
    return profile(SETTINGS, SPEEDS, **more)


def safe(found: Profile) -> list[Any]:
    return [one for one in found.pairs if one.admissible]


def test_the_nearest_measured_load_decides_and_one_outside_is_said_once() -> None:
    gate = LoadGate(made(), safe(made()))
    assert gate.taus == {1: 0.2, 3: 0.5, 6: 0.9}
    assert [gate.tau(n) for n in (0, 1, 2, 4, 5, 6, 100)] == [0.2, 0.2, 0.5, 0.5, 0.9, 0.9, 0.9]
    assert [gate.first_beyond(n) for n in (1, 4, 6)] == [None, None, None]
    said = gate.first_beyond(7)
    assert said == "7 requests are outside the profile (1 to 6); the nearest load that was measured counts, 6"
    assert gate.first_beyond(8) is None
    assert gate.words() == "0.2 at 1, 0.5 at 3, 0.9 at 6 requests"


def test_a_server_keeps_one_draft_vocabulary() -> None:
    few = [{**one, "label": f"{one['label']}-48", "draft_vocab": 48} for one in SETTINGS]
    both = profile([*SETTINGS, *few], {n: [*row, *(1.1 * speed for speed in row)] for n, row in SPEEDS.items()})
    gate = LoadGate(both, safe(both))
    assert (gate.draft_vocab, gate.taus) == (48, {1: 0.2, 3: 0.5, 6: 0.9})
    assert LoadGate(made(), safe(made())).draft_vocab is None


# ------------------------------------------------------------------ a live server


@pytest.fixture(scope="module")
def gated(start: Start) -> tuple[Service, str]:
    return start(gate=LoadGate(made(), safe(made())))


@pytest.fixture
def submitted(gated: tuple[Service, str], monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return a list of what the engine gets."""
    found: list[Request] = []
    submit = gated[0].live.submit_async

    async def note(requests: Sequence[Request]) -> list[LiveStream]:
        found.extend(requests)
        return await submit(requests)

    monkeypatch.setattr(gated[0].live, "submit_async", note)
    wait_until_idle(gated[0])
    return found


def test_requests_get_the_threshold_of_the_present_load(
    gated: tuple[Service, str], submitted: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine takes requests and does not advance them, so the load is what the test says."""
    service, address = gated
    engine = service.live._engine
    step, paused = engine.step, threading.Event()
    paused.set()
    monkeypatch.setattr(engine, "step", lambda: [] if paused.is_set() else step())

    def tau() -> float:
        return service.metrics.value("pipo_default_tau")

    with ThreadPoolExecutor(8) as pool:
        answers = []

        def taus(number: int, **body: Any) -> set[float | None]:
            """Ask for so many choices; return the thresholds that the engine got for them."""
            known = service.live.pending
            submitted.clear()
            asked = {"prompt": "1+2", "max_tokens": 4, "n": number, **body}
            answers.append(pool.submit(partial(post, address, "completions", None, **asked)))
            while service.live.pending < known + number:
                time.sleep(0.001)
            return {request.tau for request in submitted}

        try:
            assert tau() == 0.2
            assert taus(1) == {0.2}
            assert taus(1) == {0.5}  # the second one
            assert tau() == 0.5
            assert taus(2, custom_params={"tau": 0.3}) == {0.3}
            assert tau() == 0.5  # four run
            assert taus(1) == {0.9}
            assert taus(9) == {0.9}
        finally:
            paused.clear()
        assert {answer.result().status_code for answer in answers} == {200}
    wait_until_idle(service)
    assert tau() == 0.2


def test_the_threshold_is_in_the_line_of_a_request_and_a_load_outside_is_logged_once(
    gated: tuple[Service, str],
    submitted: list[Request],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gated[0], "gate", LoadGate(made(), safe(made())))
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level(logging.INFO, LOG.name)
    for _ in range(2):
        assert post(gated[1], "completions", prompt="1+2", n=12, max_tokens=2).status_code == 200
    wait_until_idle(gated[0])
    assert {request.tau for request in submitted} == {0.9}
    # A batch of 8 is all that runs, whatever waits.
    beyond = [line for line in caplog.messages if "outside the profile" in line]
    assert beyond == ["8 requests are outside the profile (1 to 6); the nearest load that was measured counts, 6"]
    assert any(" tau=0.9 prompt=" in line for line in caplog.messages)


def test_a_gates_threshold_decodes_as_one_that_a_request_names(gated: tuple[Service, str]) -> None:
    texts = []
    for tau in (None, 0.2, 1.0):
        wait_until_idle(gated[0])
        named: dict[str, Any] = {} if tau is None else {"custom_params": {"tau": tau}}
        answer = post(gated[1], "completions", None, prompt="1+2", max_tokens=60, seed=4, ignore_eos=True, **named)
        texts.append(answer.json()["choices"][0]["text"])
    assert texts[0] == texts[1] != texts[2]


def test_without_a_profile_nothing_is_said_of_thresholds(served: tuple[Service, str]) -> None:
    assert served[0].default_tau() is None
    assert "pipo_default_tau" not in served[0].metrics.text().decode()


# ------------------------------------------------------------------ at the start


@pytest.fixture
def threads() -> Iterator[int]:
    """The number of threads of this process, which is the same again afterwards."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.fixture
def file(pair_model: Path, tmp_path: Path) -> Path:
    """A profile of the pair model on this machine."""
    here = machine_of(TorchSettings(device="cpu", precision="fp32"))
    found = made(checkpoint=dump(checkpoint_of(pair_model)), machine=dump(here))
    write_record(tmp_path / "profile.json", dump(found))
    return tmp_path / "profile.json"


def serve(model: Path, *words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["serve", "--ckpt", str(model), "--device", "cpu", "--dry-run", *words])
    return found.exit_code, found.output


def test_the_plan_of_a_server_names_profile_and_thresholds(pair_model: Path, file: Path) -> None:
    code, said = serve(pair_model, "--profile", str(file))
    assert code == 0, said
    assert "tau: 0.2 at 1, 0.5 at 3, 0.9 at 6 requests\n" in said
    assert f"profile: {file}\n" in said
    code, said = serve(pair_model, "--profile", str(file), "--min-tau", "0", "--max-tau", "0.5")
    assert "tau: 0 at 1 and 3 and 6 requests\n" in said


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--tau", "0.5"], 2, "--tau and --profile: give one of them"),
        (["--method", "regular"], 2, "--profile is for pair models"),
        (["--engine", "sglang"], 2, "--profile is for the torch engine"),
        (["--min-tau", "0.9", "--max-tau", "0.2"], 2, "--min-tau 0.9 is above --max-tau 0.2"),
        (["--min-tau", "0.95"], 2, "no threshold from 0.95 to 1; measured: 0, 0.2, 0.5, 0.9"),
        (["--min-tau", "0.6", "--max-tau", "0.7"], 2, "no threshold from 0.6 to 0.7; measured: 0, 0.2, 0.5, 0.9"),
        (["--precision", "bf16"], 2, "with other settings: precision fp32 and not bf16"),
    ],
)
def test_what_contradicts_a_profile_is_one_line(
    pair_model: Path, file: Path, words: list[str], code: int, complaint: str
) -> None:
    found, said = serve(pair_model, "--profile", str(file), *words)
    assert found == code, said
    assert complaint in said
    assert said.count("pipo: ") == 1


def test_a_server_takes_over_what_the_profile_was_measured_with(
    pair_model: Path, file: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calibration may name threads and number format; a plain server decodes as it was measured, and says so."""
    monkeypatch.setattr("pipo_core.engine.profiles.cores", lambda: 8)

    def measured(**changes: Any) -> None:
        here = {**dump(machine_of(TorchSettings(device="cpu", precision="fp32", threads=threads))), **changes}
        write_record(file, dump(made(checkpoint=dump(checkpoint_of(pair_model)), machine=here)))

    other = threads + 1
    for changes, words in (
        ({}, None),
        ({"threads": other}, f"threads {other}"),
        ({"precision": "bfloat16", "threads": other}, f"precision bf16, threads {other}"),
    ):
        measured(**changes)
        torch.set_num_threads(threads)
        code, said = serve(pair_model, "--profile", str(file))
        assert code == 0, said
        lines = [line for line in said.splitlines() if line.startswith("as the profile was measured: ")]
        assert lines == ([] if words is None else [f"as the profile was measured: {words}"])
        assert torch.get_num_threads() == changes.get("threads", threads)
    measured(threads=other)
    code, said = serve(pair_model, "--profile", str(file), "--threads", str(threads))
    assert code == 2
    assert f"was measured with other settings: threads {other} and not {threads}" in said
    assert "without --threads the profile's are taken" in said
    code, said = serve(pair_model, "--profile", str(file), "--threads", str(threads), "--any-machine")
    assert code == 0
    assert "as the profile was measured" not in said
    measured(threads=99)  # more than there are cores: another machine of the same kind
    torch.set_num_threads(threads)
    code, said = serve(pair_model, "--profile", str(file))
    assert code == 2
    assert f"was measured on another machine: threads 99 and not {threads}" in said


def test_the_engine_gets_what_was_taken_over(
    pair_model: Path, file: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {**dump(machine_of(TorchSettings(device="cpu", threads=1))), "precision": "bfloat16"}
    write_record(file, dump(made(checkpoint=dump(checkpoint_of(pair_model)), machine=here)))
    opened: list[TorchSettings] = []

    def note(self: TorchOpener, ckpt: Path, decoding: Decoding, settings: TorchSettings) -> None:
        opened.append(settings)
        raise UsageError("enough")

    monkeypatch.setattr(TorchOpener, "open", note)
    words = ["serve", "--ckpt", str(pair_model), "--profile", str(file), "--port", "0"]
    assert "enough" in CliRunner().invoke(app, words).output
    assert [(one.device, one.precision, one.threads) for one in opened] == [("cpu", "bf16", 1)]


def test_threads_are_the_torch_engines(pair_model: Path, threads: int) -> None:
    code, said = serve(pair_model, "--engine", "sglang", "--threads", "2")
    assert code != 0
    assert "--threads 2 is for the torch engine" in said


def test_another_draft_vocabulary_is_refused_only_where_one_was_measured(
    pair_model: Path, file: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(pair_model, tmp_path / "counted")
    write_draft_vocab(model, FrequentTokens([5, 6, 7], [3, 2, 1]))
    here = dump(machine_of(TorchSettings(device="cpu", precision="fp32")))
    few = [{**one, "draft_vocab": 3} for one in SETTINGS]
    for settings, with_few in ((SETTINGS, False), (few, True)):
        of = dump(checkpoint_of(model, with_draft_vocab=with_few))
        write_record(file, dump(profile(settings, SPEEDS, checkpoint=of, machine=here)))
        write_draft_vocab(model, FrequentTokens([5, 6, 7], [9, 9, 1]))  # counts decide nothing
        assert serve(model, "--profile", str(file))[0] == 0
        write_draft_vocab(model, FrequentTokens([5, 7, 6], [3, 2, 1]))
        code, said = serve(model, "--profile", str(file))
        assert code == (2 if with_few else 0)
        assert ("with draft vocabularies of another draft_vocab.json than that in" in said) == with_few
        write_draft_vocab(model, FrequentTokens([5, 6, 7], [3, 2, 1]))


@pytest.mark.parametrize("words", [["--min-tau", "0.5"], ["--max-tau", "0.5"], ["--any-machine"]])
def test_options_of_a_profile_need_one(pair_model: Path, words: list[str]) -> None:
    code, said = serve(pair_model, *words)
    assert code == 2
    assert f"{words[0]} is about a profile" in said


def test_a_profile_of_another_checkpoint_or_machine_is_refused(pair_model: Path, file: Path) -> None:
    here = machine_of(TorchSettings(device="cpu", precision="fp32"))
    other = made(checkpoint={"folder": "outputs/other", "weights": "f" * 16}, machine=dump(here))
    write_record(file, dump(other))
    for more in ([], ["--any-machine"]):
        code, said = serve(pair_model, "--profile", str(file), *more)
        assert code == 2
        assert f"{file} is of other weights (outputs/other) than those in {pair_model}" in said
    elsewhere = {"device": "GPU 9", "precision": "float32", "threads": 99}
    write_record(file, dump(made(checkpoint=dump(checkpoint_of(pair_model)), machine=elsewhere)))
    code, said = serve(pair_model, "--profile", str(file))
    assert code == 2
    assert f"device GPU 9 and not {here.device}, threads 99 and not {here.threads}" in said
    assert serve(pair_model, "--profile", str(file), "--any-machine")[0] == 0


def test_a_profile_without_grades_needs_a_bound(pair_model: Path, file: Path) -> None:
    here = machine_of(TorchSettings(device="cpu", precision="fp32"))
    blind = profile(
        [setting(0.2, None, None), setting(0.9, None, None)],
        {1: [2.0, 1.0]},
        checkpoint=dump(checkpoint_of(pair_model)),
        machine=dump(here),
    )
    write_record(file, dump(blind))
    code, said = serve(pair_model, "--profile", str(file))
    assert code == 2
    assert "the profile knows no accuracy" in said
    assert "--min-tau 0.9" in said
    code, said = serve(pair_model, "--profile", str(file), "--min-tau", "0.5")
    assert code == 0
    assert "tau: 0.9 at 1 requests" in said


def test_what_is_no_profile_is_named(pair_model: Path, file: Path) -> None:
    file.write_text("{}")
    code, said = serve(pair_model, "--profile", str(file))
    assert code == 3
    assert f"{file} is not a profile" in said
