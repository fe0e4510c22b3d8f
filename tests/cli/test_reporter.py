import io

import pytest
from rich.console import Console

from pipo_cli.reporter import (
    PlainLines,
    PlainReporter,
    TerminalReporter,
    duration,
    figures_text,
    open_reporter,
    pace_text,
)
from pipo_core.reporting import Progress, ProgressEvent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0s"), (59.6, "1m00s"), (200, "3m20s"), (7500, "2h05m"), (-1, "0s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Paces:
    """Listens to a progress and keeps what is shown of its pace."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, event: ProgressEvent) -> None:
        self.said.append(pace_text(event))


def test_rate_and_time_left() -> None:
    clock, paces = Clock(), Paces()
    with Progress("train", 40, "step", paces, clock=clock) as progress:
        clock.now += 4
        progress.advance(10)
        clock.now += 16
    assert paces.said == [
        "0/40 steps",
        "10/40 steps  2.5 steps/s  12s left",
        "10/40 steps  2 s/step  1m00s left",
    ]


def test_what_was_done_before_is_not_counted_as_pace() -> None:
    clock, paces = Clock(), Paces()
    with Progress("build", 100, "row", paces, clock=clock) as progress:
        clock.now += 5
        progress.update(50)
        clock.now += 10
        progress.advance(10)
    assert paces.said[1:3] == ["50/100 rows", "60/100 rows  1 rows/s  40s left"]


def test_plain_progress_is_a_line_now_and_then_and_at_the_end() -> None:
    clock = Clock()
    lines: list[str] = []
    with Progress("train", 4, "step", PlainLines(lines.append), clock=clock) as progress:
        progress.advance(loss=2.0)
        clock.now += 11
        progress.advance(loss=1.23456)
        clock.now += 1
        progress.update(4, confidence_mean=0.5)
    assert lines == [
        "train: 2/4 steps  5.5 s/step  11s left  loss 1.235",
        "train: 4/4 steps  3 s/step  loss 1.235  confidence mean 0.5",
    ]


def test_progress_that_begins_at_nothing_counts_from_there() -> None:
    clock, paces = Clock(), Paces()
    with Progress("train", 3, "step", paces, clock=clock) as progress:
        progress.update(0)
        clock.now += 4
        progress.update(2)
    assert paces.said[-1] == "2/3 steps  2 s/step  2s left"


def test_plain_progress_does_not_say_the_same_twice() -> None:
    clock = Clock()
    lines: list[str] = []
    with Progress("train", 1, "step", PlainLines(lines.append), clock=clock) as progress:
        clock.now += 10
        progress.update(1, loss=2.0)
        clock.now += 9
        progress.update(1, loss=2.0)
    assert len(lines) == 1


def test_plain_progress_is_no_flood() -> None:
    clock = Clock()
    lines: list[str] = []
    with Progress("eval", 10_000, "answer", PlainLines(lines.append), clock=clock) as progress:
        for _ in range(10_000):
            clock.now += 0.0035
            progress.advance()
    assert len(lines) == 4
    assert lines[-1] == "eval: 10,000/10,000 answers  286 answers/s"


def test_plain_reporter_writes_lines() -> None:
    stream = io.StringIO()
    reporter = open_reporter(stream)
    assert isinstance(reporter, PlainReporter)
    reporter.info("[a] b")
    reporter.warn("c")
    assert stream.getvalue() == "[a] b\nwarning: c\n"


def test_terminal_reporter_draws_a_bar_with_figures() -> None:
    stream = io.StringIO()
    reporter = TerminalReporter(Console(file=stream, force_terminal=True, width=120, color_system=None))
    reporter.info("[not markup]")
    with reporter.progress("[sft]", 2, "step") as progress:
        progress.advance(loss=0.5)
        progress.update(2, loss=0.25)
    text = stream.getvalue()
    assert "[not markup]" in text
    assert "[sft]" in text
    assert "2/2 steps" in text
    assert "loss 0.25" in text


def test_figures_have_four_digits() -> None:
    assert figures_text({"loss": 1.23456, "tokens_per_second": 12345.6}) == "loss 1.235  tokens per second 12,346"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_on_a_narrow_terminal_figures_are_left_out_and_time_left_stays(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    clock = Clock()
    bar = TerminalReporter(console).progress("eval pipo-sft@0.95", 2000, unit="answer")
    with Progress("eval pipo-sft@0.95", 2000, "answer", *bar._listeners, clock=clock) as progress:
        clock.now += 10
        progress.advance(500, finished=1.0, mean_tokens=40.3, tokens_per_slot=1.87, right=0.93)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in shown.replace("\r", "\n").splitlines() if "500/2,000" in line]
    assert lines
    line = lines[-1]
    assert "eval pipo-sft@0.95" in line
    assert "30s left" in line
    assert ("finished 1" in line) is (width > 80)
    assert ("tokens per slot 1.87" in line) is (width == 140)
    assert "…" not in line


def test_waiting_is_a_line_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with PlainReporter(stream).waiting("loading a model"):
        assert stream.getvalue() == "loading a model …\n"
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with TerminalReporter(console).waiting("loading [a] model"):
        pass
    assert "loading [a] model …" in console.file.getvalue()  # type: ignore[attr-defined]
