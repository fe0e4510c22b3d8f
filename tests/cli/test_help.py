import re

import pytest

from tests.cli.calls import pipo

COMMANDS = ["run", "download", "train", "distill", "merge", "eval", "bench", "calibrate", "rollout", "build"]


@pytest.mark.parametrize("command", [*COMMANDS, "recipes ls", "recipes show", "recipes copy", "recipes validate"])
def test_every_command_has_help_with_an_example_and_json(command: str) -> None:
    code, out, _ = pipo(*command.split(), "--help")
    assert code == 0
    assert re.search(r"Examples?: pipo " + command, " ".join(out.split()))
    assert "--json" in out
    assert "--debug" in out
    if command in COMMANDS:
        assert "--dry-run" in out


def test_wrong_usage_is_exit_code_2_with_a_guess() -> None:
    code, _, err = pipo("trian")
    assert (code, "Did you mean 'train'?" in err) == (2, True)
    assert pipo("train", "x.yaml", "--bogus")[0] == 2
    assert pipo("train")[0] == 2


def test_version() -> None:
    code, out, _ = pipo("--version")
    assert code == 0
    assert re.fullmatch(r"pipo \d+\.\d+\.\d+\n", out)
