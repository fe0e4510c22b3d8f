"""Events cross the border between the processes."""

import io
from pathlib import Path

from pipo_core.errors import CheckpointError, PipoError
from pipo_core.train.events import EventWriter, as_error, parse_event


def test_errors_cross_the_process_border_with_kind_and_hint(tmp_path: Path) -> None:
    file = tmp_path / "events"
    with file.open("w") as stream:
        events = EventWriter(stream, on_lost=lambda: None)
        events.error(CheckpointError("no weights", hint="pipo download"))
        events.error(ValueError("first\nsecond"))
        events.write("log", loss=float("nan"))
    mine, other, log = (parse_event(line) for line in file.read_text().splitlines())
    assert mine is not None
    assert other is not None
    assert log is not None
    error = as_error(mine)
    assert isinstance(error, CheckpointError)
    assert (error.message, error.hint) == ("no weights", "pipo download")
    assert type(as_error(other)) is PipoError
    assert as_error(other).message == "ValueError: first"
    assert log["loss"] == "nan"
    assert parse_event("{not an event}") is None
    assert parse_event("[1]") is None


def test_a_reader_that_went_away_asks_for_a_stop() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    lost = []
    events = EventWriter(Closed(), on_lost=lambda: lost.append(True))
    events.write("step", step=1)
    events.write("step", step=2)
    assert lost == [True]
