from pipo_core.reporting import Reporter, SilentReporter


def test_the_silent_reporter_is_a_reporter_that_says_nothing(capfd: object) -> None:
    reporter: Reporter = SilentReporter()
    reporter.info("a")
    reporter.warn("b")
    with reporter.progress("c", 3, "rows") as progress:
        progress.update(1, loss=0.5)
        progress.advance(2, loss=0.25)
    out = capfd.readouterr()  # type: ignore[attr-defined]
    assert (out.out, out.err) == ("", "")
