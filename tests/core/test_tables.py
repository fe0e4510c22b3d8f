from pipo_core.tables import ABSENT, Table, markdown, without_empty_columns


def test_markdown_puts_words_left_and_figures_right() -> None:
    table = Table("tiny", ["length", "arm", "ms"], [["64", "a|b", "1.5"], ["128", "c", ABSENT]], words=(1,))
    assert markdown(table) == (
        "**tiny**\n\n| length | arm | ms |\n| ---: | --- | ---: |\n| 64 | a\\|b | 1.5 |\n| 128 | c | – |\n"
    )


def test_a_table_without_a_title_has_no_line_for_it() -> None:
    assert markdown(Table("", ["a"], [["b"]])) == "| a |\n| --- |\n| b |\n"


def test_a_note_is_under_the_rows() -> None:
    table = Table("", ["a", "b"], [["1", ABSENT]], note="few")
    assert markdown(without_empty_columns(table)) == "| a |\n| --- |\n| 1 |\n\nfew\n"


def test_empty_columns_go_and_words_stay_words() -> None:
    table = Table("", ["a", "b", "c", "d"], [[ABSENT, "1", "x", ABSENT], [ABSENT, ABSENT, "y", ABSENT]], words=(0, 2))
    assert without_empty_columns(table) == Table("", ["b", "c"], [["1", "x"], [ABSENT, "y"]], words=(1,))
