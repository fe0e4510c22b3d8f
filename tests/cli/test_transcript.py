"""How `pipo chat` shows an answer: whole characters, kept drafts marked, the thought apart."""

from pathlib import Path
from typing import Any

import pytest

from pipo_cli.transcript import Transcript, shows_colours
from pipo_core.chat import load_tokenizer
from pipo_core.engine import Delta
from pipo_core.engine.api import Written
from tests.qwen_vocabulary import reference, write_tokenizer

GREEN, DIM, RESET = "\x1b[32m", "\x1b[2m", "\x1b[0m"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("qwen")))


def shown(tokenizer: Any, text: str, *, colours: bool, drafts: bool = True) -> str:
    """The text's tokens in pairs of a first token and a kept draft; behind each pair a draft is rejected."""
    transcript = Transcript(tokenizer, drafts=drafts, colours=colours)
    ids = reference().encode(text)
    whole = ""
    for place in range(0, len(ids), 2):
        pair = [Written(ids[place], "first"), *(Written(token, "kept") for token in ids[place + 1 : place + 2])]
        piece = tokenizer.decode(ids[place : place + 2])
        whole += transcript.add(Delta("a", piece, (*pair, Written(0, "rejected"))))
    return whole + transcript.finish()


@pytest.mark.parametrize("text", ["𓀀𓁀𓂀 ancient", "🧿🫠 👩‍🚀!", "ก็ ᎣᏏᏲ 𝔘𝔫𝔦"])
def test_a_character_of_several_tokens_is_shown_whole(tokenizer: Any, text: str) -> None:
    found = shown(tokenizer, f"t</think>{text}", colours=False)
    assert "\ufffd" not in found
    assert found.replace("‹", "").replace("›", "").replace("·", "") == f"t\n\n{text}"


def test_kept_drafts_are_marked_with_and_without_colours(tokenizer: Any) -> None:
    assert shown(tokenizer, "</think>one two three four", colours=False) == "‹one›· two‹ three›· four·"
    assert f"{GREEN}one{RESET}{DIM}·{RESET} two" in shown(tokenizer, "</think>one two three four", colours=True)


def test_thought_and_answer_stand_apart(tokenizer: Any) -> None:
    text = "think of it\n</think>\n\nfour"
    assert shown(tokenizer, text, colours=False, drafts=False) == "think of it\n\nfour"
    coloured = shown(tokenizer, text, colours=True, drafts=False)
    assert coloured.startswith(f"{DIM}")
    assert coloured.endswith(f"four{RESET}")
    assert "</think>" not in coloured
    assert f"{DIM}four" not in coloured


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shows_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shows_colours()
