import pytest

from pipo_core.reporting import Progress, ProgressEvent, Reporter, SilentReporter


def test_the_silent_reporter_is_a_reporter_that_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    reporter: Reporter = SilentReporter()
    reporter.info("a")
    reporter.warn("b")
    with reporter.progress("c", 3, "rows") as progress:
        progress.update(1, loss=0.5)
        progress.advance(2, loss=0.25)
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")


def test_every_listener_hears_the_beginning_each_move_and_the_end() -> None:
    now = 10.0
    first: list[ProgressEvent] = []
    second: list[ProgressEvent] = []
    progress = Progress("train", 100, "step", first.append, clock=lambda: now)
    progress.listen(second.append)
    with pytest.raises(KeyboardInterrupt), progress:
        progress.update(40, loss=2.0)
        now = 15.0
        progress.advance(10, kept=0.5)
        raise KeyboardInterrupt
    assert first == second
    assert [(event.phase, event.done, event.done_here) for event in first] == [
        ("begin", 0, 0),
        ("move", 40, 0),
        ("move", 50, 10),
        ("end", 50, 10),
    ]
    assert [event.rate for event in first] == [None, None, 2.0, 2.0]
    assert [dict(event.figures) for event in first][1:] == [{"loss": 2.0}, *[{"loss": 2.0, "kept": 0.5}] * 2]
