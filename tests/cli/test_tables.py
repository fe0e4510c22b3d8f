import io
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_cli.tables import GAP, column_widths, show_findings, show_pairs, show_table, text_of
from pipo_core.bench.table import latency_tables
from pipo_core.evaluate.table import tables
from pipo_core.tables import Table
from tests.samples import arm, bench, evaluation

words = st.text("abcdef", min_size=1, max_size=12)
phrases = st.lists(words, min_size=1, max_size=4).map(" ".join)


def total(widths: list[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


@given(st.data(), st.integers(1, 6), st.integers(0, 200))
def test_columns_hold_their_figures_and_every_word(data: st.DataObject, count: int, room: int) -> None:
    heads = data.draw(st.lists(phrases, min_size=count, max_size=count))
    rows = data.draw(st.lists(st.lists(words, min_size=count, max_size=count), min_size=1, max_size=3))
    table = Table("", heads, rows)
    widths = column_widths(table, room)
    for number, width in enumerate(widths):
        assert width >= max(len(row[number]) for row in rows)
        assert width >= max(len(word) for word in heads[number].split())
    narrowest = [
        max([len(word) for word in head.split()] + [len(row[number]) for row in rows])
        for number, head in enumerate(heads)
    ]
    assert total(widths) <= max(room, total(narrowest))


def test_headers_take_one_line_where_there_is_room() -> None:
    table = Table("", ["arm", "tokens a slot"], [["pipo", "1.95"]])
    assert column_widths(table, 19) == [4, 13]
    assert column_widths(table, 18) == [4, 6]


RESULTS = [*tables(evaluation(arm("pipo", 0.95, 1.0, 1.8, half=0.12))), *latency_tables(bench())]


@pytest.mark.parametrize("table", RESULTS)
def test_tables_of_results_need_80_columns(table: Table) -> None:
    assert total(column_widths(table, 80)) <= 80


@pytest.mark.parametrize("table", RESULTS)
def test_tables_of_results_are_printed_whole(table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    show_table(table)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert "\x1b" not in out
    for row in table.rows:
        assert any(" ".join(row) == " ".join(line.split()) for line in lines), row
    head = out.split("─")[0].split()
    assert sorted(head) == sorted(" ".join([table.title, *table.columns]).split())


def test_a_table_that_cannot_fit_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    row = ["x" * 70, "y" * 70]
    show_table(Table("", ["a", "b"], [row]))
    assert "  ".join(row) in capsys.readouterr().out


def test_a_long_reason_is_wrapped_between_words(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "the content of input data.train changed; " * 6
    show_table(Table("", ["stage", "because"], [["train", reason]], words=(0, 1)))
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert set(out.split()) >= set(reason.split())


def test_a_note_is_printed_under_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(Table("title", ["a"], [["1"]], note="30 questions are few. " * 8))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title"
    assert " ".join(lines[4:]) == ("30 questions are few. " * 8).strip()
    assert max(len(line) for line in lines) <= 100


def test_markup_in_names_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(Table("[red]t", ["[bold]a", ":smile:"], [["[/]", "1"]]))
    out = capsys.readouterr().out
    for text in ("[red]t", "[bold]a", ":smile:", "[/]"):
        assert text in out


FINDING = "At 256 tokens an answer, **use τ = 0.5** with `pipo`: 1.80 tokens a slot [-4.0, -2.0]. " * 2


def test_findings_are_a_list_without_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings([FINDING.strip(), "second"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("- At 256 tokens an answer, use τ = 0.5 with pipo")
    assert lines[1].startswith("  ")
    assert lines[-1] == "- second"
    assert max(len(line) for line in lines) <= 100


def test_on_a_terminal_what_matters_is_bold(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    show_findings([FINDING.strip()])
    assert "\x1b[1muse τ = 0.5\x1b[0m" in stream.getvalue()


def test_pairs_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_pairs({"rows": 1200, "tokens/s": 12345.6, "dropped": {"wrong": 2000, "unfinished": 3}})
    assert capsys.readouterr().out == "rows      1,200\ntokens/s  12,346\ndropped   2,000 wrong, 3 unfinished\n"


def test_values_as_people_write_them() -> None:
    values: list[Any] = [None, True, 0.123456, 3e-5, {}]
    assert [text_of(value) for value in values] == ["-", "yes", "0.1235", "3e-05", "-"]
